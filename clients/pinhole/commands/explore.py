"""``pinhole explore``: the web explorer against a running service."""

import argparse
import sys
import webbrowser

from pinhole.commands import Commands, UsageError, add_command, add_service

PORT = 8090
LAST_PORT = 65_535

EPILOG = """
examples:
  pinhole explore
  pinhole explore --url https://images.example.com --no-open
  pinhole explore --port 0                                      on any free port

For a service on this host that has no gateway, the page also uses the launcher's private port,
which is the service's port plus 3.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "explore", "look at the model in a browser, live", run, EPILOG)
    add_service(command)
    command.add_argument(
        "--port", type=port, default=PORT, help="the page's port, 0 for any (default: %(default)s)"
    )
    command.add_argument("--no-open", action="store_true", help="don't open a browser")


def port(text: str) -> int:
    """Parse the number of a TCP port, or 0, for argparse."""
    number = int(text)
    if not 0 <= number <= LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be between 0 and {LAST_PORT}; got {text}")
    return number


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    from pinhole.explorer.server import ExplorerServer

    try:
        server = ExplorerServer(options.url, options.api_key, options.timeout_s, options.port)
    except OSError as error:
        raise UsageError(f"can't listen on port {options.port}: {error.strerror}") from error
    with server:
        print(server.url, flush=True)
        print(f"exploring {server.upstreams[0]}; Ctrl-C stops", file=sys.stderr)
        if not options.no_open:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return 0
