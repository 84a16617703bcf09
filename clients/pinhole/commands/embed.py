"""``pinhole embed``: a source of images into a folder of Parquet shards, or one file."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pinhole.commands import (
    SOME_FAILED,
    Commands,
    UsageError,
    add_command,
    add_overwrite,
    add_service,
    connect,
    needing_modules,
    positive,
)

if TYPE_CHECKING:
    from pinhole.jobs.job import Done, Job, ShardMaker
    from pinhole.jobs.runners import Runner
    from pinhole.jobs.sources import Source
    from pinhole.jobs.sources.suffixes import LeftOut

ABOUT = "embed a folder, archive, array or list of images into Parquet, .npy or .csv"
REQUEST_TIMEOUT_S = 120  # A request carries hundreds of files.
PATIENCE_S = 300.0
INTERRUPTED = 130  # 128 + SIGINT
EPILOG = """
examples:
  pinhole embed scans/ --out scans.parquet
  pinhole embed scans/ --out embeddings/                     a folder of shards, for millions
  pinhole embed 'scans/2026-*/*.png' --out scans.csv --score
  pinhole embed train-images-idx3-ubyte.gz --out train.npy --local build/mnist
  pinhole embed s3://bucket/scans --out /mnt/out --ray auto --bundle /mnt/mnist

Run the same command again after a crash, and it goes on where it was.
Exit codes: 0 all embedded, 1 some failed (the column error says why), 2 wrong usage, or the job
can't go on, 3 the service can't be reached.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "embed", ABOUT, run, EPILOG)
    add_job(command)
    add_service(command, REQUEST_TIMEOUT_S)
    command.add_argument(
        "--patience-s",
        type=positive,
        default=PATIENCE_S,
        help="longest wait for a busy or unreachable service, in seconds (default: %(default)s)",
    )
    add_local(command)


def add_job(command: argparse.ArgumentParser) -> None:
    """Add what says which images are embedded, and into what."""
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder, searched at any depth; a pattern; a zip, tar, .npy, IDX or Parquet file; a "
        ".txt file that lists files; or a URL such as s3://bucket/folder",
    )
    command.add_argument(
        "--out", required=True, help="a folder for shards, or a .parquet, .npy or .csv file"
    )
    add_overwrite(command)
    command.add_argument("--score", action="store_true", help="add the column mse")
    command.add_argument(
        "--retry-failed", action="store_true", help="embed rows again that have an error"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    command.add_argument(
        "--column", help="which column holds the images, in a Parquet file that has several"
    )
    command.add_argument(
        "--readers", type=count, default=4, help="file-reading threads (default: %(default)s)"
    )
    command.add_argument(
        "--shard-rows",
        type=count,
        default=10_000,
        help="rows per shard; also the most that an interruption can lose (default: 10,000)",
    )


def add_local(command: argparse.ArgumentParser) -> None:
    """Add the options of the jobs that need no service."""
    command.add_argument(
        "--local",
        "--bundle",
        type=Path,
        dest="bundle",
        metavar="BUNDLE",
        help="embed with this bundle in this process, or with --ray on the cluster, without a "
        "service",
    )
    command.add_argument("--device", default="auto", help="with --local: cpu, openvino or cuda")
    command.add_argument("--precision", default="fp32", help="with --local: fp32, bf16 or fp16")
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="embed on a Ray cluster: auto (the cluster that this host belongs to), HOST:PORT, or "
        "local; every node must see SOURCE, OUT and BUNDLE under the same names",
    )
    command.add_argument(
        "--ray-workers",
        type=count,
        help="the most Ray actors (default: one for each CPU, or for each GPU)",
    )


