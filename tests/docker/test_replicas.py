"""Two replicas share the load, and losing a replica costs no caller an answer."""

from collections.abc import Iterator

import pytest
import requests

from ..e2e.conftest import wait_until
from .conftest import ROOMY, Compose, docker, inspect, kill, load

LOAD_S = 4.0  # how long the load runs before and after something happens


@pytest.fixture(autouse=True)
def two(compose: Compose) -> Iterator[None]:
    """Two replicas, both up."""
    compose.up("--scale", "service=2", **ROOMY)
    yield
    assert wait_until(lambda: healthy(compose) == 2, 90), compose.log("service")


def healthy(compose: Compose) -> int:
    """How many replicas are healthy."""
    states = [
        inspect(container, "{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}")
        for container in compose.containers("service")
    ]
    return states.count("running healthy")


def answered(compose: Compose, container: str) -> float:
    """How many requests a replica has answered with 200, by its own count."""
    ask = ["curl", "-s", f"http://{address(container)}:8083/metrics"]
    page = compose.run("exec", "gateway", *ask).stdout
    wanted = 'pinhole_requests_total{endpoint="embed",status="200"}'
    return sum(float(line.split()[1]) for line in page.splitlines() if line.startswith(wanted))


def address(container: str) -> str:
    """The address of a container in its network."""
    return inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")


def pause(seconds: float) -> None:
    """Let the load run."""
    wait_until(lambda: False, seconds)


def test_load_spreads(compose: Compose, seven: bytes) -> None:
    """Both replicas answer requests, and each has a fair share of them."""
    replicas = compose.containers("service")
    before = [answered(compose, replica) for replica in replicas]
    with load(compose, seven) as outcomes:
        pause(LOAD_S)
    shares = [answered(compose, r) - b for r, b in zip(replicas, before, strict=True)]

    assert set(outcomes) == {"200"}
    assert min(shares) > 0.2 * sum(shares)


def test_killed_replica_costs_no_request(compose: Compose, seven: bytes) -> None:
    """A replica that is killed under load costs no request, and returns by itself."""
    victim = compose.containers("service")[0]
    with load(compose, seven) as outcomes:
        pause(LOAD_S)
        kill(victim)
        replies = [
            requests.get(f"{compose.url}{path}", timeout=10)
            for _ in range(5)
            for path in ("/ready", "/v2/models/embed", "/v2/models/embed/ready", "/map.json")
        ]
        pause(LOAD_S)
    restarts = inspect(victim, "{{.RestartCount}}")

    assert set(outcomes) == {"200"}
    assert outcomes["200"] > 100
    assert {reply.status_code for reply in replies} == {200}
    assert restarts == "1"
    assert wait_until(lambda: healthy(compose) == 2, 90)
    count = answered(compose, victim)
    with load(compose, seven):
        assert wait_until(lambda: answered(compose, victim) > count, 20)


def test_stopped_replica_costs_no_request(compose: Compose, seven: bytes) -> None:
    """A replica that is stopped under load costs no request, and exits with 0."""
    leaver = compose.containers("service")[0]
    with load(compose, seven) as outcomes:
        pause(LOAD_S)
        docker("stop", "--time", "60", leaver)
        pause(LOAD_S)
    exit_code = inspect(leaver, "{{.State.ExitCode}}")
    docker("start", leaver)

    assert set(outcomes) == {"200"}
    assert outcomes["200"] > 100
    assert exit_code == "0"


def test_nobody_there(compose: Compose, seven: bytes) -> None:
    """Without a replica the gateway says so at once, in the contract's form."""
    replicas = compose.containers("service")
    docker("stop", "--time", "60", *replicas)
    ready = requests.get(f"{compose.url}/ready", timeout=10)
    embed = requests.post(f"{compose.url}/predictions/embed", seven, timeout=10)
    docker("start", *replicas)

    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert (embed.status_code, embed.json()["type"]) == (503, "Unavailable")
    assert embed.headers["Retry-After"] == "1"
