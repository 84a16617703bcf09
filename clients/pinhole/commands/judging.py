"""Asks about files and prints how well the model knows each, for two commands."""

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pinhole.answers import Reconstruction, Score
from pinhole.client import Client
from pinhole.commands import SOME_FAILED, UsageError, add_json, add_service, connect
from pinhole.commands.png import is_drawn
from pinhole.errors import BadRequest
from pinhole.jobs.errors import Fault

Judged = TypeVar("Judged", Reconstruction, Score)
Ask = Callable[[Client, Iterator[bytes]], Iterator[Judged | BadRequest]]

TIMEOUT_S = 60  # A request carries hundreds of files.
YELLOW, PLAIN = "\x1b[33m", "\x1b[0m"


def add_images(command: argparse.ArgumentParser) -> None:
    """Add the options of a command that judges images."""
    add_service(command, TIMEOUT_S)
    add_json(command, "a JSON document for each image, one a line")
    command.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="a file, or a folder, searched at any depth for files that no command has drawn",
    )


def find_images(given: Iterable[Path]) -> list[Path]:
    """The files that are named, and the images in the folders that are named.

    Raises:
        UsageError: a folder holds no images, or can't be listed.
    """
    found = list[Path]()
    for path in given:
        found += images_in(path) if path.is_dir() else [path]
    return found


def images_in(folder: Path) -> list[Path]:
    """The images in a folder, at any depth, sorted, without those that a command has drawn.

    Raises:
        UsageError: there are none, or the folder can't be listed.
    """
    from pinhole.jobs.errors import JobError
    from pinhole.jobs.sources.patterns import EVERYTHING
    from pinhole.jobs.sources.places import Place
    from pinhole.jobs.sources.walking import Choice, Walk

    walk = Walk(Place(str(folder)), "", EVERYTHING, True, Choice())
    try:
        paths = [folder / name for name, *_ in walk.files()]
    except JobError as error:
        raise UsageError(str(error)) from error
    images = [path for path in paths if not is_drawn(path)]
    if not images:
        raise UsageError(f"{shown(folder)} holds no image files")
    return images


def judge(
    options: argparse.Namespace,
    images: Iterable[Path],
    ask: Ask[Judged],
    keep: Callable[[Path, Judged], Mapping[str, str]],
) -> int:
    """Print a line for each image, as the answers come; returns the exit code.

    Args:
        options: those of add_images.
        images: see find_images.
        ask: asks a client about files.
        keep: called with each answer; returns what to add to the image's JSON document.
    """
    failed = False
    with connect(options) as client:
        for path, answer in ask_about_files(client, images, ask):
            if isinstance(answer, BadRequest | Fault):
                failed = True
                why = answer.message if isinstance(answer, Fault) else str(answer)
                tell_fault(path, why, options.json)
            else:
                tell(path, answer, keep(path, answer), options.json)
    return SOME_FAILED if failed else 0


def ask_about_files(
    client: Client, paths: Iterable[Path], ask: Ask[Judged]
) -> Iterator[tuple[Path, Judged | BadRequest | Fault]]:
    """Yield each path with the answer about it, or why there is none, in order.

    Files are read as they are sent, and yielded as the answers come.
    """
    from pinhole.jobs.sources.files import read_file

    waiting = deque[tuple[Path, Fault | None]]()

    def files() -> Iterator[bytes]:
        for path in paths:
            content = read_file(os.fspath(path))
            if isinstance(content, Fault):
                waiting.append((path, content))
            elif isinstance(content, bytes):
                waiting.append((path, None))
                yield content

    for answer in ask(client, files()):
        while fault := waiting[0][1]:
            yield waiting.popleft()[0], fault
        yield waiting.popleft()[0], answer
    yield from ((path, fault) for path, fault in waiting if fault)


def tell(
    path: Path, answer: Reconstruction | Score, extra: Mapping[str, str], as_json: bool
) -> None:
    """Print a line about one image: a sentence, or a JSON document."""
    facts = {"mse": answer.mse, "percentile": answer.percentile, "outlier": answer.outlier}
    if as_json:
        return print_line({"image": shown(path), **extra, **facts})
    verdict = f", {highlight('an outlier')}" if answer.outlier else ""
    name = extra.get("out", shown(path))
    print(f"{name}: mse {answer.mse:.4f}, percentile {answer.percentile:.1f}{verdict}", flush=True)
    return None


def tell_fault(path: Path, why: str, as_json: bool) -> None:
    """Print why one image failed: to stderr, and with ``as_json`` also as a line of the output."""
    print(f"{shown(path)}: {why}", file=sys.stderr)
    if as_json:
        print_line({"image": shown(path), "error": why})


def print_line(fields: Mapping[str, Any]) -> None:
    """Print a JSON document on one line, unbuffered: a reader needn't wait for later images."""
    print(json.dumps(fields), flush=True)


def shown(path: Path) -> str:
    r"""A path as text; a byte that isn't UTF-8 is written as ``\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def highlight(text: str) -> str:
    """The text in yellow on a terminal, unless NO_COLOR is set (no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"{YELLOW}{text}{PLAIN}" if wanted else text
