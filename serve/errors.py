"""Everything that can go wrong, by whom it concerns.

ServeError                  the operator: start-up fails with one line
├── BundleError             the bundle is missing, damaged or of another schema
├── EngineError             the runtime or device can't do what was asked
└── LaunchError             Java, a port or TorchServe itself

RequestError                the caller: becomes an HTTP status and {"code", "type", "message"}
├── InvalidRequest          400  the envelope can't be read
├── InvalidImage            400  a file can't be read as an image
├── InvalidEmbedding        400  not a vector the decoder takes
├── TooManyImages           413  over MAX_IMAGES
├── PayloadTooLarge         413  over a size limit
├── UnsupportedMediaType    415  the Content-Type isn't in the contract
└── InternalError           500  a fault of ours; the message carries the request id
"""

from typing import ClassVar


class ServeError(Exception):
    """Root of what an operator can fix; the message is one line."""


class BundleError(ServeError):
    """The bundle is missing, damaged or of another schema; the message names the file."""


class EngineError(ServeError):
    """The runtime or device can't do what was asked, or an array doesn't fit the model."""


class LaunchError(ServeError):
    """TorchServe can't be started or died."""


class RequestError(Exception):
    """Root of what a caller did wrong; the message states the fault and the limit."""

    status: ClassVar[int] = 400
    phrase: ClassVar[str] = "Bad Request"  # ASCII: TorchServe writes it on the status line


class InvalidRequest(RequestError):
    """The envelope can't be read."""


class InvalidImage(RequestError):
    """A file can't be read as an image, or is over the pixel limit."""


class InvalidEmbedding(RequestError):
    """Not a vector of D finite numbers."""


class TooManyImages(RequestError):
    """More images or embeddings than one request may carry."""

    status = 413
    phrase = "Payload Too Large"


class PayloadTooLarge(RequestError):
    """The body, or the reply it asks for, is over the limit."""

    status = 413
    phrase = "Payload Too Large"


class UnsupportedMediaType(RequestError):
    """The Content-Type isn't one the endpoint reads."""

    status = 415
    phrase = "Unsupported Media Type"


class InternalError(RequestError):
    """Not the caller's fault."""

    status = 500
    phrase = "Internal Server Error"
