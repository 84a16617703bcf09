"""The lanes of the second server: who is answered when, and who is refused."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serve.errors import Unavailable
from serve.granian import dispatcher as module
from serve.granian.dispatcher import Dispatcher, Task
from serve.service import Report
from serve.wire.message import Message
from serve.wire.replies import Reply
from serve.wire.weight import LIGHT_PIXELS

WAIT_S = 10


class Model:
    """Answers a message with its own body, once its gate is open; remembers its batches."""

    def __init__(self) -> None:
        self.light, self.heavy = threading.Event(), threading.Event()
        self.batches: list[list[bytes]] = []

    def answer(self, endpoint: str, tasks: Sequence[Task], report: Report) -> list[Reply]:
        bodies = [task.message.body for task in tasks]
        self.batches.append(bodies)
        gate = self.light if tasks[0].light else self.heavy
        gate.wait()
        return [Reply(body) for body in bodies]


def tell(endpoint: str, tasks: Sequence[Task], replies: Sequence[Reply], report: Report) -> None:
    """Count nothing."""


def task(name: str, light: bool = True, endpoint: str = "embed", pixels: int = 784) -> Task:
    """A message whose body is its name."""
    return Task(endpoint, Message(name.encode(), {}), name, pixels, light)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


@pytest.fixture
def model() -> Model:
    """Both gates are shut."""
    return Model()


def run(
    story: Callable[[Dispatcher, Model], Coroutine[Any, Any, None]], model: Model, cores: int = 1
) -> None:
    """Tell a story in an event loop, with lanes of ``cores`` threads."""

    async def main() -> None:
        async with asyncio.timeout(WAIT_S):
            await story(Dispatcher(cores, 4, model.answer, tell), model)

    asyncio.run(main())


def test_what_came_in_meanwhile_is_answered_together(model: Model) -> None:
    """A lone message goes at once; those behind it form batches, of one endpoint each."""

    async def story(lanes: Dispatcher, model: Model) -> None:
        first = task("a")
        lanes.submit(first)
        await until(lambda: model.batches == [[b"a"]])
        behind = [task(name, endpoint="decode" if name == "d" else "embed") for name in "bcdefgh"]
        for each in behind:
            lanes.submit(each)
        model.light.set()
        replies = await asyncio.gather(*(each.reply for each in [first, *behind]))
        assert [reply.body for reply in replies] == [name.encode() for name in "abcdefgh"]
        assert all(0 < each.waited_s < WAIT_S for each in [first, *behind])
        assert model.batches == [[b"a"], [b"b", b"c", b"e", b"f"], [b"d"], [b"g", b"h"]]

    run(story, model)


def test_large_light_messages_form_small_batches(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch takes in nothing more once it has the pixels of the largest light message."""
    monkeypatch.setattr(module, "BATCH_PIXELS", 1_000)

    async def story(lanes: Dispatcher, model: Model) -> None:
        lanes.submit(task("a"))
        await until(lambda: model.batches == [[b"a"]])
        behind = [task(name, pixels=600) for name in "bcd"]
        for each in behind:
            lanes.submit(each)
        model.light.set()
        await behind[-1].reply
        assert model.batches == [[b"a"], [b"b", b"c"], [b"d"]]

    run(story, model)


def test_a_lone_message_is_answered_here(model: Model) -> None:
    """It is answered in the event loop's thread, and told of afterwards."""
    told: list[str] = []

    def remember(endpoint: str, tasks: Sequence[Task], *_: object) -> None:
        told.extend(task.request_id for task in tasks)

    async def story() -> None:
        model.light.set()
        lanes = Dispatcher(1, 4, model.answer, remember)
        assert lanes.answer_here(task("alone")).body == b"alone"
        assert told == []
        await until(lambda: told == ["alone"])
        assert lanes.slowest() == (0.0, ())

    asyncio.run(story())


def test_light_messages_pass_heavy_ones(model: Model) -> None:
    """Heavy messages that hold all their threads, with more behind them, delay no light message."""

    async def story(lanes: Dispatcher, model: Model) -> None:
        heavy = [task(f"heavy{number}", light=False) for number in range(5)]
        for each in heavy:
            lanes.submit(each)
        await until(lambda: len(model.batches) == 2)
        model.light.set()
        light = task("light")
        lanes.submit(light)
        assert (await light.reply).body == b"light"
        assert not any(each.reply.done() for each in heavy)
        model.heavy.set()
        assert [(await each.reply).body for each in heavy] == [
            each.request_id.encode() for each in heavy
        ]

    run(story, model, cores=2)


