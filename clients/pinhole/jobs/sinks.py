"""OUT: where a job's rows end up, and what a job refuses to write over.

OUT is a folder of shards, or one file that is assembled from shards, which lie in a hidden folder
beside it. A .parquet file says of itself what its rows are, so that the hidden folder goes once the
file is there. Beside other files it stays: the next run takes their rows from it.
"""

import csv
import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from pinhole.jobs.errors import JobError
from pinhole.jobs.folder import (
    JOB,
    check_foreign,
    former_shards,
    has_job,
    own_files,
    read_job,
    write_job,
)
from pinhole.jobs.formats import FORMATS
from pinhole.jobs.shards import COLUMNS, Identity, schema_of, told, write_durably
from pinhole.jobs.sources import stamp_of
from pinhole.jobs.sources.files import list_names
from pinhole.jobs.sources.opening import LISTS, file_source, matching
from pinhole.jobs.sources.patterns import expand_braces, split_pattern
from pinhole.jobs.sources.places import Place, find_place
from pinhole.jobs.sources.suffixes import is_collection
from pinhole.jobs.sources.walking import Choice
from pinhole.outputs import file_key, local_path

KNOWN = f"a folder, which ends in / if its name has a dot, or a file in {', '.join(FORMATS)}"


@dataclass(frozen=True)
class Sink:
    """OUT.

    Attributes:
        path: of the file or folder.
        one_file: whether it is one file.
    """

    path: Path
    one_file: bool

    @property
    def tells_rows(self) -> bool:
        """Whether it is a file that says of itself what its rows are."""
        return self.one_file and self.path.suffix.lower() == ".parquet"

    @property
    def folder(self) -> Path:
        """Where the shards lie: OUT itself, or the hidden folder beside a one-file OUT."""
        return self.path.with_name(f".{self.path.name}.job") if self.one_file else self.path


def parse_sink(given: str) -> Sink:
    """The sink that OUT on the command line names.

    Raises:
        JobError: it is of no known format.
        OSError: it is a URL.
    """
    path = local_path(given)
    one_file = "." in path.name and not path.is_dir() and not given.endswith(("/", os.sep))
    if given in ("", "-") or (one_file and path.suffix.lower() not in FORMATS):
        raise JobError(f"OUT can't be {given or 'empty'}: name {KNOWN}")
    if not one_file and path.exists() and not path.is_dir():
        raise JobError(f"{path} is a file: name {KNOWN}")
    return Sink(path, one_file)


def check_sink(sink: Sink, source: str, score: bool, overwrite: bool) -> None:
    """Refuse an OUT that can't hold what is asked for, or that holds what the job would destroy.

    Args:
        sink: OUT.
        source: as the user named it.
        score: whether rows have scores.
        overwrite: replace what no job has written; an input is never replaced.

    Raises:
        JobError: the reason.
    """
    if score and sink.path.suffix.lower() == ".npy" and sink.one_file:
        raise JobError("--score adds columns, and .npy has none: write .parquet, .csv or a folder")
    check_apart(sink, source)
    if overwrite:
        return
    if not sink.one_file:
        check_foreign(sink.folder)
    elif sink.path.exists() and not is_result(sink):
        raise JobError(f"{sink.path} isn't an earlier result of a job; --overwrite replaces it")


def check_apart(sink: Sink, source: str) -> None:
    """Raise JobError if OUT, under whatever name, is an input or is a folder that holds inputs."""
    is_input = JobError(f"{sink.path} is SOURCE, or one of its files: name another OUT")
    taken = {file_key(sink.path), file_key(sink.folder)} - {None}
    place = find_place(source)
    if place.fs is not None:
        return
    if not place.kind() and any(reaches(each, sink) for each in expand_braces(place.path)):
        raise is_input
    holders = set[str]()
    for name in named_by(place) if taken else ():
        holders.add(os.path.dirname(name))  # noqa: PTH120 - called for every input
        if file_key(name) in taken:
            raise is_input
    for holder in holders:
        path = Path(holder).resolve()
        if any(file_key(folder) in taken for folder in (path, *path.parents)):
            raise JobError(f"{sink.path} is a folder that holds SOURCE: name another OUT")
    if place.kind() == "folder" and holds_images(sink.path, Path(place.path)):
        raise is_input


