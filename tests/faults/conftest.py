"""What the tests of faults share: the deck of requests, and the table at the end of a run."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import requests

from serve.bundle.images import write_png
from serve.bundle.manifest import Bundle
from tests.e2e.conftest import Running, server, service, wait_until
from tests.faults.load import Outcome, of_kind
from tests.faults.processes import descriptors, memory_bytes, tree
from tests.faults.traffic import Card, Pool, deal, make_pool
from train.dataset import Dataset

__all__ = ["server", "service"]  # fixtures, one for each of SERVERS

RECOVER_S = 120.0
EMBED = "/predictions/embed"
FILE = write_png(np.full((1, 28, 28), 90, np.uint8))
MOST_GROWTH = 500 << 20  # bytes, over a whole test: the JVM's heap grows at first
MOST_DESCRIPTORS = 20
TABLE = pytest.StashKey[list[str]]()
COLUMNS = "{:<46} {:>8} {:>7} {:>6} {:>6} {:>8} {:>10}"
HEAD = COLUMNS.format("fault", "answers", "failed", "wrong", "late", "refused", "recovered")


@pytest.fixture(scope="session")
def pool(shipped_bundle: Bundle, digits: Dataset) -> Pool:
    """Some hundreds of images, and the engine's own answers."""
    return make_pool(shipped_bundle, digits.test_images.numpy())


@pytest.fixture(scope="session")
def deck(pool: Pool) -> list[Card]:
    """Requests of every form, of 1 to 4,096 images."""
    return deal(pool, 600, 4_096)


@pytest.fixture(scope="session")
def small_deck(pool: Pool) -> list[Card]:
    """Requests of every form, of 1 to 32 images."""
    return deal(pool, 600, 32)


@dataclass(frozen=True)
class Story:
    """What callers saw of a fault.

    Attributes:
        failed, wrong, late: how many answers.
        recovered_s: from the fault to the last answer that was not right and in time.
    """

    failed: int
    wrong: int
    late: int
    recovered_s: float


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str, Sequence[Outcome], float], Story]:
    """Count what callers saw, and add a line to the table: the fault, the outcomes, its time."""
    table = request.config.stash.setdefault(TABLE, [])

    def tell(fault: str, outcomes: Sequence[Outcome], at: float) -> Story:
        bad = [x for x in outcomes if x.is_late or x.kind in ("failed", "wrong", "refused")]
        failed, wrong, refused = (len(of_kind(outcomes, k)) for k in ("failed", "wrong", "refused"))
        late = sum(each.is_late for each in outcomes)
        recovered = max([0.0, *(each.ended - at for each in bad)])
        answers = len(of_kind(outcomes, "right"))
        row = fault, answers, failed, wrong, late, refused, f"{recovered:.1f} s"
        table.append(COLUMNS.format(*row))
        return Story(failed, wrong, late, recovered)

    return tell


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Add a line of figures to the table."""
    return request.config.stash.setdefault(TABLE, []).append


@pytest.fixture
def unharmed(service: Running) -> Iterator[None]:
    """Whatever a test sends, no process dies or grows, nothing stays open, nothing is logged."""
    pids = tree(service.process.pid)
    memory, open_before = memory_bytes(pids), descriptors(pids)
    right = requests.post(service.url + EMBED, FILE, timeout=30).json()
    yield
    assert requests.post(service.url + EMBED, FILE, timeout=30).json() == right
    assert tree(service.process.pid) == pids
    time.sleep(0.5)  # for the last connections to be closed
    assert memory_bytes(pids) - memory < MOST_GROWTH
    assert descriptors(pids) - open_before < MOST_DESCRIPTORS
    assert "Traceback (most recent call last)" not in service.log.read_text()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table."""
    if TABLE in config.stash:
        terminalreporter.section("faults")
        for line in (HEAD, *config.stash[TABLE]):
            terminalreporter.line(line)


def wait_until_ready(service: Running) -> float:
    """The seconds until the service says that it is ready."""
    began = time.monotonic()
    assert wait_until(lambda: is_ready(service), RECOVER_S), service.log.read_text()[-4_000:]
    return time.monotonic() - began


def is_ready(service: Running) -> bool:
    """Whether the service says that it is ready; one that says nothing isn't."""
    try:
        return service.readiness().ok
    except requests.RequestException:
        return False
