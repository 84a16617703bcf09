"""One deadline for the whole of an answer.

The time-out of requests starts anew with every byte that comes, so a server that drips an answer
holds its caller for ever. Here the status line, the headers and the body have to come within the
one time-out together.
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
    """The bytes that come from a socket within its time-out, counted from now."""

    def __init__(self, connection: socket.socket, source: io.RawIOBase) -> None:
        self._connection, self._source = connection, source
        self._timeout_s = connection.gettimeout()
        self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        """They can be read."""
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
            self._connection.settimeout(self._timeout_s)  # the next request's, if it is kept

    def close(self) -> None:
        """Let go of the socket, which http.client closes once nobody reads it."""
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
    """The same over TLS."""

    response_class = TimedResponse


class TimedPool(HTTPConnectionPool):
    """Kept connections to one host."""

    ConnectionCls = TimedConnection


class TimedTlsPool(HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = TimedTlsConnection


class TimedAdapter(HTTPAdapter):
    """What a session of requests mounts."""

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
        """Close the kept connections now; urllib3 would when their pool is garbage-collected."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it can't be iterated over itself
                manager.pools[key].close()
        super().close()


def use_timed_pools(manager: PoolManager) -> None:
    """Have a manager open connections whose answers have a deadline."""
    manager.pool_classes_by_scheme = {"http": TimedPool, "https": TimedTlsPool}
