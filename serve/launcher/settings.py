"""How to run a service: the command line, and the environment's ``PINHOLE_*`` variables."""

import argparse
import ipaddress
import re
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from serve.bundle.engine.host import usable_cores
from serve.bundle.engine.opening import RUNTIMES
from serve.bundle.engine.protocol import DEVICES, PRECISIONS
from serve.launcher.logs import FORMATS

# server → the module whose Instance starts, watches and stops it. To add a server, write such a
# module (see serve.launcher.watching.Instance) and name it here.
SERVERS = {"torchserve": "serve.torchserve.instance", "granian": "serve.granian.instance"}
# Small enough that a full batch is always waiting when a worker becomes free; with 64, TorchServe's
# workers were idle for 14 % of the time (docs/benchmarks.md).
BATCH_SIZE = 24
GPU_BATCH_SIZE = 256  # of granian: a GPU takes hardly longer for 256 images than for one
MOST_WORKERS = 4  # of TorchServe for each endpoint, by default: each worker takes 330 MB
PRIVATE_OFFSET = 3  # from the inference port to the private port
# server → its ports, as distances from the inference port. TorchServe's are inference, private and
# two for gRPC.
OFFSETS = {"torchserve": (0, PRIVATE_OFFSET, 4, 5), "granian": (0, PRIVATE_OFFSET)}
PORTS_NEEDED = 6
MOST = 1_024  # workers, processes, requests in a batch, milliseconds; a larger number is a typo
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

EXAMPLES = """
examples:
  python -m serve build/mnist
  python -m serve build/mnist --port 9080 --runtime torchscript
  python -m serve build/mnist --server granian
  python -m serve build/mnist --server granian --processes 2

Every option is also a variable, which the command line overrides: PINHOLE_PORT=9080,
PINHOLE_BATCH_DELAY_MS=2, PINHOLE_BEHIND_GATEWAY=1.

Ports: inference is on --port, and the private port is --port + 3; GET /ready on it says whether the
service is ready. TorchServe also takes --port + 4 and + 5 (gRPC), on loopback. The private port is
on every address if --host isn't loopback.
"""


