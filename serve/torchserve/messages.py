"""TorchServe's rows ↔ HTTP messages.

A dynamic batch is a list of rows; a raw body is the row's value under ``body`` or ``data``. Header
names come as the caller wrote them. Only one header shows which path a request came by: TorchServe
adds ``url_path`` to requests to /predictions, and nothing to requests to /v2.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from serve.torchserve.upstream import PARTS
from serve.wire.media import MULTIPART
from serve.wire.message import Message
from serve.wire.replies import Reply

Row = Mapping[str, Any]


def to_message(row: Row, context: Any, index: int) -> Message:
    """One row of a batch as an HTTP message."""
    sent = context.get_all_request_header(index)
    headers = {name.lower(): value for name, value in sent.items() if isinstance(value, str)}
    oip = "url_path" not in headers
    message = Message(row.get("body", row.get("data", b"")), headers, oip=oip)
    if message.content_type == MULTIPART:
        return Message(b"", headers, row.get(PARTS, ()), oip)
    return message


def set_head(context: Any, index: int, reply: Reply, headers: Mapping[str, str]) -> None:
    """Put a reply's status and headers where TorchServe looks for them.

    Args:
        context: TorchServe's, of the batch.
        index: of the request in the batch.
        reply: to that request.
        headers: that every reply carries.
    """
    context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, index)
    context.set_response_content_type(index, reply.content_type)
    for name, value in {**headers, **reply.headers}.items():
        context.set_response_header(index, name, value)
