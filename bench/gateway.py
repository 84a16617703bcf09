"""What the gateway costs: requests/s through the gateway, and straight to its only replica.

Gateway and replica are asked at their containers' own addresses, without Docker's port forwarding,
and in turns, so that other load on the machine slows both. Linux only: elsewhere containers have no
address that the host can reach.

    make bench-gateway
    python -m bench.gateway --rounds 9 --seconds 5
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench.wrk import Load, Target, measure

ROOT = Path(__file__).parent.parent
PROJECT = ["docker", "compose", "--env-file", "/dev/null", "-p", "pinhole-bench"]
SETTINGS = {"PINHOLE_PORT": "18090", "PINHOLE_RATE": "1000000", "PINHOLE_CONNECTIONS": "1000"}
SEVEN = ROOT / "clients" / "examples" / "digits" / "7-00017.png"
CONNECTIONS = (64, 1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        compose("up", "--wait")
        race(options.rounds, options.seconds)
    finally:
        compose("down", "--timeout", "10")
    return 0


def race(rounds: int, seconds: float) -> None:
    """Measure in turns, and print the table."""
    addresses = {name: address(name) for name in ("service", "gateway")}
    for name in addresses:
        ask(addresses[name], 16, seconds)  # warm up
    print("| connections | direct, requests/s | gateway, requests/s | share | p50 ms | p50 ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for connections in CONNECTIONS:
        direct, through = [], []
        for _ in range(rounds):
            direct.append(ask(addresses["service"], connections, seconds))
            through.append(ask(addresses["gateway"], connections, seconds))
        print(row(connections, direct, through))


def row(connections: int, direct: list[Load], through: list[Load]) -> str:
    """A line of the table: medians over the rounds, of the share too."""
    pairs = zip(direct, through, strict=True)
    share = statistics.median(behind.rate / before.rate for before, behind in pairs)
    rates = [statistics.median(load.rate for load in loads) for loads in (direct, through)]
    waits = [statistics.median(load.p50_ms for load in loads) for loads in (direct, through)]
    return (
        f"| {connections} | {rates[0]:,.0f} | {rates[1]:,.0f} | {share:.2f} "
        f"| {waits[0]:.1f} | {waits[1]:.1f} |"
    )


def ask(host: str, connections: int, seconds: float) -> Load:
    """Load a host with requests of one 28 x 28 PNG each.

    Raises:
        SystemExit: not every answer was a 200.
    """
    target = Target(f"http://{host}:8080/predictions/embed", SEVEN, {"Content-Type": "image/png"})
    load = measure(target, connections, seconds)
    if load.faults:
        sys.exit(f"bench: {host}: {dict(load.faults)}")
    return load


def address(service: str) -> str:
    """The address of a service's container in the network of both services."""
    container = compose("ps", "--quiet", service)
    template = '{{(index .NetworkSettings.Networks "pinhole-bench_inside").IPAddress}}'
    command = ["docker", "inspect", "--format", template, container]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def compose(*arguments: str) -> str:
    """``docker compose …``; returns stdout."""
    run = subprocess.run(
        [*PROJECT, *arguments],
        cwd=ROOT,
        env=os.environ | SETTINGS,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return run.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
