"""``pinhole embed``: a source of images into a folder of Parquet shards, or one file."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pinhole.commands import (
    SOME_FAILED,
    Commands,
    UsageError,
    add_command,
    add_service,
    connect,
    positive,
)

if TYPE_CHECKING:
    from pinhole.jobs.job import Done, OnRows
    from pinhole.jobs.runners import Model, Runner
    from pinhole.jobs.shards import Identity
    from pinhole.jobs.sources import Source

ABOUT = "embed a folder, archive, array or list of images into Parquet, .npy or .csv"
PATIENCE_S = 300.0
EXAMPLES = """
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
    command = add_command(commands, "embed", ABOUT, run)
    command.epilog = EXAMPLES
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder, searched at any depth; a pattern; a zip, tar, .npy, IDX or Parquet file; a "
        ".txt file that lists files; or a URL such as s3://bucket/folder",
    )
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a folder for shards, or a .parquet, .npy or .csv file",
    )
    command.add_argument("--score", action="store_true", help="add the column mse")
    command.add_argument(
        "--retry-failed", action="store_true", help="embed rows again that have an error"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be done")
    command.add_argument("--column", help="of images, in a Parquet file that has several")
    command.add_argument("--readers", type=count, default=4, help="threads (default: %(default)s)")
    command.add_argument(
        "--shard-rows", type=count, default=10_000, help="of a shard (default: 10,000)"
    )
    add_service(command, timeout_s=120)  # for hundreds of files
    command.add_argument(
        "--patience-s",
        type=positive,
        default=PATIENCE_S,
        help="longest wait for a service that is busy or gone (default: %(default)s)",
    )
    add_local(command)


def add_local(command: argparse.ArgumentParser) -> None:
    """Add the options of the runners that need no service."""
    command.add_argument(
        "--local",
        "--bundle",
        type=Path,
        dest="bundle",
        metavar="BUNDLE",
        help="embed in this process (or on Ray's) with this bundle, without a service",
    )
    command.add_argument("--device", default="auto", help="with --local: cpu, openvino or cuda")
    command.add_argument("--precision", default="fp32", help="with --local: fp32, bf16 or fp16")
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="embed on a Ray cluster: auto (the one this host belongs to), HOST:PORT, or local; "
        "every node must see SOURCE, OUT and BUNDLE under the same names",
    )
    command.add_argument(
        "--ray-workers", type=count, help="the most actors (default: one for each CPU, or GPU)"
    )


def count(text: str) -> int:
    """A number of things, at least one, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {text}")
    return number


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    from pinhole.jobs.errors import JobError

    try:
        return run_job(options)
    except ImportError as error:
        raise UsageError(f"embed needs {error.name}: pip install 'pinhole[jobs]'") from error
    except JobError as error:
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        tell("stopped; run the same command again to go on")
        return 130


def run_job(options: argparse.Namespace) -> int:
    """List the source, find out what embeds it, and do what isn't done yet."""
    from pinhole.jobs.sinks import check_sink
    from pinhole.jobs.sources.opening import open_source

    check_sink(options.out, options.score)
    if options.ray and "://" not in options.source:  # workers have another working directory
        options.source = str(Path(options.source).absolute())
    with closing(open_source(options.source, options.column)) as source:
        if options.ray:
            return run_on_cluster(options, source)
        with open_runner(options) as runner:
            return run_here(options, source, runner)


@contextmanager
def open_runner(options: argparse.Namespace) -> "Iterator[Runner]":
    """The runner that the options ask for."""
    if options.bundle:
        from pinhole.jobs.local import LocalRunner

        yield LocalRunner(options.bundle, options.device, options.precision, options.score)
        return
    from pinhole.jobs.service import ServiceRunner

    with connect(options) as client:
        yield ServiceRunner(client, tell, options.patience_s, options.score)


