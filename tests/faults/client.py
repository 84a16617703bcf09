"""A small HTTP/1.1 client that keeps thousands of requests open in one thread, and can hang up."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

HEAD_BYTES = 1 << 20  # of a reply: the scores of 4,096 images are headers


@dataclass(frozen=True)
class Question:
    """A request."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]

    def as_bytes(self) -> bytes:
        """The request as it is sent."""
        fields = {"Host": "127.0.0.1", "Content-Length": str(len(self.body)), **self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1") + self.body


@dataclass(frozen=True)
class Answer:
    """A reply; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Callers:
    """Callers of one service who share their kept connections.

    Args:
        port: of the service, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def ask(self, question: Question) -> Answer:
        """Send a request and read its reply.

        Raises:
            OSError: no connection, or it broke.
            EOFError: the connection ended within the reply.
            ValueError: the reply isn't HTTP.
        """
        while self._idle:  # a kept connection that the service has closed meanwhile is no fault
            connection = self._idle.pop()
            try:
                return await self._exchange(connection, question)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if getattr(error, "partial", b""):
                    raise
        return await self._exchange(await self._connect(), question)

    async def hang_up(self, question: Question, sent: float, wait_s: float) -> None:
        """Send a share of a request, and break the connection after a while."""
        _, writer = await self._connect()
        data = question.as_bytes()
        writer.write(data[: int(len(data) * sent)])
        await asyncio.sleep(wait_s)
        writer.transport.abort()

    def close(self) -> None:
        """Close what is kept."""
        for _, writer in self._idle:
            writer.close()

    async def _connect(self) -> Connection:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=HEAD_BYTES)

    async def _exchange(self, connection: Connection, question: Question) -> Answer:
        reader, writer = connection
        is_kept = False
        try:
            writer.write(question.as_bytes())
            answer = await read_answer(reader, question.method)
            is_kept = answer.headers.get("connection", "").lower() != "close"
            return answer
        finally:
            if is_kept:
                self._idle.append(connection)
            else:
                writer.close()


async def read_answer(reader: asyncio.StreamReader, method: str) -> Answer:
    """Read one reply."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    status = int(first.split()[1])
    if method == "HEAD" or status in (204, 304):
        return Answer(status, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        return Answer(status, headers, await read_chunks(reader))
    if "content-length" not in headers:
        return Answer(status, {**headers, "connection": "close"}, await reader.read())
    return Answer(status, headers, await reader.readexactly(int(headers["content-length"])))


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    """The body of a chunked reply."""
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(pieces)
