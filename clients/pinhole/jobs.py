"""Batch embedding: a folder of image files into one Parquet file.

Files are read, sent and written in chunks, a few requests in flight, so memory stays flat. The
result appears under its name only when it is whole.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pinhole.client import Client
from pinhole.errors import BadRequest

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
CHUNK_FILES = 256
CHUNK_BYTES = 8 << 20  # of files in one request; base64 makes 10.7 MiB of them, the limit is 16
LARGEST_FILE = 11 << 20
IN_FLIGHT = 4  # requests


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    path: str
    sha256: str | None  # None where the file could not be read
    embedding: NDArray[np.float32] | None
    error: str | None


@dataclass(frozen=True)
class Totals:
    """What a job did."""

    embedded: int
    failed: int


def list_images(folder: Path) -> list[Path]:
    """The image files below a folder, by suffix, sorted; hidden ones are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def embed_files(
    client: Client, folder: Path, paths: list[Path], out: Path, on_rows: Callable[[int], None]
) -> Totals:
    """Embed ``paths`` into the Parquet file ``out``, one row each, in order.

    Columns: ``path`` (relative to ``folder``), ``sha256`` of the file, ``embedding``
    fixed_size_list<float>[D], and ``error``, null where all went well.

    Args:
        client: of the service to use.
        folder: what the paths are written relative to.
        paths: files to embed.
        out: replaced when the job is done, untouched until then.
        on_rows: called with the number of rows of every finished chunk.

    Raises:
        PinholeError: the service refused whole requests or went away; ``out`` is untouched.
        OSError: ``out`` can't be written.
    """
    width = client.health().embedding_width
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as file:
            totals = write_rows(file, width, embed_chunks(client, folder, paths), on_rows)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return totals


def embed_chunks(client: Client, folder: Path, paths: list[Path]) -> Iterator[list[Row]]:
    """Embed chunk after chunk, IN_FLIGHT at a time; results come in the order of ``paths``."""
    chunks = split_chunks(paths)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:

        def submit(chunk: list[Path]) -> Future[list[Row]]:
            return pool.submit(embed_chunk, client, folder, chunk)

        running = deque(submit(chunk) for chunk in islice(chunks, IN_FLIGHT))
        try:
            while running:
                rows = running.popleft().result()
                running.extend(submit(chunk) for chunk in islice(chunks, 1))
                yield rows
        finally:
            for future in running:
                future.cancel()


def split_chunks(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Cut into runs of at most CHUNK_FILES files and CHUNK_BYTES bytes (or one larger file)."""
    chunk: list[Path] = []
    size = 0
    for path in paths:
        grown = size + size_of(path)
        if chunk and (len(chunk) == CHUNK_FILES or grown > CHUNK_BYTES):
            yield chunk
            chunk, grown = [], size_of(path)
        chunk.append(path)
        size = grown
    if chunk:
        yield chunk


def size_of(path: Path) -> int:
    """Bytes in a file; 0 for one that can't be read, which becomes an error row later."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def embed_chunk(client: Client, folder: Path, paths: list[Path]) -> list[Row]:
    """Read and embed one chunk in one request; a broken file becomes a row with ``error``."""
    files = [read_or_error(path) for path in paths]
    answers = iter(embed_in_company(client, [file for file in files if isinstance(file, bytes)]))
    return [
        to_row(name_of(path, folder), file, next(answers))
        if isinstance(file, bytes)
        else Row(name_of(path, folder), None, None, file)
        for path, file in zip(paths, files, strict=True)
    ]


def name_of(path: Path, folder: Path) -> str:
    r"""The path within the folder; bytes that aren't UTF-8 are written as ``\xe9``."""
    return os.fsencode(path.relative_to(folder)).decode(errors="backslashreplace")


def embed_in_company(client: Client, files: list[bytes]) -> list[NDArray[np.float32] | BadRequest]:
    """Embed files in one request; those for which it had no pixels left go again, one by one."""
    return [
        client.try_embed([file])[0]
        if isinstance(answer, BadRequest) and answer.type == "PayloadTooLarge" and len(files) > 1
        else answer
        for file, answer in zip(files, client.try_embed(files), strict=True)
    ]


def read_or_error(path: Path) -> bytes | str:
    """The file's content, or why there is none."""
    if size_of(path) > LARGEST_FILE:
        return f"{size_of(path):,} bytes; the limit is {LARGEST_FILE:,}"
    try:
        return path.read_bytes()
    except OSError as error:
        return f"can't be read: {error.strerror}"


def to_row(path: str, file: bytes, answer: NDArray[np.float32] | BadRequest) -> Row:
    """One answer as a line of the result."""
    digest = hashlib.sha256(file).hexdigest()
    if isinstance(answer, BadRequest):
        return Row(path, digest, None, str(answer))
    return Row(path, digest, answer, None)


def write_rows(
    file: object, width: int, chunks: Iterable[list[Row]], on_rows: Callable[[int], None]
) -> Totals:
    """Write every chunk as it comes."""
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("sha256", pa.string()),
            ("embedding", pa.list_(pa.float32(), width)),
            ("error", pa.string()),
        ]
    )
    embedded = failed = 0
    with pq.ParquetWriter(file, schema) as writer:
        for rows in chunks:
            columns = {
                "path": [row.path for row in rows],
                "sha256": [row.sha256 for row in rows],
                "embedding": [row.embedding for row in rows],
                "error": [row.error for row in rows],
            }
            writer.write_table(pa.table(columns, schema))
            good = sum(row.error is None for row in rows)
            embedded, failed = embedded + good, failed + len(rows) - good
            on_rows(len(rows))
    return Totals(embedded, failed)
