"""Client of a pinhole service: images to embeddings, and back.

>>> from pinhole import Client
>>> with Client("http://127.0.0.1:8080") as client:
...     client.embed("clients/examples/seven.png")
array([-0.7839, -0.0597], dtype=float32)
"""

from pinhole.answers import Health, Reconstruction
from pinhole.client import Client
from pinhole.errors import (
    BadRequest,
    Busy,
    PinholeError,
    ServerError,
    Unauthorized,
    Unavailable,
)

__all__ = [
    "BadRequest",
    "Busy",
    "Client",
    "Health",
    "PinholeError",
    "Reconstruction",
    "ServerError",
    "Unauthorized",
    "Unavailable",
]
