"""The threads that answer messages, in two lanes.

A message is light or heavy, by what it will cost (serve.wire.weight), and each lane has a thread
for every core. Light messages that have come in while all threads of their lane were busy are
answered together; a lone message never waits for company, and one small image that comes alone is
answered in the event loop's own thread. Heavy messages are answered one by one, by threads of a
lower priority: they get what light messages leave of the cores, and a little more.
"""

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serve.errors import Unavailable
from serve.service import Report
from serve.wire.message import Message
from serve.wire.replies import Reply
from serve.wire.weight import LIGHT_PIXELS

BATCH_PIXELS = LIGHT_PIXELS  # from here on, a batch takes in no further message
MAX_WAITING_BYTES = 256 << 20  # bodies that wait; 16 of the largest
# Expected waits from which on messages are refused. A caller of a light one is soon told; with a
# limit of 2 s, some were refused at 80 % of what the service can do.
MAX_WAIT_S, MAX_LIGHT_WAIT_S = 20.0, 4.0
FIRST_GUESS = 2e-7  # seconds a pixel takes, until there is something to learn from
LEARNING_RATE = 0.1  # weight of a new measurement of the seconds a pixel takes
# The most that one batch teaches, as a multiple of what was expected: it may have had to wait for
# the processor.
MAX_SURPRISE = 10.0
NICENESS = 5  # of the threads of heavy messages: a third of a light thread's share of a core


@dataclass(eq=False, slots=True)
class Task:
    """A message, and what becomes of it.

    Attributes:
        endpoint: a name in serve.endpoints.ENDPOINTS.
        message: as it arrived.
        request_id: the caller's, or one made for it.
        pixels: what it will cost; see serve.wire.weight.
        light: which lane it takes.
        reply: set in the event loop's thread.
        arrived: a time.monotonic().
        waited_s: from then to the start of its batch.
    """

    endpoint: str
    message: Message
    request_id: str
    pixels: int
    light: bool
    reply: asyncio.Future[Reply] = field(default_factory=asyncio.Future)
    arrived: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0


AnswerBatch = Callable[[str, Sequence[Task], Report], list[Reply]]
Tell = Callable[[str, Sequence[Task], Sequence[Reply], Report], None]