def test_too_many_bytes_are_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that wait are bounded; a place is free again once one is answered or withdrawn."""
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 6)

    async def story(lanes: Dispatcher, model: Model) -> None:
        lanes.submit(task("running"[:6]))
        await until(lambda: len(model.batches) == 1)
        waiting = [task("abc"), task("def", light=False)]
        for each in waiting:
            lanes.submit(each)
        await until(lambda: len(model.batches) == 2)  # the heavy lane's thread has taken its own
        lanes.submit(task("ghi"))
        with pytest.raises(Unavailable, match="6 bytes of requests are waiting; the limit is 6"):
            lanes.submit(task("j"))
        lanes.withdraw(waiting[0])
        lanes.submit(task("k"))

    run(story, model)


def test_too_long_a_wait_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are refused once what waits is expected to take too long, each lane by itself."""
    monkeypatch.setattr(module, "MAX_WAIT_S", 1.0)
    monkeypatch.setattr(module, "FIRST_GUESS", 1.0)

    async def story(lanes: Dispatcher, model: Model) -> None:
        lanes.submit(task("running", light=False, pixels=1))
        await until(lambda: len(model.batches) == 1)
        lanes.submit(task("waiting", light=False, pixels=2))
        with pytest.raises(Unavailable, match="requests that take 2 s are waiting"):
            lanes.submit(task("too much", light=False, pixels=1))
        lanes.submit(task("light", pixels=1))

    run(story, model)


def test_one_slow_message_refuses_no_others(model: Model) -> None:
    """A small message that had to wait for the processor says little about what a pixel costs."""

    async def story(lanes: Dispatcher, model: Model) -> None:
        slow = task("slow")
        lanes.submit(slow)
        await asyncio.sleep(0.5)
        model.light.set()
        await slow.reply
        model.light.clear()
        lanes.submit(task("running"))
        await until(lambda: len(model.batches) == 2)
        for name in ("one", "two", "three"):
            lanes.submit(task(name, pixels=LIGHT_PIXELS))

    run(story, model)


def test_a_caller_who_has_gone_costs_nothing(model: Model) -> None:
    """A message that is withdrawn while it waits is never answered."""

    async def story(lanes: Dispatcher, model: Model) -> None:
        tasks = [task(name, light=False) for name in "abc"]
        for each in tasks:
            lanes.submit(each)
        await until(lambda: len(model.batches) == 1)
        lanes.withdraw(tasks[1])
        model.heavy.set()
        await tasks[2].reply
        assert model.batches == [[b"a"], [b"c"]]

    run(story, model)


def test_what_is_stuck_is_known(model: Model) -> None:
    """The oldest batch under way is told with its age, whichever lane it is in."""

    async def story(lanes: Dispatcher, model: Model) -> None:
        assert lanes.slowest() == (0.0, ())
        lanes.submit(task("stuck", light=False))
        await until(lambda: len(model.batches) == 1)
        lanes.submit(task("later"))
        await until(lambda: len(model.batches) == 2)
        seconds, (oldest,) = lanes.slowest()
        assert oldest.request_id == "stuck"
        assert 0 < seconds < WAIT_S
        assert lanes.is_whole()

    run(story, model)


def test_closing_waits_for_what_is_being_answered(model: Model) -> None:
    """What is being answered is finished, and what waits is dropped; a stuck thread is told."""

    async def story(lanes: Dispatcher, model: Model) -> None:
        tasks = [task("stuck"), task("waiting")]
        lanes.submit(tasks[0])
        await until(lambda: len(model.batches) == 1)
        lanes.submit(tasks[1])
        assert not lanes.close(0.05)
        model.light.set()
        assert lanes.close(WAIT_S)
        assert (await tasks[0].reply).body == b"stuck"
        assert model.batches == [[b"stuck"]]

    run(story, model)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_is_noticed() -> None:
    """What kills a thread, a fault in the log's own code for example, doesn't go unnoticed."""

    def broken(*_: object) -> None:
        raise RuntimeError("the disk of the log is full")

    async def story() -> None:
        model = Model()
        model.light.set()
        lanes = Dispatcher(1, 4, model.answer, broken)
        lanes.submit(task("a"))
        await until(lambda: not lanes.is_whole())

    asyncio.run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness on Linux only")
def test_niceness_adds_up(model: Model) -> None:
    """A service started by "nice" keeps that niceness: to lower it takes root."""
    found = list[int]()

    def begin() -> None:
        own = os.nice(2)  # this thread's, and that of the threads it starts
        lane = module.Lane(1, 1, 3, 1.0, model.answer, tell)
        (thread,) = lane._threads
        deadline = time.monotonic() + WAIT_S
        while not found and time.monotonic() < deadline:
            found.extend(
                {os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)} & {min(own + 3, 19)}
            )
        lane.close(deadline)

    starter = threading.Thread(target=begin)
    starter.start()
    starter.join()

    assert found
