"""Pages that describe the service: the Open Inference Protocol's metadata, the limits, the map."""

import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from serve.bundle import limits
from serve.bundle.distribution import DISTRIBUTION
from serve.bundle.manifest import Bundle
from serve.endpoints import ENDPOINTS, tensors

DECIMALS = 4  # of an embedding on the map: finer than a pixel of any screen


def pages(bundle: Bundle, precision: str) -> dict[str, bytes]:
    """Path → JSON of every page that stays the same as long as this bundle is served."""
    models = {
        f"/v2/models/{endpoint}": model(bundle, endpoint, precision) for endpoint in ENDPOINTS
    }
    told = {"/v2": server(), **models, "/map.json": atlas(bundle)}
    return {
        path: json.dumps(fields, separators=(",", ":")).encode() for path, fields in told.items()
    }


def server() -> dict[str, Any]:
    """GET /v2."""
    return {
        "name": "pinhole",
        "version": version(DISTRIBUTION),
        "extensions": ["binary_tensor_data"],
    }


def model(bundle: Bundle, endpoint: str, precision: str) -> dict[str, Any]:
    """GET /v2/models/{endpoint}: the Open Inference Protocol's fields, then this project's own."""
    manifest, known = bundle.manifest, tensors(bundle.manifest)
    takes, gives = (ENDPOINTS[endpoint].takes,), ENDPOINTS[endpoint].gives
    return {
        "name": endpoint,
        "versions": [manifest.version],
        "platform": "pinhole",
        "inputs": [{"name": name, **known[name]} for name in takes],
        "outputs": [{"name": name, **known[name]} for name in gives],
        "model": manifest.name,
        "digest": manifest.digest,
        "precision": precision,
        "image": asdict(manifest.image),
        "embedding_width": manifest.embedding_width,
        "classes": manifest.classes,
        "limits": {
            "body_bytes": limits.MAX_BODY_BYTES,
            "reply_bytes": limits.MAX_REPLY_BYTES,
            "images": limits.MAX_IMAGES,
            "image_pixels": limits.MAX_IMAGE_PIXELS,
            "request_pixels": limits.MAX_REQUEST_PIXELS,
            "embedding": limits.MAX_EMBEDDING,
        },
    }


def atlas(bundle: Bundle) -> dict[str, Any]:
    """GET /map.json: where the test images lie, and their labels."""
    with np.load(bundle.folder / "map.npz") as arrays:
        embeddings, labels = arrays["embeddings"], arrays["labels"]
    return {
        "digest": bundle.manifest.digest,
        "embeddings": [[round(float(x), DECIMALS) for x in row] for row in embeddings],
        "labels": labels.tolist(),
    }
