"""What the processes of a service tell each other; tests/e2e/test_processes.py starts services."""

import multiprocessing
import os
import sys

import pytest

from serve.granian import team as module
from serve.granian.team import Team
from serve.launcher.settings import Settings


@pytest.fixture
def team() -> Team:
    """Two processes, which share five workers."""
    return Team(Settings(server="granian", workers=5, processes=2))


@pytest.mark.skipif(sys.platform != "linux", reason="--processes is for Linux")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of Python 3.12
def test_all_have_to_be_ready(team: Team) -> None:
    """The service is ready once every process is, and the first process is told so."""
    assert team.reason() == "0 of 2 processes ready"
    assert team.tell(0, True) == "1 of 2 processes ready"

    other = multiprocessing.get_context("fork").Process(target=team.tell, args=(1, True))
    other.start()
    other.join()

    assert team.reason() is None
    assert team.tell(1, False) is None  # only the first process speaks for the others
    assert team.tell(0, True) == "1 of 2 processes ready"


def test_silence_is_not_readiness(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that tells nothing any more, as when it is suspended, doesn't count as ready."""
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    assert team.silent_s(1) == 0
    team.tell(1, True)
    now[0] += module.FRESH_S + 1
    team.tell(0, True)

    assert team.silent_s(1) == module.FRESH_S + 1
    assert team.reason() == "1 of 2 processes ready"


def test_shares(team: Team) -> None:
    """Each process has its share of the workers, and canaries that the others turn away."""
    first, second = team.settings_of(0), team.settings_of(1)

    assert (first.worker_count, second.worker_count) == (2, 2)
    assert team.other_tokens(0) == {second.canary_token} != {first.canary_token}
    assert Team(Settings(server="granian", workers=1, processes=2)).settings_of(1).workers == 1


def test_cores_are_shared_out_evenly_or_not_at_all(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every core is one process's, unless some processes would have more than others."""
    kept = list[list[int]]()
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: kept.append(cores), raising=False)
    for cores in ({1, 2, 5, 7}, {1, 2, 5}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores, raising=False)
        for number in range(2):
            team.take_cores(number)

    assert kept == ([[1, 5], [2, 7]] if sys.platform == "linux" else [])
