"""``python -m serve.launcher.swap BUNDLE``: have a running service serve another bundle.

No request fails meanwhile. The endpoints change within milliseconds of each other, not at once: a
caller who needs one model for several requests compares the digests of their replies.
"""

import argparse
import sys
from pathlib import Path

import requests

from serve.errors import LaunchError
from serve.launcher.readiness import add_port, loopback_session
from serve.launcher.settings import Settings

SWAP_S = 600.0  # for the new workers to start and the old workers to finish

EXAMPLES = """
examples:
  python -m serve.launcher.swap build/mnist-2
  python -m serve.launcher.swap --rollback

The service keeps a copy of the bundle, so the folder may be changed or removed afterwards. When the
service is started again, it serves the bundle named on its command line, not this one.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    folder = None if options.rollback else str(options.bundle.resolve())
    try:
        told = ask_for_swap(Settings(port=options.port).private_port, folder)
    except LaunchError as error:
        print(f"swap: {error}", file=sys.stderr)
        return 1
    print(
        f"now serving {told['name']} version {told['version']} digest {told['digest'][:12]}, "
        f"formerly {told['former_digest'][:12]}"
    )
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.launcher.swap",
        description="Have a running service serve another bundle, without failing a request.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("bundle", type=Path, nargs="?", help="folder that python -m export wrote")
    which.add_argument("--rollback", action="store_true", help="go back to the previous bundle")
    add_port(parser)
    return parser.parse_args(arguments)


def ask_for_swap(port: int, folder: str | None) -> dict[str, str]:
    """Ask the launcher, on its private port, to serve another bundle.

    Args:
        port: the private port.
        folder: of the bundle, absolute; None goes back to the previous bundle.

    Returns:
        Name, version and digest of the bundle now served, and the digest of the previous bundle.

    Raises:
        LaunchError: no launcher answers, or the launcher refuses.
    """
    url = f"http://127.0.0.1:{port}/swap"
    try:
        reply = loopback_session().post(url, json={"bundle": folder}, timeout=SWAP_S)
        fields: dict[str, str] = reply.json()
        if reply.ok:
            return fields
        refusal = fields["message"]
    except requests.Timeout as error:
        raise LaunchError(f"no answer within {SWAP_S:.0f} s: see the service's log") from error
    except (requests.RequestException, ValueError, LookupError, TypeError) as error:
        raise LaunchError(f"no proper answer from {url}: is the service running?") from error
    raise LaunchError(refusal)


if __name__ == "__main__":
    sys.exit(main())
