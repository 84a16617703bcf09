"""One deadline for the whole of an answer.

The time-out of ``requests`` starts anew with every byte that comes, so a server that sends its
answer byte by byte can hold its caller for ever. Here the status line, the headers and the body
together have to come within the time-out.
"""

import http.client
import io
import socket
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class TimedBytes(io.RawIOBase):
    """The bytes that come from a socket within its time-out, which starts with this object."""

    def __init__(self, connection: socket.socket, source: io.RawIOBase) -> None:
        self._connection, self._source = connection, source
        self._timeout_s = connection.gettimeout()
        self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        """Return True: this is the reading side."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read as RawIOBase does.

        Raises:
            TimeoutError: the deadline has passed.
        """
        if self._deadline is None:
            return self._source.readinto(buffer)
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_s)
        try:
            return self._source.readinto(buffer)
        finally:
            # The next request on this connection has its whole time-out again.
            self._connection.settimeout(self._timeout_s)

    def close(self) -> None:
        """Release the socket, which http.client closes once nobody reads from it."""
        self._source.close()
        super().close()


class TimedResponse(http.client.HTTPResponse):
    """A response that comes within its connection's time-out, or not at all."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(TimedBytes(sock, self.fp.detach()))


class TimedConnection(HTTPConnection):
    """A connection whose answers have a deadline."""

    response_class = TimedResponse


class TimedTlsConnection(HTTPSConnection):
    """A TLS connection whose answers have a deadline."""

    response_class = TimedResponse


class TimedPool(HTTPConnectionPool):
    """Connections to one host, kept open."""

    ConnectionCls = TimedConnection


class TimedTlsPool(HTTPSConnectionPool):
    """TLS connections to one host, kept open."""

    ConnectionCls = TimedTlsConnection


class TimedAdapter(HTTPAdapter):
    """The transport adapter that a requests.Session mounts."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        use_timed_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        """Make the pools for connections through a proxy."""
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        use_timed_pools(manager)
        return manager

    def close(self) -> None:
        """Close the kept connections now, not only when their pool is garbage-collected."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - the container itself can't be iterated
                manager.pools[key].close()
        super().close()


def use_timed_pools(manager: PoolManager) -> None:
    """Make a manager open connections whose answers have a deadline."""
    manager.pool_classes_by_scheme = {"http": TimedPool, "https": TimedTlsPool}
