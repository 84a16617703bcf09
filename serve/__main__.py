"""``python -m serve BUNDLE``: run TorchServe on a bundle until told to stop."""

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

from serve.bundle import Bundle, load_bundle
from serve.engine import DEVICES, PRECISIONS, RUNTIMES
from serve.errors import LaunchError, ServeError
from serve.launcher.instance import Instance
from serve.launcher.proof import prove_engine
from serve.launcher.readiness import Readiness
from serve.launcher.torchserve import Settings

logger = logging.getLogger("serve")

START_S = 180.0  # for every worker to import torch, load its engine and pass the golden check
UNREADY_S = 30.0  # with an endpoint that has no ready worker, or answers wrongly
CHECK_EVERY_S = 0.5
SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
PORTS = 6  # in a row: inference, management, metrics, readiness and two of gRPC

EXAMPLES = """
examples:
  python -m serve build/mnist
  python -m serve build/mnist --port 9080 --runtime torchscript

Every option is also a variable, which the command line overrides: PINHOLE_PORT=9080,
PINHOLE_BATCH_DELAY_MS=2, PINHOLE_BEHIND_GATEWAY=1.

Ports: inference on --port; management, metrics, the launcher's own and gRPC on the five after
it, on loopback (bar the launcher's own where --host isn't). GET /ready on the launcher's port,
--port + 3, tells the truth.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # In a thread: a handler interrupts the main one, which may be inside the event's lock.
        signal.signal(number, lambda *_: threading.Thread(target=stopping.set).start())
    try:
        check_address(options)
        bundle = load_bundle(options.bundle)
        settings = settings_of(options)
        prove_engine(bundle, settings)
        if not stopping.is_set():
            run(bundle, settings, stopping)
    except (ServeError, OSError) as error:  # OSError: no temporary folder, or no room in it
        print(f"serve: {error}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """The command line, and what the environment's ``PINHOLE_*`` variables add to it."""
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve a bundle with TorchServe: embed, reconstruct, decode.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    flags: dict[str, bool] = {}  # option → whether it is a switch, without a value

    def add(name: str, **details: Any) -> None:
        flags[name] = "action" in details
        parser.add_argument(name, **details)

    parser.add_argument("bundle", type=Path, help="folder that python -m export wrote")
    add("--host", default=default.host, help="address to listen on (default: %(default)s)")
    add("--port", type=port_number, default=default.port, help="(default: %(default)s)")
    add(
        "--behind-gateway",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="allow a --host beyond loopback: a gateway in front does authentication",
    )
    add(
        "--workers", type=count, default=default.workers, help="per endpoint (default: %(default)s)"
    )
    add(
        "--batch-size",
        type=count,
        default=default.batch_size,
        help="most requests to answer together; 1 spares a lone one the wait for others, and "
        "answers fewer under load (default: %(default)s)",
    )
    add(
        "--batch-delay-ms",
        type=count,
        default=default.batch_delay_ms,
        help="longest wait for more requests (default: %(default)s)",
    )
    add("--runtime", choices=RUNTIMES, default=default.runtime, help="(default: %(default)s)")
    add(
        "--device",
        choices=DEVICES,
        default=default.device,
        help="auto takes the best there is: cuda, openvino, cpu (default: %(default)s)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default=default.precision,
        help="bf16 on processors that have it, fp16 on cuda (default: %(default)s)",
    )
    try:
        typed = from_environment(flags, environment)
    except ValueError as error:
        parser.error(str(error))
    return parser.parse_args([*typed, *arguments])


def from_environment(flags: Mapping[str, bool], environment: Mapping[str, str]) -> list[str]:
    """The options that ``PINHOLE_*`` variables stand for, as they would be typed.

    Raises:
        ValueError: a switch is neither on nor off.
    """
    typed = []
    for flag, is_switch in flags.items():
        name = "PINHOLE_" + flag.removeprefix("--").replace("-", "_").upper()
        value = environment.get(name, "")
        if is_switch and value:
            if value.lower() not in SWITCHES:
                raise ValueError(f"{name} must be one of {', '.join(SWITCHES)}; got {value!r}")
            typed.append(flag if SWITCHES[value.lower()] else flag.replace("--", "--no-", 1))
        elif value and not value.startswith("tcp://"):
            # Kubernetes sets PINHOLE_PORT=tcp://… beside a service that is called pinhole.
            typed.append(f"{flag}={value}")
    return typed


