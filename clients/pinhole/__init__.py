"""Client of a pinhole service: images to embeddings, and back.

>>> from pinhole import Client
>>> with Client("http://127.0.0.1:8080") as client:
...     client.embed("clients/examples/seven.png")
array([-0.9627707, -0.7172254], dtype=float32)
"""

from typing import TYPE_CHECKING

from pinhole.answers import Health, Reconstruction, Score
from pinhole.client import Client
from pinhole.errors import (
    BadRequest,
    Busy,
    PinholeError,
    ServerError,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "BadRequest",
    "Busy",
    "Client",
    "Health",
    "PinholeError",
    "Reconstruction",
    "Score",
    "ServerError",
    "Unauthorized",
    "Unavailable",
    "__version__",
]


def __getattr__(name: str) -> str:
    """``__version__``, which is read from the installed package only when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    from serve.bundle.distribution import DISTRIBUTION

    return version(DISTRIBUTION)
