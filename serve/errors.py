"""The errors of a server, beside those of serve.bundle.errors.

ServeError
└── LaunchError             Java is missing, a port is taken, TorchServe died, a swap is refused

RequestError
├── InvalidRequest          400  the request as a whole can't be read
├── InvalidEmbedding        400  not a vector that the decoder takes
├── NotFound                404  a request in OpenAI's form is for another model
├── NotAcceptable           406  the endpoint gives nothing that the Accept header allows
├── UnsupportedMediaType    415  the Content-Type isn't in the contract
├── InternalError           500  a fault of the service; the message has the request id
└── Unavailable             503  more is waiting than can be answered in time
"""

from serve.bundle.errors import RequestError, ServeError


class LaunchError(ServeError):
    """The server can't be started, died, or refuses what the operator asked for."""


class InvalidRequest(RequestError):
    """The request as a whole can't be read."""


class InvalidEmbedding(RequestError):
    """Not a vector of D numbers that the model can draw."""


class NotFound(RequestError):
    """The request is for another model than the one that is served."""

    status = 404


class NotAcceptable(RequestError):
    """The endpoint gives nothing that the Accept header allows."""

    status = 406


class UnsupportedMediaType(RequestError):
    """The Content-Type isn't one that the endpoint reads."""

    status = 415


class Unavailable(RequestError):
    """More requests are waiting than can be answered in time; a later try may succeed."""

    status = 503


class InternalError(RequestError):
    """A fault of the service, not of the caller."""

    status = 500