def option(default: Any, help: str, **details: Any) -> Any:
    """Declare a setting: its default (or a function for it), its ``--help`` text, and its type."""
    metadata = {"help": help, **details}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def count(text: str) -> int:
    """A whole number from 1 to MOST, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST:,}; got {text!r}")
    return int(text)


def address(text: str) -> str:
    """An IP address, for argparse; ``localhost`` is 127.0.0.1."""
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text.lower() == "localhost" else text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be an IP address; got {text!r}") from error


def port_number(text: str) -> int:
    """A port that leaves room for the ports after it, for argparse."""
    highest = 65_536 - PORTS_NEEDED
    if not text.isdecimal() or not 1024 <= int(text) <= highest:
        raise argparse.ArgumentTypeError(f"must be within 1024 and {highest}; got {text!r}")
    return int(text)


def origins(text: str) -> frozenset[str]:
    """Origins of web pages, separated by commas or spaces, for argparse; ``*`` is any origin."""
    names = text.lower().replace(",", " ").split()
    if not names or not all(map(ORIGIN.fullmatch, names)):
        raise argparse.ArgumentTypeError(
            f"must be origins such as https://site.example (no path), or *; got {text!r}"
        )
    return frozenset(names)


@dataclass(frozen=True)
class Settings:
    """How to run one service; the command line is made of these fields.

    ``canary_token`` is not an option. Workers know the launcher's canaries by this token, and
    neither log nor count them.
    """

    server: str = option(
        "torchserve",
        "torchserve, or granian: the same contract in one small process, without Java",
        choices=tuple(SERVERS),
    )
    host: str = option("127.0.0.1", "IP address to listen on, or localhost", type=address)
    port: int = option(
        8080,
        "port of the inference API; some of the five ports after it are used too",
        type=port_number,
    )
    behind_gateway: bool = option(
        False,
        "allow a --host beyond loopback: a gateway in front authenticates callers",
        action=argparse.BooleanOptionalAction,
    )
    workers: int | None = option(
        None,
        "torchserve: worker processes for each endpoint (default: one a core, at most "
        f"{MOST_WORKERS}); granian: threads that run the engine, shared out evenly among "
        "the processes, and one each at least (default: one a core)",
        type=count,
    )
    processes: int = option(
        1,
        "granian on Linux: processes that share the port, the cores and the workers, since one "
        "can't use all of many cores",
        type=count,
    )
    batch_size: int | None = option(
        None,
        f"most requests in a dynamic batch (default: {BATCH_SIZE}; granian on cuda: "
        f"{GPU_BATCH_SIZE}); with 1, no request waits for a batch to fill, but fewer requests are "
        "answered under load",
        type=count,
    )
    batch_delay_ms: int = option(
        1, "longest wait for a batch to fill; with granian no request waits for one", type=count
    )
    runtime: str = option("onnxruntime", "runtime of the engine", choices=tuple(RUNTIMES))
    device: str = option(
        "auto", "auto takes the first that is there of cuda, openvino, cpu", choices=DEVICES
    )
    precision: str = option(
        "fp32", "bf16 on processors that have it, fp16 on cuda", choices=PRECISIONS
    )
    cors: frozenset[str] = option(
        frozenset(),
        "granian: origins whose web pages may call, such as https://site.example, separated by "
        "commas, or * for any (default: none)",
        type=origins,
    )
    log_format: str = option("text", "json writes one object a line, for machines", choices=FORMATS)
    canary_token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def worker_count(self) -> int:
        """What ``workers`` says, or the server's default."""
        if self.workers is not None:
            return self.workers
        return usable_cores() if self.server == "granian" else min(MOST_WORKERS, usable_cores())

    @property
    def inference_url(self) -> str:
        """The inference API's URL; on loopback where the service listens on every address."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this host can reach the inference API."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def private_host(self) -> str:
        """Where the private port listens: on every address if a gateway has to reach it.

        127.0.0.1 is always among these addresses, for the commands that are only told the port.
        """
        if self.is_on_loopback:
            return "127.0.0.1"
        return "::" if ":" in self.host else "0.0.0.0"  # noqa: S104

    @property
    def private_port(self) -> int:
        """The launcher's own port."""
        return self.port + PRIVATE_OFFSET


OPTIONS = {"--" + each.name.replace("_", "-"): each for each in fields(Settings) if each.metadata}


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that parsed options stand for."""
    return Settings(**{each.name: getattr(options, each.name) for each in OPTIONS.values()})


def parse(arguments: list[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """The command line, completed by the environment's ``PINHOLE_*`` variables.

    Returns:
        ``bundle``, and an attribute for each of OPTIONS.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="Serve a bundle: embed, reconstruct, decode.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="folder that python -m export wrote")
    default = Settings()
    for flag, each in OPTIONS.items():
        value, details = getattr(default, each.name), dict(each.metadata)
        if value not in (None, frozenset()):
            details["help"] += " (default: %(default)s)"
        parser.add_argument(flag, default=value, **details)
    try:
        typed = from_environment(environment)
    except ValueError as error:
        parser.error(str(error))
    options = parser.parse_args([*typed, *arguments])
    if options.processes > 1 and (options.server != "granian" or sys.platform != "linux"):
        parser.error(
            f"--processes {options.processes} is for --server granian on Linux; see --workers"
        )
    if options.cors and options.server != "granian":
        parser.error("--cors is for --server granian; before torchserve, the gateway answers pages")
    return options


def from_environment(environment: Mapping[str, str]) -> list[str]:
    """The options that ``PINHOLE_*`` variables stand for, as the command line would have them.

    Raises:
        ValueError: a switch's variable is neither on nor off.
    """
    typed = []
    for flag, each in OPTIONS.items():
        name = f"PINHOLE_{each.name.upper()}"
        value = environment.get(name, "")
        if each.type is bool and value:
            if value.lower() not in SWITCHES:
                raise ValueError(f"{name} must be one of {', '.join(SWITCHES)}; got {value!r}")
            typed.append(flag if SWITCHES[value.lower()] else flag.replace("--", "--no-", 1))
        elif value and not value.startswith("tcp://"):
            # Kubernetes sets PINHOLE_PORT=tcp://… in every pod where a service is called pinhole.
            typed.append(f"{flag}={value}")
    return typed
