"""``pinhole embed``: a source of images into a folder of Parquet shards, or one file."""

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pinhole.address import without_credentials
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
from pinhole.commands.interrupts import leave_threads, tell, telling_interrupts

if TYPE_CHECKING:
    from pinhole.jobs.job import Done, Job, ShardMaker
    from pinhole.jobs.runners import Runner
    from pinhole.jobs.shards import Totals
    from pinhole.jobs.sources import Source
    from pinhole.jobs.sources.suffixes import LeftOut

ABOUT = "embed a folder, archive, array or list of images into Parquet, .npy or .csv"
REQUEST_TIMEOUT_S = 120  # A request carries hundreds of files.
PATIENCE_S = 300.0
OUTLIER_PERCENTILE = 99.0  # As serve.bundle.score has it.
MOST_SOURCES = 100  # The result keeps their names, to read its images again.
EPILOG = """
examples:
  pinhole embed scans/ --out scans.parquet
  pinhole embed scans/ --out embeddings/                     a folder of shards, for millions
  pinhole embed scans/a.png scans/b.png --out scans.parquet
  pinhole embed 'scans/2026-*/*.png' --out scans.csv --score
  pinhole embed 'train-{000..099}.tar' --out train.parquet --local build/mnist
  pinhole embed train-images-idx3-ubyte.gz --out train.npy --local build/mnist
  pinhole embed all/ --out all.parquet --local build/mnist --reuse some.parquet
  pinhole embed s3://bucket/scans --out /mnt/out --ray auto --bundle /mnt/mnist

Run the same command again after a crash, and it goes on where it was; after images were added,
replaced or deleted, and it embeds what is new.
Exit codes: 0 all embedded, 1 some failed (the column error says why), 2 wrong usage, or the job
can't go on, 3 the service can't be reached.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "embed", ABOUT, run, EPILOG)
    add_job(command)
    either = add_service(command, REQUEST_TIMEOUT_S)
    command.add_argument(
        "--patience-s",
        type=positive,
        default=PATIENCE_S,
        help="longest wait for a busy or unreachable service that has answered before, in seconds "
        "(default: %(default)s)",
    )
    add_local(command, either)


def add_job(command: argparse.ArgumentParser) -> None:
    """Add what says which images are embedded, and into what."""
    command.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="a folder, searched at any depth; a pattern; a zip, tar, .npy, .npz, IDX or Parquet "
        "file, or many of them; a .txt, .list or .lst file that lists files; or a URL such as "
        f"s3://bucket/folder. Up to {MOST_SOURCES} files or folders of this host may be named",
    )
    command.add_argument(
        "--out", required=True, help="a folder for shards, or a .parquet, .npy or .csv file"
    )
    add_overwrite(command)
    command.add_argument(
        "--reuse",
        metavar="OLD",
        help="take over the rows of another result by the same model: a folder or a .parquet file",
    )
    command.add_argument(
        "--score", action="store_true", help="add the columns mse, percentile and outlier"
    )
    command.add_argument(
        "--outlier-percentile",
        type=percent,
        metavar="P",
        help="with --score: images above this percentile of the model's own are outliers, and "
        f"those that lie outside their range (default: {OUTLIER_PERCENTILE:g})",
    )
    command.add_argument(
        "--retry-failed", action="store_true", help="embed rows again that have an error"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    command.add_argument(
        "--column", help="which column of a Parquet file, or array of a .npz file, holds the images"
    )
    command.add_argument(
        "--readers", type=count, default=4, help="file-reading threads (default: %(default)s)"
    )
    command.add_argument(
        "--shard-rows",
        type=count,
        default=10_000,
        help="rows per shard; also the most that a crash can lose (default: %(default)s)",
    )


def add_local(command: argparse.ArgumentParser, either: argparse._MutuallyExclusiveGroup) -> None:
    """Add the options of the jobs that need no service; ``either`` is the group of --url."""
    either.add_argument(
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


def percent(text: str) -> float:
    """Parse a number above 0, up to 100, for argparse."""
    number = float(text)
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 100; got {text}")
    return number


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
            raise UsageError(str(error).replace("\n", "\\n")) from error
        except KeyboardInterrupt as interrupt:
            tell("stopped; run the same command again to go on")
            code = 128 + int((interrupt.args or (signal.SIGINT,))[0])
            leave_threads(code)
            return code


def embed(options: argparse.Namespace) -> int:
    """Run the job that the options ask for, or say what it would do; returns the exit code."""
    from pinhole.jobs.earlier import reused
    from pinhole.jobs.job import Job
    from pinhole.jobs.making import known_rows
    from pinhole.jobs.shards import Identity, import_pandas, use_little_memory
    from pinhole.jobs.sinks import check_sink, parse_sink
    from pinhole.jobs.sources import printable
    from pinhole.jobs.sources.opening import open_source
    from pinhole.progress import job_progress

    use_little_memory()
    if options.outlier_percentile and not options.score:
        raise UsageError("--outlier-percentile needs --score")
    device_is_given = (options.device, options.precision) != ("auto", "fp32")
    if device_is_given and not (options.bundle or options.ray):
        raise UsageError("--device and --precision need --local: a service has its own")
    waits = (options.timeout_s, options.patience_s) != (REQUEST_TIMEOUT_S, PATIENCE_S)
    if waits and options.bundle:
        raise UsageError("--timeout-s and --patience-s need a service: with --local there is none")
    if options.ray_workers and not options.ray:
        raise UsageError("--ray-workers needs --ray: the cluster that they run on")
    options.score = options.score and (options.outlier_percentile or OUTLIER_PERCENTILE)
    if options.ray:  # Its actors have another working directory.
        options.source = [
            name if "://" in name else str(Path(name).absolute()) for name in options.source
        ]
    options.source = joined(options.source)
    sink = parse_sink(options.out)
    check_sink(sink, options.source, bool(options.score), options.overwrite)
    with (
        closing(open_source(options.source, options.column)) as source,
        open_maker(options, source) as maker,
    ):
        # Results are kept and shared: they name a URL without its password.
        name, score = printable(without_credentials(options.source)), float(options.score)
        identity = Identity(
            name,
            source.count,
            source.digest,
            maker.model,
            score,
            options.shard_rows,
            column=options.column and printable(options.column),
        )
        reuse = reused(options.reuse, identity) if options.reuse else []
        job = Job(sink, identity, source.left_out, options.overwrite, options.retry_failed, reuse)
        if options.dry_run:
            return report_plan(job, known_rows(job, source))
        import_pandas()
        with telling_interrupts() as check, job_progress(source.count) as advance:

            def on_rows(count: int) -> None:
                check()
                advance(count)

            done = job.run(maker, on_rows)
    return report(sink.path, done, job.left_out)


def joined(sources: list[str]) -> str:
    """Several sources as one pattern, which the result keeps: ``{a.png,b.png}``.

    Raises:
        UsageError: they are too many for that, or can't be parts of a pattern.
    """
    if len(sources) == 1:
        return sources[0]
    if len(sources) > MOST_SOURCES:
        raise UsageError(
            f"SOURCE is {len(sources):,} names; the limit is {MOST_SOURCES}: quote a pattern, so "
            "that pinhole expands it and not the shell, or list the files in a .txt file"
        )
    for name in sources:
        if "://" in name or any(letter in name for letter in "{},"):
            raise UsageError(
                f"SOURCE {name}: a URL, a comma or a brace can't stand among several names; list "
                "them in a .txt file"
            )
    return f"{{{','.join(sources)}}}"


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
    made, known = done.made, totals.embedded - done.made.embedded
    now = f" ({made.embedded:,} now, {known:,} were known)" if known else ""
    rate = f" ({made.read / done.seconds:,.0f} images/s)" if made.read else ""
    print(
        f"{totals.embedded:,} images embedded into {name}{now}, {totals.failed:,} failed, "
        f"in {done.seconds:.1f} s{rate}"
    )
    if left_out:
        tell(str(left_out))
    if not totals.failed:
        return 0
    reasons = ", ".join(f"{number:,} {name}" for name, number in totals.failures.most_common())
    tell(f"failed: {reasons}; the column error says why, --retry-failed tries them again")
    return SOME_FAILED


def report_plan(job: "Job", known: "Totals") -> int:
    """Say what the job would do; returns the exit code."""
    from pinhole.jobs.sources import printable

    identity = job.identity
    left = identity.inputs - known.rows + (known.failed if job.retry else 0)
    print(
        f"{identity.inputs:,} inputs in {identity.source}; {known.rows:,} have a row in "
        f"{printable(os.fspath(job.sink.path))}, {known.failed:,} of them failed; "
        f"{left:,} would be embedded by model {identity.model.digest[:12]} "
        f"in {identity.model.precision}"
    )
    if job.left_out:
        tell(str(job.left_out))
    return 0