def count(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {text}")
    return number


def run(options: argparse.Namespace) -> int:
    """Run the job; returns the exit code."""
    with needing_modules("embed"):
        from pinhole.jobs.errors import JobError

        try:
            return embed(options)
        except JobError as error:
            raise UsageError(str(error)) from error
        except KeyboardInterrupt:
            tell("stopped; run the same command again to go on")
            return INTERRUPTED


def embed(options: argparse.Namespace) -> int:
    """Run the job that the options ask for, or say what it would do; returns the exit code."""
    from pinhole.jobs.job import Job
    from pinhole.jobs.shards import identify
    from pinhole.jobs.sinks import check_sink, parse_sink
    from pinhole.jobs.sources.opening import open_source
    from pinhole.progress import job_progress

    sink = parse_sink(options.out)
    check_sink(sink, options.source, options.score, options.overwrite)
    if options.ray and "://" not in options.source:
        # Ray's actors have another working directory.
        options.source = str(Path(options.source).absolute())
    with (
        closing(open_source(options.source, options.column)) as source,
        open_maker(options, source) as maker,
    ):
        job = Job(
            sink,
            identify(options.source, source, maker.model, options.score, options.shard_rows),
            source.left_out,
            options.overwrite,
        )
        if options.dry_run:
            return report_plan(job, options.retry_failed)
        with job_progress(source.count) as on_rows:
            done = job.run(maker, on_rows, options.retry_failed)
    return report(sink.path, done, job.left_out)


@contextmanager
def open_maker(options: argparse.Namespace, source: "Source") -> "Iterator[ShardMaker]":
    """What makes the job's shards: a Ray cluster, or this process."""
    from pinhole.jobs.making import InProcess

    if not options.ray:
        with open_runner(options) as runner:
            yield InProcess(source, runner, options.readers)
        return
    if not options.bundle:
        raise UsageError("--ray needs --bundle: the model that its workers embed with")
    with needing_modules("--ray"):
        from pinhole.jobs import ray
    bundle = options.bundle.absolute()
    setup = ray.Setup(options.source, options.column, bundle, options.device, options.readers)
    model = ray.model_of(options.bundle, options.precision)
    with nullcontext() if options.dry_run else ray.connected(options.ray):
        yield ray.RayCluster(setup, model, options.ray_workers)


@contextmanager
def open_runner(options: argparse.Namespace) -> "Iterator[Runner]":
    """What embeds in this process: a bundle, or else the service."""
    if options.bundle:
        with needing_modules("--local"):
            from pinhole.jobs.local import LocalRunner

        yield LocalRunner(options.bundle, options.device, options.precision, options.score)
        return
    from pinhole.jobs.pictures import find_image_spec
    from pinhole.jobs.service import ServiceRunner

    image_of = partial(find_image_spec, options.url, options.api_key, options.timeout_s)
    with connect(options) as client:
        yield ServiceRunner(client, tell, options.patience_s, options.score, image_of)


def report(out: Path, done: "Done", left_out: "LeftOut") -> int:
    """Say what became of the job; returns the exit code."""
    from pinhole.jobs.sources import printable

    totals, name = done.totals, printable(os.fspath(out))
    print(
        f"{totals.embedded:,} images embedded into {name}, {totals.failed:,} failed, "
        f"in {done.seconds:.1f} s ({done.rows / done.seconds:,.0f} images/s)"
    )
    if left_out:
        tell(str(left_out))
    if not totals.failed:
        return 0
    reasons = ", ".join(f"{number:,} {name}" for name, number in totals.failures.most_common())
    tell(f"failed: {reasons}; the column error says why, --retry-failed tries them again")
    return SOME_FAILED


def report_plan(job: "Job", retry: bool) -> int:
    """Say what the job would do; returns the exit code."""
    from pinhole.jobs.sources import printable

    found, todo = job.plan(retry)
    identity, totals = job.identity, found.totals
    print(
        f"{identity.inputs:,} inputs in {identity.source}; {totals.rows:,} have a row in "
        f"{printable(os.fspath(job.sink.path))}, {totals.failed:,} of them failed; "
        f"{todo.rows:,} would be embedded by model {identity.model.digest[:12]} "
        f"in {identity.model.precision}"
    )
    if job.left_out:
        tell(str(job.left_out))
    return 0


def tell(line: str) -> None:
    """Show a line to the user, on stderr."""
    print(f"pinhole: {line}", file=sys.stderr)
