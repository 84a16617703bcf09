"""Mixed traffic for minutes, and more than the service can take."""

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Sequence

from tests.e2e.conftest import Running
from tests.faults.load import (
    Outcome,
    capacity,
    closed_loop,
    of_kind,
    open_loop,
    quantile,
    told,
)
from tests.faults.processes import descriptors, tree, watched
from tests.faults.traffic import Card, Pool, card_of, npy_form

MINUTES = float(os.environ.get("PINHOLE_FAULTS_MINUTES", "2"))  # of mixed traffic for each server
MEASURE_S = 10.0
OVERLOAD_S = 15.0
MOST_GROWTH = 100 << 20  # bytes a minute: Java's heap still grows in the first minutes
MOST_DESCRIPTORS = 10  # more at rest than before the traffic
SMALL = 8  # images of a request: cheap to send, and dear enough for a client of one thread
REFUSED_S = 1.0
NORMAL_S = 5.0
REST_S = 3.0

Note = Callable[[str], None]


def test_mixed_traffic(service: Running, deck: Sequence[Card], note: Note) -> None:
    """At 80 % of what it can do, every answer is right, and memory and descriptors stay level."""
    rate = 0.8 * capacity(service.port, deck, MEASURE_S)
    before = descriptors_at_rest(service.process.pid)
    with watched(service.process.pid) as samples:
        load = open_loop(service.port, deck, rate, MINUTES * 60, threading.Event())
        outcomes = asyncio.run(load)

    answered = [each for each in outcomes if each.kind != "hung up"]
    slope, after = samples.memory_slope(), descriptors_at_rest(service.process.pid)
    note(
        f"{service.server}: {len(answered):,} answers of mixed traffic in {MINUTES:g} min, "
        f"{rate:.0f} a second; p50 {quantile(answered, 0.5) * 1e3:.0f} ms, "
        f"p99 {quantile(answered, 0.99) * 1e3:.0f} ms; memory {samples.memory_bytes[-1] >> 20} MiB,"
        f" {slope / (1 << 20):+.1f} MiB a minute; {before} descriptors before, {after} after"
    )
    assert {each.kind for each in answered} == {"right"}, told(answered)
    assert len(answered) < len(outcomes), "nobody has hung up"
    assert slope < MOST_GROWTH
    assert after < before + MOST_DESCRIPTORS
    assert service.readiness().ok


def test_twice_what_it_can_do(service: Running, pool: Pool, note: Note) -> None:
    """What can't be answered is refused at once, and five seconds later all is as before."""
    dice = random.Random(3)  # noqa: S311 - repeatable, not secret
    deck = [
        card_of(pool, dice, SMALL, "reconstruct", npy_form, "application/x-npy") for _ in range(100)
    ]
    normal = asyncio.run(closed_loop(service.port, deck, MEASURE_S, callers_count=4))
    most = capacity(service.port, deck, MEASURE_S)
    load = open_loop(service.port, deck, 2 * most, OVERLOAD_S, threading.Event(), hang_ups=0)

    outcomes = asyncio.run(load)

    over = max(each.began for each in outcomes)
    accepted, refused = of_kind(outcomes, "right"), of_kind(outcomes, "refused")
    note(
        f"{service.server}: {2 * most:.0f} requests a second where {most:.0f} can be answered: "
        f"{len(accepted):,} answered, p99 {quantile(accepted, 0.99):.1f} s (in quiet "
        f"{quantile(normal, 0.99):.2f} s); {len(refused):,} refused"
        + (f", p99 {quantile(refused, 0.99):.2f} s" if refused else "")
    )
    assert len(accepted) + len(refused) == len(outcomes), told(outcomes)
    assert refused, "nothing was refused at twice the capacity"
    assert all(each.seconds < REFUSED_S for each in refused), told(refused)
    after = is_normal_again(service, deck, quantile(normal, 0.99))
    assert after is not None
    assert after - over < NORMAL_S


def descriptors_at_rest(pid: int) -> int:
    """How many descriptors are open once those of callers that have gone are closed."""
    time.sleep(REST_S)
    return descriptors(tree(pid))


def is_normal_again(service: Running, deck: Sequence[Card], p99: float) -> float | None:
    """When a second of quiet traffic was as fast as before, or twice as slow; None if never."""
    for _ in range(10):
        began = time.monotonic()
        outcomes = asyncio.run(closed_loop(service.port, deck, 1.0, callers_count=4))
        if is_quiet(outcomes, p99):
            return began
    return None


def is_quiet(outcomes: Sequence[Outcome], p99: float) -> bool:
    """Whether all answers are right, and half of them come within twice ``p99``."""
    right = {each.kind for each in outcomes} == {"right"}
    return right and quantile(outcomes, 0.5) < 2 * p99