def count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def port_number(text: str) -> int:
    """A port that leaves room for the ones after it, for argparse."""
    highest = 65_536 - PORTS
    if not text.isdecimal() or not 1024 <= int(text) <= highest:
        raise argparse.ArgumentTypeError(f"must be within 1024 and {highest}; got {text!r}")
    return int(text)


def settings_of(options: argparse.Namespace) -> Settings:
    """The options that concern TorchServe."""
    return Settings(
        host=options.host,
        port=options.port,
        workers=options.workers,
        batch_size=options.batch_size,
        batch_delay_ms=options.batch_delay_ms,
        runtime=options.runtime,
        device=options.device,
        precision=options.precision,
    )


def check_address(options: argparse.Namespace) -> None:
    """Refuse to publish an unauthenticated service, or to start on a port that is taken.

    Raises:
        LaunchError: one or the other.
    """
    settings = settings_of(options)
    if not settings.is_on_loopback and not options.behind_gateway:
        raise LaunchError(
            f"--host {options.host} would publish a service without authentication; "
            "put a gateway in front and say --behind-gateway"
        )
    hosts = {options.port: options.host, settings.private_port: settings.private_host}
    for port in range(options.port, options.port + PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((hosts.get(port, "127.0.0.1"), port))
            except OSError as error:
                raise LaunchError(f"can't listen on port {port}: {error.strerror}") from error


def run(bundle: Bundle, settings: Settings, stopping: threading.Event) -> None:
    """Serve until ``stopping`` is set: by SIGTERM, SIGINT or SIGHUP.

    Raises:
        LaunchError: TorchServe could not be started, died, or had no ready worker for UNREADY_S.
    """
    with tempfile.TemporaryDirectory(prefix="pinhole-", ignore_cleanup_errors=True) as home:
        instance = Instance(bundle, settings, Path(home), stopping)
        try:
            watch(
                instance.process, instance.readiness, stopping, lambda: announce(bundle, settings)
            )
        finally:
            instance.stop()
    logger.info("stopped")


def watch(
    process: Popen[bytes],
    readiness: Readiness,
    stopping: threading.Event,
    on_first_ready: Callable[[], None],
) -> None:
    """Check readiness until told to stop.

    Raises:
        LaunchError: the process ended, was not ready within START_S, or had an endpoint without a
            ready worker for UNREADY_S.
    """
    was_ready, patience = False, START_S
    last_working = time.monotonic()
    while not stopping.wait(CHECK_EVERY_S):
        if process.poll() is not None:
            raise LaunchError(f"TorchServe died with exit code {process.returncode}")
        before = readiness.reason
        if readiness.check() and not was_ready:
            was_ready, patience = True, UNREADY_S
            on_first_ready()
        elif readiness.reason is None and before is not None:
            logger.info("ready again")
        elif readiness.reason != before:
            logger.log(
                logging.WARNING if was_ready else logging.INFO, "waiting: %s", readiness.reason
            )
        if was_ready and readiness.working:
            last_working = time.monotonic()
        if time.monotonic() - last_working > patience:
            raise LaunchError(f"not ready for {patience:.0f} s: {readiness.reason}")


def announce(bundle: Bundle, settings: Settings) -> None:
    """Say that the service is up, and where."""
    manifest = bundle.manifest
    logger.info(
        "READY %s/predictions/{embed,reconstruct,decode} and http://127.0.0.1:%d/ready "
        "model %s version %s digest %s",
        settings.inference_url,
        settings.private_port,
        manifest.name,
        manifest.version,
        manifest.digest[:12],
    )


if __name__ == "__main__":
    sys.exit(main())
