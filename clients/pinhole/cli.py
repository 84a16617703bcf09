"""The ``pinhole`` command: embed folders, reconstruct images, decode embeddings, check health.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all done, 1 some images failed,
2 wrong usage, 3 the service can't be reached or refuses to work.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pinhole.client import Client
from pinhole.errors import BadRequest, PinholeError

SOME_FAILED, USAGE, UNAVAILABLE = 1, 2, 3

EXAMPLES = """
examples:
  pinhole health
  pinhole embed scans/ --out scans.parquet
  pinhole reconstruct seven.png
  pinhole decode 0.5 -1.2 --out drawn.png      (-1e-3 needs a -- before the numbers)
  PINHOLE_URL=https://images.example.com PINHOLE_API_KEY=... pinhole health
"""


class UsageError(Exception):
    """The command line asks for something impossible."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parser().parse_args(arguments)
    command: Callable[[Client, argparse.Namespace], int] = options.run
    if not options.api_key.isascii():
        print("pinhole: an API key has ASCII characters only", file=sys.stderr)
        return USAGE
    try:
        with Client(options.url, options.api_key, options.timeout_s) as client:
            return command(client, options)
    except UsageError as error:
        print(f"pinhole: {error}", file=sys.stderr)
        return USAGE
    except PinholeError as error:
        print(f"pinhole: {error}", file=sys.stderr)
        return UNAVAILABLE
    except OSError as error:
        print(f"pinhole: {error}", file=sys.stderr)
        return USAGE


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="pinhole",
        description="Images through two numbers, and back: client of a pinhole service.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    add = add_command(commands, "health", "prove that the service embeds; show its model", health)

    about = "embed a folder of images into a Parquet file"
    add = add_command(commands, "embed", about, embed, timeout_s=120)  # for hundreds of files
    add("source", type=Path, metavar="FOLDER", help="searched for image files, at any depth")
    add("--out", type=Path, required=True, metavar="FILE.parquet")

    add = add_command(
        commands,
        "reconstruct",
        "write NAME.reconstruction.png beside each image",
        reconstruct,
    )
    add("images", type=Path, nargs="+", metavar="IMAGE")

    add = add_command(commands, "decode", "draw the image of an embedding", decode)
    add("embedding", type=float, nargs="+", metavar="NUMBER")
    add("--out", type=Path, required=True, metavar="FILE.png")
    return top


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help: str,
    run: Callable[[Client, argparse.Namespace], int],
    timeout_s: float = 10,
) -> Callable[..., argparse.Action]:
    """Add a subcommand with the options all have; returns its add_argument."""
    command = commands.add_parser(name, help=help, description=help)
    command.set_defaults(run=run)
    command.add_argument(
        "--url",
        default=os.environ.get("PINHOLE_URL", "http://127.0.0.1:8080"),
        help="of the service (default: $PINHOLE_URL or http://127.0.0.1:8080)",
    )
    command.add_argument(
        "--api-key",
        default=os.environ.get("PINHOLE_API_KEY", ""),
        help="(default: $PINHOLE_API_KEY)",
    )
    command.add_argument(
        "--timeout-s",
        type=positive,
        default=timeout_s,
        help="longest wait for an answer (default: %(default)s)",
    )
    return command.add_argument


def positive(text: str) -> float:
    """A number greater than 0, for argparse."""
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0; got {text}")
    return number


def health(client: Client, options: argparse.Namespace) -> int:
    """``pinhole health``."""
    found = client.health()
    print(
        f"{options.url} embeds: model version {found.version}, digest {found.digest[:12]}, "
        f"{found.precision}, {found.embedding_width} numbers, {found.latency_ms:.0f} ms"
    )
    return 0


def embed(client: Client, options: argparse.Namespace) -> int:
    """``pinhole embed``."""
    try:
        from pinhole.jobs import embed_files, list_images
        from pinhole.progress import job_progress
    except ImportError as error:
        raise UsageError(f"embed needs {error.name}: pip install 'pinhole[jobs]'") from error
    if not options.source.is_dir():
        raise UsageError(f"{options.source} is not a folder")
    if options.out.is_dir():
        raise UsageError(f"--out {options.out} is a folder; name a file in it")
    paths = list_images(options.source)
    if not paths:
        raise UsageError(f"{options.source} holds no image files")
    started = time.monotonic()
    with job_progress(len(paths)) as on_rows:
        totals = embed_files(client, options.source, paths, options.out, on_rows)
    seconds = time.monotonic() - started
    print(
        f"{totals.embedded:,} images embedded into {options.out}, {totals.failed:,} failed, "
        f"in {seconds:.1f} s ({len(paths) / seconds:,.0f} images/s)"
    )
    return SOME_FAILED if totals.failed else 0


def reconstruct(client: Client, options: argparse.Namespace) -> int:
    """``pinhole reconstruct``."""
    failed = 0
    outputs = {path: path.with_name(f"{path.stem}.reconstruction.png") for path in options.images}
    if len(set(outputs.values())) < len(outputs):
        raise UsageError("two of the images would be written to the same NAME.reconstruction.png")
    for path, out in outputs.items():
        try:
            answer = client.reconstruct(path)
        except (BadRequest, OSError) as error:
            failed += 1
            print(f"{path}: {error}", file=sys.stderr)
            continue
        out.write_bytes(answer.png)
        verdict = ", an outlier" if answer.outlier else ""
        print(f"{out}: mse {answer.mse:.4f}, percentile {answer.percentile:.0f}{verdict}")
    return SOME_FAILED if failed else 0


def decode(client: Client, options: argparse.Namespace) -> int:
    """``pinhole decode``."""
    try:
        options.out.write_bytes(client.decode_png([options.embedding]))
    except BadRequest as error:
        raise UsageError(str(error)) from error
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
