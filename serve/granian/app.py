"""HTTP, as Granian hands it over (RSGI): a request becomes a message, a reply becomes a response.

What nginx and TorchServe answer by themselves elsewhere (a wrong path or method, a body over the
limit) is answered here, in the contract's form.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from serve.bundle.errors import PayloadTooLarge, RequestError
from serve.bundle.limits import MAX_BODY_BYTES
from serve.endpoints import ENDPOINTS
from serve.errors import InvalidRequest
from serve.granian.cors import cors_headers
from serve.granian.dispatcher import Dispatcher, Task, Tell
from serve.granian.files import file_reply, hint
from serve.launcher.private import Pages
from serve.launcher.readiness import MISDIRECTED
from serve.service import Report, Service
from serve.wire.media import OPENAI
from serve.wire.message import CANARY_HEADER, Dialect, Message, request_id_of
from serve.wire.replies import NO_HEADERS, Reply, error_reply, refusal
from serve.wire.weight import LIGHT_PIXELS, weigh

# A request of at most so many pixels that comes alone is answered in the event loop's own thread:
# to wake another thread, and to be woken by it, takes longer than the event loop will be missed.
ALONE_PIXELS = 4_096
CALLER_GONE = 499  # nginx's status of such a request, which is no fault of the service
BODY_S = 15.0  # for a caller to send the body it has announced
POSTS: dict[str, tuple[str, Dialect]] = {  # path → endpoint, and the form of the reply
    **{f"/predictions/{endpoint}": (endpoint, "own") for endpoint in ENDPOINTS},
    **{f"/v2/models/{endpoint}/infer": (endpoint, "oip") for endpoint in ENDPOINTS},
    "/v1/embeddings": ("embed", "openai"),
}


class App:
    """The contract's paths.

    Attributes:
        open: requests that have come in and aren't answered yet.

    Args:
        dispatcher: answers messages.
        tell: counts and logs a request that is refused before it reaches the dispatcher.
        service: what is served now.
        pages: of readiness and metadata.
        files: path → file of the explorer and of the documentation.
        stopping: whether the service is stopping, so that connections are closed.
        others: tokens of the canaries that other processes of the service mean for themselves.
        origins: whose pages may call, see serve.granian.cors; empty for none.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        tell: Tell,
        service: Callable[[], Service],
        pages: Pages,
        files: Mapping[str, Path],
        stopping: Callable[[], bool],
        others: Set[str],
        origins: Collection[str],
    ) -> None:
        self._dispatcher, self._tell = dispatcher, tell
        self._service, self._pages = service, pages
        self._files, self._stopping, self._others = files, stopping, others
        self._origins = origins
        self.open = 0

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        self.open += 1
        try:
            path = scope.path
            if path in POSTS and scope.method == "POST":
                await self._predict(scope, protocol, *POSTS[path])
            else:
                named = {"X-Request-Id": request_id_for(read_headers(scope))}
                self._send(scope, protocol, self._page(scope), named)
        finally:
            self.open -= 1

    async def _predict(self, scope: Any, protocol: Any, endpoint: str, dialect: Dialect) -> None:
        """Answer a request to the model."""
        headers = read_headers(scope)
        if headers.get(CANARY_HEADER.lower()) in self._others:
            await read_body(protocol, headers)
            self._send(scope, protocol, Reply(b"", MISDIRECTED), {"Connection": "close"})
            return
        if dialect == "openai":
            headers["content-type"] = OPENAI
        request_id = request_id_for(headers)
        try:
            message = Message(await read_body(protocol, headers), headers, oip=dialect == "oip")
            pixels = weigh(message, ENDPOINTS[endpoint].takes, self._service().manifest)
            task = Task(endpoint, message, request_id, pixels, pixels <= LIGHT_PIXELS)
            reply = await self._dispatch(task, protocol)
        except RequestError as error:
            reply = error_reply(error, dialect)
            task = Task(endpoint, Message(b"", headers), request_id, 1, True)
            report = Report(bad=Counter({type(error).__name__: 1}))
            self._tell(endpoint, (task,), (reply,), report)
        self._send(scope, protocol, reply, {"X-Request-Id": request_id})

    async def _dispatch(self, task: Task, protocol: Any) -> Reply:
        """The reply to a message; a heavy message whose caller hangs up is dropped."""
        if self.open == 1 and task.pixels <= ALONE_PIXELS:
            return self._dispatcher.answer_here(task)
        self._dispatcher.submit(task)
        if task.light:
            return await task.reply
        gone = asyncio.ensure_future(protocol.client_disconnect())
        try:
            await asyncio.wait((task.reply, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.reply.done():
                self._dispatcher.withdraw(task)
                return Reply(b"", CALLER_GONE)
            return task.reply.result()
        finally:
            gone.cancel()

    def _page(self, scope: Any) -> Reply:
        """The reply to a request that isn't for the model."""
        path, method = scope.path, scope.method
        page, file = self._pages.page(path), self._files.get(path)
        if page is None and file is not None:
            page = file_reply(file)
        if page is None and path not in POSTS:
            return refusal(404, "NotFound", hint(path), "oip" if path.endswith("/infer") else "own")
        allowed = "POST" if path in POSTS else "GET, HEAD"
        if method == "OPTIONS":
            return Reply(b"", 204, headers={"Allow": allowed})
        if page is None or method not in ("GET", "HEAD"):
            message = f"{method} is not for this path; use {allowed}"
            _, dialect = POSTS.get(path, ("", "own"))
            reply = refusal(405, "MethodNotAllowed", message, dialect)
            return replace(reply, headers={"Allow": allowed})
        return page

    def _send(
        self, scope: Any, protocol: Any, reply: Reply, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        """Send a reply. Granian leaves out the body of a reply to HEAD."""
        fields = [("content-type", reply.content_type), *headers.items(), *reply.headers.items()]
        if self._origins:
            fields += cors_headers(scope, self._origins)
        if self._stopping():
            fields.append(("connection", "close"))
        protocol.response_bytes(reply.status, fields, reply.body)


def read_headers(scope: Any) -> dict[str, str]:
    """The headers by lower-case name; those that came on several lines are joined by commas."""
    headers = dict[str, str]()
    for name, value in scope.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def request_id_for(headers: Mapping[str, str]) -> str:
    """The caller's X-Request-Id, or one made for the request."""
    return request_id_of(headers) or f"{random.getrandbits(128):032x}"


async def read_body(protocol: Any, headers: Mapping[str, str]) -> bytes:
    """The whole body.

    Raises:
        PayloadTooLarge: it is over the limit; no more of it than that has been read.
        InvalidRequest: it didn't come in time.
    """
    length = headers.get("content-length")
    if length is not None and int(length) > MAX_BODY_BYTES:
        raise too_large(f"{int(length):,} bytes")
    try:
        async with asyncio.timeout(BODY_S):
            if length is not None:
                body: bytes = await protocol()
                return body
            pieces, size = list[bytes](), 0
            async for piece in protocol:
                size += len(piece)
                if size > MAX_BODY_BYTES:
                    raise too_large(f"over {MAX_BODY_BYTES:,} bytes")
                pieces.append(piece)
            return b"".join(pieces)
    except TimeoutError as error:
        raise InvalidRequest(f"the body did not come within {BODY_S:.0f} s") from error


def too_large(size: str) -> PayloadTooLarge:
    """The error of a body over the limit."""
    return PayloadTooLarge(f"the body has {size}; the limit is {MAX_BODY_BYTES:,}")