def run_here(options: argparse.Namespace, source: "Source", runner: "Runner") -> int:
    """Embed by this process, or by a service it calls."""
    from pinhole.jobs.job import run_job
    from pinhole.jobs.sinks import job_folder

    identity, folder = identify(options, source, runner.model), job_folder(options.out)

    def work(on_rows: "OnRows") -> "Done":
        retry, readers = options.retry_failed, options.readers
        return run_job(source, identity, runner, folder, on_rows, retry, readers)

    return embed(options, identity, work)


def run_on_cluster(options: argparse.Namespace, source: "Source") -> int:
    """Embed by a cluster's actors."""
    if not options.bundle:
        raise UsageError("--ray needs --bundle: the model that its workers embed with")
    try:
        from pinhole.jobs import ray
    except ImportError as error:
        raise UsageError(f"--ray needs {error.name}: pip install 'pinhole[ray]'") from error
    from pinhole.jobs.local import model_of
    from pinhole.jobs.sinks import job_folder

    identity = identify(options, source, model_of(options.bundle, options.precision))
    order = ray.Order(
        identity=identity,
        source=options.source,
        folder=job_folder(options.out).absolute(),
        column=options.column,
        bundle=options.bundle.absolute(),
        device=options.device,
        readers=options.readers,
    )

    def work(on_rows: "OnRows") -> "Done":
        with ray.connected(options.ray):
            return ray.run_on_ray(order, options.ray_workers, options.retry_failed, on_rows)

    return embed(options, identity, work)


def identify(options: argparse.Namespace, source: "Source", model: "Model") -> "Identity":
    """The job that the options ask for."""
    from pinhole.jobs.shards import Identity
    from pinhole.jobs.sources import printable

    name = printable(options.source)
    return Identity(name, source.count, source.digest, model, options.score, options.shard_rows)


def embed(
    options: argparse.Namespace, identity: "Identity", work: "Callable[[OnRows], Done]"
) -> int:
    """Have the work done, or say what it would be, and return the exit code."""
    from pinhole.jobs.folder import locked
    from pinhole.jobs.sinks import assemble, clear, is_file, job_folder
    from pinhole.progress import job_progress

    if options.dry_run:
        return dry_run(options, identity)
    with locked(job_folder(options.out)):
        with job_progress(identity.inputs) as on_rows:
            done = work(on_rows)
        if is_file(options.out):
            assemble(options.out, identity)
            if not done.totals.failed:
                clear(options.out)
    return report(options, done)


def report(options: argparse.Namespace, done: "Done") -> int:
    """Tell what became of the job; returns the exit code."""
    from pinhole.jobs.sources import printable

    totals, out = done.totals, printable(os.fspath(options.out))
    print(
        f"{totals.embedded:,} images embedded into {out}, {totals.failed:,} failed, "
        f"in {done.seconds:.1f} s ({done.rows / done.seconds:,.0f} images/s)"
    )
    if not totals.failed:
        return 0
    reasons = ", ".join(f"{number:,} {name}" for name, number in totals.failures.most_common())
    tell(f"failed: {reasons}; the column error says why, --retry-failed tries them again")
    return SOME_FAILED


def dry_run(options: argparse.Namespace, identity: "Identity") -> int:
    """Say what would be done."""
    from pinhole.jobs.folder import check, progress
    from pinhole.jobs.job import plan
    from pinhole.jobs.sinks import job_folder
    from pinhole.jobs.sources import printable

    folder = job_folder(options.out)
    check(folder, identity)
    found = progress(folder, identity)
    todo = plan(found, identity, options.retry_failed)
    print(
        f"{identity.inputs:,} inputs in {identity.source}; {found.totals.rows:,} have a row in "
        f"{printable(os.fspath(options.out))}, {found.totals.failed:,} of them failed; "
        f"{todo.rows:,} would be embedded by model {identity.model.digest[:12]} "
        f"in {identity.model.precision}"
    )
    return 0


def tell(line: str) -> None:
    """Show a line beside the results."""
    print(f"pinhole: {line}", file=sys.stderr)
