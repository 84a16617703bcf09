"""Load whose arrival times are fixed beforehand, so that a slow service isn't asked less often."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tests.faults.client import Callers
from tests.faults.traffic import Card

PATIENCE_S = 60.0  # of a caller
LATE_S = 5.0  # a right answer that takes longer is late
FULL_QUEUE = b"ServiceUnavailableException"  # TorchServe's own words: the gateway adds Retry-After
HANG_UPS = 0.05  # of the callers


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        kind: right, wrong, refused (429 or 503 with Retry-After), failed (another error or none) or
            hung up (by the caller).
        began: when the request was due, by time.monotonic().
        seconds: from then to its end.
        detail: what came instead of a right answer.
    """

    kind: str
    began: float
    seconds: float
    detail: str = ""

    @property
    def ended(self) -> float:
        """When the request ended, by time.monotonic()."""
        return self.began + self.seconds

    @property
    def is_late(self) -> bool:
        """Whether the answer was right, and took too long."""
        return self.kind == "right" and self.seconds > LATE_S


def of_kind(outcomes: Sequence[Outcome], kind: str) -> list[Outcome]:
    """The outcomes of one kind."""
    return [outcome for outcome in outcomes if outcome.kind == kind]


def quantile(outcomes: Sequence[Outcome], q: float) -> float:
    """A quantile of the seconds that outcomes took."""
    return float(np.quantile([outcome.seconds for outcome in outcomes], q))


async def ask(callers: Callers, card: Card, began: float) -> Outcome:
    """Ask one question, and judge the reply."""
    try:
        answer = await asyncio.wait_for(callers.ask(card.question), PATIENCE_S)
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        return Outcome("failed", began, time.monotonic() - began, repr(error))
    seconds = time.monotonic() - began
    if answer.status in (429, 503) and (
        "retry-after" in answer.headers or FULL_QUEUE in answer.body
    ):
        return Outcome("refused", began, seconds, answer.body[:200].decode("latin-1"))
    if answer.status >= 500:
        return Outcome("failed", began, seconds, f"{answer.status} {answer.body[:200]!r}")
    try:
        right = card.is_right(answer)
    except (ValueError, LookupError, TypeError) as error:
        return Outcome(
            "wrong", began, seconds, f"{card.question.path} {error!r} {answer.body[:200]!r}"
        )
    told = "" if right else f"{card.question.path} {answer.status} {answer.body[:200]!r}"
    return Outcome("right" if right else "wrong", began, seconds, told)


async def hang_up(callers: Callers, card: Card, began: float, dice: random.Random) -> Outcome:
    """Break a connection in mid-request, or before its reply."""
    try:
        await callers.hang_up(card.question, dice.choice((0.5, 1.0)), dice.uniform(0, 0.05))
    except OSError as error:
        return Outcome("failed", began, time.monotonic() - began, repr(error))
    return Outcome("hung up", began, time.monotonic() - began)


async def closed_loop(
    port: int, deck: Sequence[Card], seconds: float, callers_count: int = 16
) -> list[Outcome]:
    """Have callers ask one question after another: how much the service can do."""
    callers, cards = Callers(port), endless(deck)
    over = time.monotonic() + seconds
    outcomes = list[Outcome]()

    async def keep_asking() -> None:
        while (now := time.monotonic()) < over:
            outcomes.append(await ask(callers, next(cards), now))

    await asyncio.gather(*(keep_asking() for _ in range(callers_count)))
    callers.close()
    return outcomes


def capacity(port: int, deck: Sequence[Card], seconds: float) -> float:
    """Answers a second that the service can give."""
    began = time.monotonic()
    outcomes = asyncio.run(closed_loop(port, deck, seconds))
    assert {outcome.kind for outcome in outcomes} == {"right"}, told(outcomes)
    return len(outcomes) / (time.monotonic() - began)


async def open_loop(
    port: int,
    deck: Sequence[Card],
    rate: float,
    seconds: float,
    over: threading.Event,
    hang_ups: float = HANG_UPS,
) -> list[Outcome]:
    """Send ``rate`` requests a second, come what may, for ``seconds`` or until told to stop.

    Arrivals are random, as those of callers who don't know of each other are.
    """
    dice, callers, cards = random.Random(1), Callers(port), endless(deck)  # noqa: S311
    due, last, tasks = time.monotonic(), time.monotonic() + seconds, list[asyncio.Task[Outcome]]()
    while due < last and not over.is_set():
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        card = next(cards)
        leaves = dice.random() < hang_ups
        call = hang_up(callers, card, due, dice) if leaves else ask(callers, card, due)
        tasks.append(asyncio.create_task(call))
        due += dice.expovariate(rate)
    outcomes = await asyncio.gather(*tasks)
    callers.close()
    return outcomes


def endless(deck: Sequence[Card]) -> Iterator[Card]:
    """The cards of a deck in random order, again and again."""
    dice = random.Random(2)  # noqa: S311 - repeatable, not secret
    while True:
        yield from dice.sample(deck, len(deck))


@dataclass(frozen=True)
class Load:
    """Load that goes on in another thread."""

    _over: threading.Event
    _outcomes: Future[list[Outcome]]

    def stop(self) -> list[Outcome]:
        """Send no more, wait for every reply, and tell what became of each request."""
        self._over.set()
        return self._outcomes.result()


@contextmanager
def under_load(port: int, deck: Sequence[Card], rate: float) -> Iterator[Load]:
    """Load in another thread, which has ended when the block ends."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        load = Load(over, pool.submit(asyncio.run, open_loop(port, deck, rate, 600.0, over)))
        try:
            yield load
        finally:
            over.set()


def told(outcomes: Sequence[Outcome]) -> list[str]:
    """The first few of what was not right."""
    return [f"{each.kind}: {each.detail}" for each in outcomes if each.detail][:8]
