"""An HTTP request as it arrived, whichever server took it, and what its headers ask for.

What its body holds is read in serve.wire.requests.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from serve.bundle.errors import PayloadTooLarge
from serve.bundle.limits import MAX_BODY_BYTES
from serve.bundle.manifest import FRAMINGS, POLARITIES, ImageSpec
from serve.errors import InvalidRequest, UnsupportedMediaType
from serve.wire.media import JSON, OPENAI, best_reply_type

CANARY_HEADER = "X-Canary"  # holds the launcher's token, which only the launcher's canaries have
REQUEST_ID = re.compile(r"[\w.:+/=@-]{1,128}", re.ASCII)
TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context

Dialect = Literal["own", "oip", "openai"]  # whose form a reply has, and an error above all


@dataclass(frozen=True)
class Message:
    """One HTTP request as it arrived.

    Attributes:
        body: the bytes after the headers.
        headers: by lower-case name.
        parts: the files of a multipart form, in order, where the server has taken it apart; the
            body is empty then.
        oip: whether it came in the Open Inference Protocol.
    """

    body: bytes
    headers: Mapping[str, str]
    parts: Sequence[bytes] = ()
    oip: bool = False

    @property
    def size(self) -> int:
        """Bytes that were sent, without the headers."""
        return len(self.body) + sum(map(len, self.parts))

    @cached_property
    def content_type(self) -> str:
        """The media type without its parameters, lower-case; empty where none was sent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def dialect(self) -> Dialect:
        """Whose form the reply has: this contract's own, or one of two others' protocols."""
        if self.oip:
            return "oip"
        return "openai" if self.content_type == OPENAI else "own"

    def reply_type(self, offers: tuple[str, ...]) -> str:
        """The media type on offer that the Accept header ranks highest.

        Raises:
            NotAcceptable: the header allows nothing on offer.
        """
        return best_reply_type(self.headers.get("accept", ""), offers)


def request_id_of(headers: Mapping[str, str]) -> str:
    """The caller's X-Request-Id; empty where there is none, or none fit to be logged."""
    sent = headers.get("x-request-id", "")
    return sent if REQUEST_ID.fullmatch(sent) else ""


def trace_of(headers: Mapping[str, str]) -> str:
    """The caller's traceparent; empty where there is none, or none fit to be logged."""
    sent = headers.get("traceparent", "")
    return sent if TRACE.fullmatch(sent) else ""


def asked_spec(headers: Mapping[str, str], spec: ImageSpec) -> ImageSpec:
    """The model's spec, but for the polarity and the framing that a caller asks for.

    Raises:
        InvalidRequest: there is no such polarity or framing.
    """
    if "x-polarity" not in headers and "x-framing" not in headers:
        return spec
    asked = {}
    for field, known in (("polarity", POLARITIES), ("framing", FRAMINGS)):
        asked[field] = headers.get(f"x-{field}", getattr(spec, field)).strip().lower()
        if asked[field] not in known:
            raise InvalidRequest(f"X-{field.title()} must be one of {', '.join(known)}")
    return replace(spec, **asked)


def is_asked_for(headers: Mapping[str, str], name: str, otherwise: str) -> bool:
    """Whether a header is ``true``.

    Args:
        headers: by lower-case name.
        name: of the header.
        otherwise: its value where it wasn't sent.

    Raises:
        InvalidRequest: the header is neither true nor false.
    """
    asked = headers.get(name.lower(), otherwise).strip().lower()
    if asked not in ("true", "false"):
        raise InvalidRequest(f"{name} must be true or false")
    return asked == "true"


def check_body(message: Message) -> None:
    """Raise unless the body is uncompressed and within the limit.

    Raises:
        PayloadTooLarge: the body is over the limit.
        UnsupportedMediaType: the body is compressed, or is OIP but neither JSON nor raw bytes.
    """
    if message.size > MAX_BODY_BYTES:
        raise PayloadTooLarge(
            f"the body has {message.size:,} bytes; the limit is {MAX_BODY_BYTES:,}"
        )
    if message.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("compressed bodies are not read; send no Content-Encoding")
    if message.oip and message.content_type not in ("", JSON, "application/octet-stream"):
        raise UnsupportedMediaType("inference requests are sent as application/json")


def form_files(message: Message) -> Sequence[bytes]:
    """The files of a multipart form, taken apart here unless the server has done it.

    Raises:
        InvalidRequest: the form can't be taken apart.
        TooManyImages: it has over MAX_IMAGES files.
    """
    if not message.body:
        return message.parts
    from serve.wire.form import read_form  # a stock TorchServe lacks the package that this needs

    return read_form(message.body, message.headers["content-type"])


def is_file_type(content_type: str) -> bool:
    """Whether a body of this type is one image file."""
    return content_type in ("", "application/octet-stream") or content_type.startswith("image/")
