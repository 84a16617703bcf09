"""The table of the endpoints that a service offers: embed, reconstruct and decode.

The workers, the metadata, readiness and swaps read this table. tests/serve/test_endpoints.py
compares it with what can't import it: serve/openapi.yaml, the gateway's nginx.conf, and export's
list for archives. docs/architecture.md says how to add an endpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serve.bundle.manifest import Bundle, Manifest
from serve.canary import Canary, decode_canary, embed_canary, reconstruct_canary
from serve.wire.media import JSON, NPY, PNG

NUMBERS, PICTURES = (JSON, NPY), (JSON, PNG, NPY)  # media types of replies that hold them


@dataclass(frozen=True)
class Endpoint:
    """One operation that a service offers.

    Attributes:
        name: of the path ``/predictions/NAME``, and of a method of serve.service.Service.
        takes: name of the input tensor, a key of ``tensors``.
        gives: names of the output tensors, in the order of an Open Inference Protocol reply.
        replies: media types of its replies, the first where a caller doesn't choose.
        canary: makes this endpoint's canary from a bundle and a precision.
    """

    name: str
    takes: str
    gives: tuple[str, ...]
    replies: tuple[str, ...]
    canary: Callable[[Bundle, str], Canary]


ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint("embed", "images", ("embeddings",), NUMBERS, embed_canary),
        Endpoint("reconstruct", "images", ("reconstructions", "mse"), PICTURES, reconstruct_canary),
        Endpoint("decode", "embeddings", ("images",), PICTURES, decode_canary),
    )
}


def tensors(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Name → datatype and shape of every tensor, as the Open Inference Protocol describes them."""
    images = {"datatype": "UINT8", "shape": [-1, *manifest.image.shape]}
    return {
        "images": images,
        "reconstructions": images,
        "embeddings": {"datatype": "FP32", "shape": [-1, manifest.embedding_width]},
        "mse": {"datatype": "FP32", "shape": [-1]},
    }


def make_canaries(bundle: Bundle, precision: str) -> dict[str, Canary]:
    """Make a canary for each endpoint."""
    return {name: endpoint.canary(bundle, precision) for name, endpoint in ENDPOINTS.items()}
