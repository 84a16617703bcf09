"""``pinhole explore``: the web explorer against a running service."""

import argparse
import sys
import webbrowser

from pinhole.commands import Commands, UsageError, add_command, add_service

PORT = 8090

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
        "--port", type=int, default=PORT, help="the page's port, 0 for any (default: %(default)s)"
    )
    command.add_argument("--no-open", action="store_true", help="don't open a browser")


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    from pinhole.explorer.assets import MissingD3
    from pinhole.explorer.server import ExplorerServer

    try:
        server = ExplorerServer(options.url, options.api_key, options.timeout_s, options.port)
    except MissingD3 as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"can't listen on port {options.port}: {error.strerror}") from error
    with server:
        print(server.url, flush=True)
        print(f"exploring {options.url}; Ctrl-C stops", file=sys.stderr)
        if not options.no_open:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return 0
