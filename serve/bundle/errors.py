"""The errors of a bundle, and of requests to it.

ServeError              for the operator to fix: the command fails with one line
├── BundleError         the bundle is missing, damaged or of another schema
├── EngineError         the runtime or the device can't do what was asked
└── (serve.errors)      LaunchError

RequestError            for the caller: becomes an HTTP status and {"code", "type", "message"}
├── InvalidImage        400  a file can't be read as an image
├── TooManyImages       413  over MAX_IMAGES
├── PayloadTooLarge     413  over a size limit
└── (serve.errors)      errors that only a request over HTTP can cause
"""

from typing import ClassVar


class ServeError(Exception):
    """Base of the errors that an operator can fix; the message is one line."""


class BundleError(ServeError):
    """The bundle is missing, damaged or of another schema; the message names the file."""


class EngineError(ServeError):
    """The runtime or device can't do what was asked, or an array doesn't fit the model."""


class RequestError(Exception):
    """Base of the errors that a caller is told; the message states the fault and the limit."""

    status: ClassVar[int] = 400


def without_frames(error: RequestError) -> RequestError:
    """The error, to be kept until its reply: the frames it came through hold a picture's pixels."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class InvalidImage(RequestError):
    """A file can't be read as an image, or is over the pixel limit."""


class TooManyImages(RequestError):
    """More images or embeddings than one request may carry."""

    status = 413


class PayloadTooLarge(RequestError):
    """The body, or the reply it asks for, is over the limit."""

    status = 413


def first_line(error: Exception) -> str:
    """The first line of a runtime's message, which may go on for many."""
    return str(error).strip().partition("\n")[0]