def reaches(pattern: str, sink: Sink) -> bool:
    """Whether a pattern matches what the job writes, so that the next run would read it."""
    root, names = split_pattern(pattern, os.path.lexists)
    written = os.path.realpath(sink.path if sink.one_file else sink.path / JOB)
    start = os.path.join(os.path.realpath(root), "")  # noqa: PTH118 - ends in a slash
    return bool(names and written.startswith(start) and names.fits(written.removeprefix(start)))


def holds_images(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, and is read there for the images in it."""
    if not (path.is_file() and is_collection(path.name)):
        return False
    if folder.resolve() not in path.resolve().parents:
        return False
    try:
        with closing(file_source(Place(os.fspath(path)), None, alone=False)) as source:
            return source.count > 0
    except JobError:
        return False


def named_by(place: Place) -> Iterator[str]:
    """Yield the name of SOURCE itself, and the files that it names as a list or a pattern."""
    yield from (place.path, os.path.realpath(place.path))
    kind, choice = place.kind(), Choice()
    if kind == "file" and place.path.lower().endswith(LISTS):
        yield from (name for name in list_names(place) if "://" not in name)
    for pattern in [] if kind else expand_braces(place.path):
        yield from (name for name, _, _ in matching(Place(pattern), choice))
    yield from choice.collections


def is_result(sink: Sink) -> bool:
    """Whether the file at a one-file OUT was written by a job, and has no columns but a job's.

    The hidden folder beside a .csv or .npy file knows whether the file has been written over since.
    Without that folder, a .csv file is known by its columns, and an array can't say what it is.
    """
    path, suffix = sink.path, sink.path.suffix.lower()
    if not path.is_file():
        return False
    if path.stat().st_size == 0:  # As mktemp makes them.
        return True
    if suffix != ".parquet" and has_job(sink.folder):
        written = read_job(sink.folder).get("out")  # None until the job ends.
        if written:
            return bool(written == stamp(path))
    if suffix == ".npy":
        return has_job(sink.folder)
    names = parquet_columns(path) if suffix == ".parquet" else csv_columns(path)
    return {"path", "sha256", "embedding", "error"} <= names <= set(COLUMNS)


def parquet_columns(path: Path) -> set[str]:
    """The columns of a Parquet file that a job has assembled; none of another file, or a shard."""
    schema = schema_of(path)
    found = told(schema)
    return set(schema.names) if "model_digest" in found and "shard" not in found else set()


def csv_columns(path: Path) -> set[str]:
    """The columns that a CSV file's first line names, with embedding_0, ... as ``embedding``."""
    with path.open("rb") as file:
        line = file.readline(1 << 16).decode("utf-8", "replace").strip()
    return {re.sub(r"^embedding_\d+$", "embedding", name) for name in next(csv.reader([line]), [])}


def assemble(sink: Sink, identity: Identity) -> None:
    """Make a one-file OUT from its shards; it appears under its name only when it is complete.

    Until then it lies among the shards, where the next run clears it away if this run is killed.

    Raises:
        JobError: it can't be written.
    """
    write = FORMATS[sink.path.suffix.lower()]
    write_durably(sink.path, lambda file: write(file, sink.folder, identity), sink.folder)
    if not sink.tells_rows:
        write_job(sink.folder, {**read_job(sink.folder), "out": stamp(sink.path)})


def stamp(path: Path) -> str:
    """A text that changes when a file is written to."""
    status = path.stat()
    return stamp_of(status.st_size, status.st_mtime_ns)


def clear(sink: Sink) -> None:
    """Remove what a finished job has no more use for; whatever else lies there stays."""
    for path in own_files(sink.folder) if sink.tells_rows else former_shards(sink.folder):
        path.unlink()
    if sink.tells_rows:
        with suppress(OSError):  # Of a folder that holds a file of somebody else.
            sink.folder.rmdir()
