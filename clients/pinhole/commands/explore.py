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

Of a service on this host without a gateway, the launcher's private port (+3) is asked too.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    command = add_command(commands, "explore", "look at the model in a browser, live", run, EPILOG)
    add_service(command)
    command.add_argument(
        "--port", type=int, default=PORT, help="of the page (default: %(default)s; 0: a free one)"
    )
    command.add_argument("--no-open", action="store_true", help="don't open a browser")


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from pinhole.proxy import NoLibrary, Proxy

    try:
        server = Proxy(options.url, options.api_key, options.timeout_s, options.port)
    except NoLibrary as error:
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
