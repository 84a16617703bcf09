"""What a call can raise.

PinholeError
├── BadRequest      4xx: the service refused the input; sending it again won't help
├── Unauthorized    401: the API key is missing or wrong
├── Busy            429 or 503 even after every retry
├── ServerError     5xx: the service's own fault; or no pinhole service, or two models, answered
└── Unavailable     no answer: after every retry, or not in time

An argument that is no image raises TypeError or ValueError, and a path that can't be read raises
OSError, before anything is sent.
"""


class PinholeError(Exception):
    """Root of the tree."""


class BadRequest(PinholeError):
    """The service refused the input.

    Attributes:
        status: HTTP status, e.g. 400.
        type: the contract's name of the fault, e.g. ``InvalidImage``.
    """

    def __init__(self, message: str, status: int = 400, type: str = "InvalidRequest") -> None:
        super().__init__(message)
        self.status = status
        self.type = type


class Unauthorized(PinholeError):
    """The API key is missing or wrong."""


class Busy(PinholeError):
    """The service had no room for the request, even after every retry."""


class ServerError(PinholeError):
    """The service failed on a good request, changed its model in a call, or is another program."""


class Unavailable(PinholeError):
    """No answer: wrong address, service down, or too slow for the time-out."""