class Lane:
    """Messages of one kind that wait, and the threads that answer them.

    Attributes:
        bytes: of the messages that wait.

    Args:
        threads: how many.
        batch_size: most messages that are answered together.
        niceness: of the threads, beyond that of the process.
        max_wait_s: expected wait from which on messages are refused.
        answer: gives one reply for each message of a batch; never raises.
        tell: counts and logs a batch whose replies are out.
    """

    def __init__(
        self,
        threads: int,
        batch_size: int,
        niceness: int,
        max_wait_s: float,
        answer: AnswerBatch,
        tell: Tell,
    ) -> None:
        self.bytes = 0
        self._batch_size, self._niceness, self._max_wait_s = batch_size, niceness, max_wait_s
        self._answer, self._tell = answer, tell
        self._waiting = deque[Task]()
        self._pixels = 0  # of the messages that wait
        self._seconds_a_pixel = FIRST_GUESS
        self._changed = threading.Condition()
        self._is_closed = False
        self._running: dict[threading.Thread, tuple[float, Sequence[Task]]] = {}
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def add(self, task: Task) -> None:
        """Let a message wait behind the others.

        Raises:
            Unavailable: what waits already takes too long.
        """
        with self._changed:
            wait_s = self._pixels * self._seconds_a_pixel / len(self._threads)
            if wait_s > self._max_wait_s:
                raise Unavailable(
                    f"requests that take {wait_s:.0f} s are waiting; the limit is "
                    f"{self._max_wait_s:.0f}"
                )
            self._waiting.append(task)
            self._note((task,), 1)
            self._changed.notify()

    def answer_here(self, task: Task) -> Reply:
        """Answer a message at once, in the caller's thread, an event loop's."""
        thread, tasks, report = threading.current_thread(), (task,), Report()
        self._running[thread] = time.monotonic(), tasks
        replies = self._answer(task.endpoint, tasks, report)
        del self._running[thread]
        asyncio.get_running_loop().call_soon(self._tell, task.endpoint, tasks, replies, report)
        return replies[0]

    def withdraw(self, task: Task) -> None:
        """Take out a message, if it still waits."""
        with self._changed:
            if task in self._waiting:
                self._waiting.remove(task)
                self._note((task,), -1)

    def slowest(self) -> tuple[float, Sequence[Task]]:
        """The seconds since the oldest batch that is being answered was begun, and that batch."""
        running = list(self._running.values())
        if not running:
            return 0.0, ()
        started, tasks = min(running, key=lambda batch: batch[0])
        return time.monotonic() - started, tasks

    def is_whole(self) -> bool:
        """Whether every thread is alive, as every thread should be."""
        return all(thread.is_alive() for thread in self._threads)

    def close(self, deadline: float) -> bool:
        """Answer nothing more; whether every thread has ended by a time of time.monotonic()."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        if sys.platform == "linux":  # elsewhere, threads have no niceness of their own
            os.nice(self._niceness)  # on top of the process's own, which only root may lower
        thread = threading.current_thread()
        while tasks := self._take():
            started = time.monotonic()
            self._running[thread] = started, tasks
            for task in tasks:
                task.waited_s = started - task.arrived
            report = Report()
            replies = self._answer(tasks[0].endpoint, tasks, report)
            deliver(tasks, replies)
            self._learn(tasks, time.monotonic() - started)
            self._tell(tasks[0].endpoint, tasks, replies, report)
            del self._running[thread], tasks, replies, report

    def _take(self) -> Sequence[Task]:
        """Wait for a message; returns it with others to its endpoint that have come in.

        Returns nothing once the lane is closed.
        """
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return ()
            endpoint, taken, left = self._waiting[0].endpoint, list[Task](), list[Task]()
            pixels = 0
            while self._waiting and len(taken) < self._batch_size and pixels < BATCH_PIXELS:
                task = self._waiting.popleft()
                if task.endpoint == endpoint:
                    taken.append(task)
                    pixels += task.pixels
                else:
                    left.append(task)
            self._waiting.extendleft(reversed(left))
            self._note(taken, -1)
            return taken

    def _note(self, tasks: Sequence[Task], sign: int) -> None:
        """Note that messages begin or cease to wait."""
        self._pixels += sign * sum(task.pixels for task in tasks)
        self.bytes += sign * sum(task.message.size for task in tasks)

    def _learn(self, tasks: Sequence[Task], seconds: float) -> None:
        """Note how long some messages took."""
        measured = seconds / sum(task.pixels for task in tasks)
        measured = min(measured, MAX_SURPRISE * self._seconds_a_pixel)
        self._seconds_a_pixel += LEARNING_RATE * (measured - self._seconds_a_pixel)


class Dispatcher:
    """Both lanes.

    Args:
        cores: threads of each lane.
        batch_size: most light messages that are answered together.
        answer: gives one reply for each message of a batch; never raises.
        tell: counts and logs a batch whose replies are out.
    """

    def __init__(self, cores: int, batch_size: int, answer: AnswerBatch, tell: Tell) -> None:
        self._light = Lane(cores, batch_size, 0, MAX_LIGHT_WAIT_S, answer, tell)
        self._heavy = Lane(cores, 1, NICENESS, MAX_WAIT_S, answer, tell)

    def submit(self, task: Task) -> None:
        """Have a message answered.

        Raises:
            Unavailable: more is waiting than can be answered in time; the message isn't taken.
        """
        waiting = self._light.bytes + self._heavy.bytes
        if waiting + task.message.size > MAX_WAITING_BYTES:
            raise Unavailable(
                f"{waiting:,} bytes of requests are waiting; the limit is {MAX_WAITING_BYTES:,}"
            )
        self._lane(task).add(task)

    def answer_here(self, task: Task) -> Reply:
        """Answer a light message at once, in the event loop's thread."""
        return self._light.answer_here(task)

    def withdraw(self, task: Task) -> None:
        """Drop a message whose caller has gone, if it still waits."""
        self._lane(task).withdraw(task)

    def slowest(self) -> tuple[float, Sequence[Task]]:
        """The seconds since the oldest batch that is being answered was begun, and that batch."""
        return max(self._light.slowest(), self._heavy.slowest(), key=lambda batch: batch[0])

    def is_whole(self) -> bool:
        """Whether every thread is alive, as every thread should be."""
        return self._light.is_whole() and self._heavy.is_whole()

    def close(self, seconds: float) -> bool:
        """Answer nothing more; whether every thread has ended within some seconds."""
        deadline = time.monotonic() + seconds
        light, heavy = self._light.close(deadline), self._heavy.close(deadline)
        return light and heavy

    def _lane(self, task: Task) -> Lane:
        return self._light if task.light else self._heavy


def deliver(tasks: Sequence[Task], replies: Sequence[Reply]) -> None:
    """Give each message its reply, in the event loop's thread."""

    def set_replies() -> None:
        for task, reply in zip(tasks, replies, strict=True):
            if not task.reply.done():
                task.reply.set_result(reply)

    tasks[0].reply.get_loop().call_soon_threadsafe(set_replies)
