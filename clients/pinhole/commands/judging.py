"""Reconstructing files, and telling how good each came out: what two commands do."""

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pinhole.answers import Reconstruction
from pinhole.client import Client
from pinhole.errors import BadRequest

YELLOW, PLAIN = "\x1b[33m", "\x1b[0m"


def judge(
    client: Client, paths: Iterable[Path]
) -> Iterator[tuple[Path, Reconstruction | BadRequest | OSError]]:
    """Each path with what the model remembers of it, or why there is nothing, in order.

    Files are read as they are sent, and told of as the answers come.
    """
    sent = deque[tuple[Path, OSError | None]]()

    def files() -> Iterator[bytes]:
        for path in paths:
            try:
                content = path.read_bytes()
            except OSError as error:
                sent.append((path, error))
            else:
                sent.append((path, None))
                yield content

    for answer in client.reconstruct_each(files()):
        while fault := sent[0][1]:
            yield sent.popleft()[0], fault
        yield sent.popleft()[0], answer
    yield from ((path, fault) for path, fault in sent if fault)


def tell(path: Path, answer: Reconstruction, extra: Mapping[str, str], as_json: bool) -> None:
    """Print a line about one image: to read, or a JSON document."""
    facts = {"mse": answer.mse, "percentile": answer.percentile, "outlier": answer.outlier}
    if as_json:
        return print_line({"image": shown(path), **extra, **facts})
    verdict = f", {highlight('an outlier')}" if answer.outlier else ""
    name = extra.get("out", shown(path))
    print(f"{name}: mse {answer.mse:.4f}, percentile {answer.percentile:.1f}{verdict}", flush=True)
    return None


def tell_fault(path: Path, fault: BadRequest | OSError, as_json: bool) -> None:
    """Say that one image failed, and why: on stderr, for scripts also in their line."""
    why = fault.strerror or str(fault) if isinstance(fault, OSError) else str(fault)
    print(f"{shown(path)}: {why}", file=sys.stderr)
    if as_json:
        print_line({"image": shown(path), "error": why})


def print_line(fields: Mapping[str, Any]) -> None:
    """One JSON document on one line, at once: whoever reads it needn't wait for the others."""
    print(json.dumps(fields), flush=True)


def shown(path: Path) -> str:
    r"""A path as text; bytes that aren't UTF-8 are written as ``\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def highlight(text: str) -> str:
    """The text in yellow, where somebody sees it who hasn't forbidden colours (no-color.org)."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return f"{YELLOW}{text}{PLAIN}" if wanted else text
