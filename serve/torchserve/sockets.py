"""HTTP over the Unix sockets on which the JVM serves its management API and its metrics.

On TCP ports, every user of this host could unregister the models. So could a web page in a browser
on this host, since the JVM takes requests with any Host and any Origin. The sockets lie in the
service's home, which only this user can enter.
"""

import os
import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from serve.errors import LaunchError

SOCKET_BYTES = 107  # of the longest path that a Unix socket may have (unix(7))


def management_socket(home: Path) -> Path:
    """Where the JVM serves its management API."""
    return home / "management.sock"


def metrics_socket(home: Path) -> Path:
    """Where the JVM serves its own metrics."""
    return home / "metrics.sock"


def check_home(home: Path) -> None:
    """Refuse a folder in which TorchServe can't have its sockets.

    Raises:
        LaunchError: Netty can't load the library there that sockets need, for the file system is
            mounted with noexec; or the name of a socket in it would be too long.
    """
    if os.statvfs(home).f_flag & os.ST_NOEXEC:
        raise LaunchError(
            f"TorchServe has to load a library from {home}, where nothing may be executed (it is "
            "mounted with noexec); set TMPDIR to another folder"
        )
    too_many = len(os.fsencode(home / "tmp" / ".ts.sock.65535")) - SOCKET_BYTES
    if too_many > 0:
        raise LaunchError(
            f"TorchServe's sockets can't lie in {home.parent}, whose name is {too_many} bytes too "
            "long; set TMPDIR to another folder"
        )


class SocketConnection(HTTPConnection):
    """A connection to what listens on a Unix socket.

    Args:
        path: of the socket.
        timeout_s: longest wait for each piece of a reply.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket; HTTPConnection calls this before its first request."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, timeout_s: float) -> tuple[int, bytes]:
    """Send a request without a body, on a connection of its own; returns status and body.

    Raises:
        LaunchError: nobody answers, or not in HTTP.
    """
    try:
        with closing(SocketConnection(path, timeout_s)) as connection:
            connection.request(method, target)
            reply = connection.getresponse()
            return reply.status, reply.read()
    except FileNotFoundError as error:  # no socket yet, as at every start
        raise LaunchError("TorchServe doesn't listen yet") from error
    except (OSError, HTTPException) as error:
        raise LaunchError(
            f"no proper answer from TorchServe to {method} {target} ({type(error).__name__})"
        ) from error
