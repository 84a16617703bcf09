"""OUT: where a job's rows end up, and what a job refuses to write over.

OUT is a folder of shards, or one file that is assembled from shards, which lie in a hidden folder
beside it. A .parquet file says of itself what its rows are, so that the hidden folder goes once the
file is there. Beside other files it stays: the next run takes their rows from it.
"""

import csv
import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pinhole.jobs.errors import JobError
from pinhole.jobs.folder import check_foreign, former_shards, has_job
from pinhole.jobs.formats import FORMATS
from pinhole.jobs.shards import COLUMNS, PREFIX, Identity, write_whole
from pinhole.jobs.sources.files import list_names
from pinhole.jobs.sources.opening import LISTS, file_source
from pinhole.jobs.sources.patterns import expand_braces
from pinhole.jobs.sources.places import Place
from pinhole.jobs.sources.suffixes import is_collection
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
    one_file = bool(path.suffix) and not path.is_dir() and not given.endswith(("/", os.sep))
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
    taken = {file_key(sink.path), file_key(sink.folder)} - {None}
    if not taken:
        return
    holders = set[str]()
    for name in named_by(source):
        holders.add(os.path.dirname(name))  # noqa: PTH120 - called for every input
        if file_key(name) in taken:
            raise JobError(f"{sink.path} is SOURCE, or one of its files: name another OUT")
    for holder in holders:
        path = Path(holder).resolve()
        if any(file_key(folder) in taken for folder in (path, *path.parents)):
            raise JobError(f"{sink.path} is a folder that holds SOURCE: name another OUT")
    folder, out = Path(source), sink.path.resolve()
    if folder.is_dir() and folder.resolve() in out.parents and holds_images(out):
        raise JobError(f"{sink.path} is one of SOURCE's files: name another OUT")


def holds_images(path: Path) -> bool:
    """Whether a file, met in a folder that is SOURCE, is read for the images in it."""
    if not path.is_file() or not is_collection(path.name):
        return False
    try:
        with closing(file_source(Place(os.fspath(path)), None, alone=False)) as source:
            return source.count > 0
    except JobError:
        return False


def named_by(source: str) -> Iterator[str]:
    """Yield SOURCE itself, and the files of this host that it names as a list or a pattern."""
    source = source.removeprefix("file://")
    names: Iterable[str] = ()
    if Path(source).is_file():
        if source.lower().endswith(LISTS):
            names = list_names(Place(source))
    else:
        patterns = expand_braces(source)
        names = chain.from_iterable(glob.iglob(each, recursive=True) for each in patterns)  # noqa: PTH207
    names = chain((source, os.path.realpath(source)), names)
    yield from (name for name in names if "://" not in name)


def is_result(sink: Sink) -> bool:
    """Whether the file at a one-file OUT was written by a job, and has no columns but a job's.

    An array can't say what it is, so a .npy file is a job's while the job's hidden folder is there.
    """
    path, suffix = sink.path, sink.path.suffix.lower()
    if not path.is_file():
        return False
    if path.stat().st_size == 0:  # As mktemp makes them.
        return True
    if suffix == ".npy":
        return has_job(sink.folder)
    names = parquet_columns(path) if suffix == ".parquet" else csv_columns(path)
    return {"path", "sha256", "embedding", "error"} <= names <= set(COLUMNS)


def parquet_columns(path: Path) -> set[str]:
    """The columns of a Parquet file that a job has assembled; none of another file, or a shard."""
    try:
        with path.open("rb") as file:
            schema = pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return set()
    keys = {key.decode(errors="replace") for key in schema.metadata or {}}
    ours = f"{PREFIX}model_digest" in keys and f"{PREFIX}shard" not in keys
    return set(schema.names) if ours else set()


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
    write_whole(sink.path, lambda file: write(file, sink.folder, identity), sink.folder)


def clear(sink: Sink) -> None:
    """Remove what a finished job has no more use for."""
    if sink.one_file and sink.path.suffix.lower() == ".parquet":
        shutil.rmtree(sink.folder)
        return
    for path in former_shards(sink.folder):
        path.unlink()
