"""The threads that answer messages, and which message is next.

A message is light or heavy, by what it will cost (serve.wire.weight). Light messages that have come
in while every thread was busy are answered together; a lone message never waits for company. Heavy
messages are answered one by one.

There is one thread more than there are cores. As long as heavy messages hold every core, the last
thread answers light messages beside them, and the operating system shares the cores out. So a light
message waits for no heavy one, and a heavy message always gets on too.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from serve.errors import Unavailable
from serve.service import Report
from serve.wire.replies import Reply
from serve.wire.requests import Message

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 256 << 20  # bodies that wait; 16 of the largest
MAX_WAIT_S = 10.0  # expected wait from which on messages are refused; clients give up after 10 s
FIRST_GUESS = 2e-7  # seconds a pixel, until there is something to learn from
LEARNING_RATE = 0.1  # weight of a new measurement of the seconds a pixel takes

Answer = Callable[[str, Sequence["Task"], Report], list[Reply]]
Tell = Callable[[str, Sequence["Task"], Sequence[Reply], Report], None]


@dataclass(eq=False, slots=True)
class Task:
    """A message, and what becomes of it.

    Attributes:
        endpoint: a name in serve.endpoints.ENDPOINTS.
        message: as it arrived.
        request_id: the caller's, or one made for it.
        pixels: what it will cost; see serve.wire.weight.
        light: whether it is answered beside heavy messages.
        trace: the caller's traceparent, for the log; empty if there is none.
        reply: set in the event loop's thread.
    """

    endpoint: str
    message: Message
    request_id: str
    pixels: int
    light: bool
    trace: str = ""
    reply: asyncio.Future[Reply] = field(default_factory=asyncio.Future)


class Lane:
    """Messages of one kind that wait, and how fast such messages are answered."""

    def __init__(self) -> None:
        self.waiting = deque[Task]()
        self.running = 0  # threads that answer messages of this lane
        self.pixels = 0  # of the waiting messages
        self._seconds_a_pixel = FIRST_GUESS

    def add(self, task: Task) -> None:
        """Let a message wait behind the others."""
        self.waiting.append(task)
        self.pixels += task.pixels

    def take(self, most: int) -> list[Task]:
        """The first message, and up to ``most`` in all of those to the same endpoint."""
        endpoint, taken, left = self.waiting[0].endpoint, list[Task](), list[Task]()
        while self.waiting and len(taken) < most:
            task = self.waiting.popleft()
            (taken if task.endpoint == endpoint else left).append(task)
        self.waiting.extendleft(reversed(left))
        self.pixels -= sum(task.pixels for task in taken)
        return taken

    def remove(self, task: Task) -> bool:
        """Take out one message; whether it was still waiting."""
        if task not in self.waiting:
            return False
        self.waiting.remove(task)
        self.pixels -= task.pixels
        return True

    def wait_s(self, threads: int) -> float:
        """How long a new message is expected to wait."""
        return self.pixels * self._seconds_a_pixel / threads

    def learn(self, tasks: Iterable[Task], seconds: float) -> None:
        """Note how long some messages took."""
        measured = seconds / sum(task.pixels for task in tasks)
        self._seconds_a_pixel += LEARNING_RATE * (measured - self._seconds_a_pixel)


class Dispatcher:
    """The threads that answer messages.

    Args:
        cores: how many messages, or batches of light messages, are answered at a time.
        batch_size: most light messages in a batch.
        answer: gives one reply for each message of a batch; never raises.
        tell: counts and logs a batch whose replies are out.
    """

    def __init__(self, cores: int, batch_size: int, answer: Answer, tell: Tell) -> None:
        self._cores, self._batch_size, self._answer, self._tell = cores, batch_size, answer, tell
        self._light, self._heavy = Lane(), Lane()
        self._bytes = 0  # of the waiting messages
        self._changed = threading.Condition()
        self._running: dict[threading.Thread, tuple[float, list[Task]]] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"engine-{number}", daemon=True)
            for number in range(cores + 1)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Task) -> None:
        """Have a message answered.

        Raises:
            Unavailable: more is waiting than can be answered in time; the message isn't taken.
        """
        lane, size = self._lane(task), task.message.size
        with self._changed:
            wait_s = lane.wait_s(self._cores)
            if wait_s > MAX_WAIT_S:
                raise Unavailable(
                    f"requests that take {wait_s:.0f} s are waiting; the limit is {MAX_WAIT_S:.0f}"
                )
            if self._bytes + size > MAX_WAITING_BYTES:
                raise Unavailable(
                    f"{self._bytes:,} bytes of requests are waiting; "
                    f"the limit is {MAX_WAITING_BYTES:,}"
                )
            self._bytes += size
            lane.add(task)
            if self._may_start(lane):
                self._changed.notify()

    def withdraw(self, task: Task) -> None:
        """Drop a message whose caller has gone, if it still waits."""
        with self._changed:
            if self._lane(task).remove(task):
                self._bytes -= task.message.size

    def slowest(self) -> tuple[float, Sequence[Task]]:
        """The seconds since the oldest batch that is being answered was begun, and that batch."""
        running = list(self._running.values())
        if not running:
            return 0.0, ()
        started, tasks = min(running, key=lambda batch: batch[0])
        return time.monotonic() - started, tasks

    def has_lost_a_thread(self) -> bool:
        """Whether a thread has ended, which no thread should."""
        return not all(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        thread = threading.current_thread()
        while True:
            lane, tasks = self._take()
            started = time.monotonic()
            self._running[thread] = started, tasks
            report = Report()
            replies = self._answer(tasks[0].endpoint, tasks, report)
            deliver(tasks, replies)
            seconds = time.monotonic() - started
            self._tell(tasks[0].endpoint, tasks, replies, report)
            del self._running[thread]
            with self._changed:
                lane.running -= 1
                lane.learn(tasks, seconds)

    def _take(self) -> tuple[Lane, list[Task]]:
        """Wait for messages that this thread may answer."""
        with self._changed:
            while True:
                for lane, most in ((self._light, self._batch_size), (self._heavy, 1)):
                    if lane.waiting and self._may_start(lane):
                        tasks = lane.take(most)
                        self._bytes -= sum(task.message.size for task in tasks)
                        lane.running += 1
                        return lane, tasks
                self._changed.wait()

    def _may_start(self, lane: Lane) -> bool:
        """Whether one more thread may answer messages of a lane now."""
        light, heavy = self._light.running, self._heavy.running
        if lane is self._light:
            return light < max(1, self._cores - heavy)
        return heavy == 0 or light + heavy < self._cores

    def _lane(self, task: Task) -> Lane:
        return self._light if task.light else self._heavy


def deliver(tasks: Sequence[Task], replies: Sequence[Reply]) -> None:
    """Give each message its reply, in the event loop's thread."""

    def set_replies() -> None:
        for task, reply in zip(tasks, replies, strict=True):
            if not task.reply.done():
                task.reply.set_result(reply)

    tasks[0].reply.get_loop().call_soon_threadsafe(set_replies)
