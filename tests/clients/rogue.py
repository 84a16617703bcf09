"""A server that misbehaves on purpose."""

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable

DRIP_S = 0.04  # The pause between two bytes.

Behaviour = Callable[[socket.socket], None]


class Rogue:
    """A server that answers requests as it was told, one behaviour each; the last one repeats."""

    def __init__(self) -> None:
        self.behaviours: list[Behaviour] = []
        self.requests = self.connections = 0
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, and close the port."""
        self._stopped.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(OSError):
                    self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        """Answer the requests of one connection until the client or the server closes it."""
        self.connections += 1
        connection.settimeout(5)
        while read_request(connection):
            self.requests += 1
            self.behaviours[min(self.requests, len(self.behaviours)) - 1](connection)


def read_request(connection: socket.socket) -> bool:
    """Read one request; returns whether there was one."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return False
        head += byte
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    size = int(length[1]) if length else 0
    while size > 0:
        size -= len(connection.recv(min(size, 65_536)))
    return True


def answer(
    body: bytes = b'{"embedding":[1,2]}',
    status: str = "200 OK",
    length: int | None = None,
    **headers: str,
) -> bytes:
    """An HTTP response; its Content-Length may be false."""
    fields = {"Content-Length": str(len(body) if length is None else length), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def say(*arguments: object, **keywords: object) -> Behaviour:
    """Makes a behaviour: send a response, and keep the connection open."""
    return lambda connection: connection.sendall(answer(*arguments, **keywords))


def reset(connection: socket.socket) -> None:
    """Close the connection with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def break_off(connection: socket.socket) -> None:
    """Close the connection within the body."""
    connection.sendall(answer(length=1_000))
    connection.close()


def reset_within(connection: socket.socket) -> None:
    """Reset the connection within the body."""
    connection.sendall(answer(length=1_000))
    time.sleep(0.05)  # Otherwise the reset would overtake the bytes that were sent.
    reset(connection)


def stall(connection: socket.socket) -> None:
    """Send nothing until the client gives up."""
    connection.recv(1)


def stall_within(connection: socket.socket) -> None:
    """Send less than the Content-Length, and wait until the client gives up."""
    connection.sendall(answer(length=1_000))
    connection.recv(1)


def drip(data: bytes) -> Behaviour:
    """Makes a behaviour: send bytes one at a time, with pauses."""

    def send(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(DRIP_S)

    return send


def drip_body(connection: socket.socket) -> None:
    """Send the headers at once, and the body one byte at a time."""
    connection.sendall(answer(b"", length=1_000))
    drip(b"x" * 1_000)(connection)
