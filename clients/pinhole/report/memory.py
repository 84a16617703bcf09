"""What the model remembers: its decoder, in this process or at a service."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pinhole.atlas.result import Result, UnfitResult
from pinhole.client import Client
from serve.bundle.errors import ServeError
from serve.bundle.manifest import ImageSpec

Decode = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
ImageOf = Callable[[str], ImageSpec | None]  # The pictures that the model of a digest takes.


@dataclass(frozen=True)
class Memory:
    """A model that can draw what it remembers.

    Attributes:
        decode: float32[N, D] → uint8[N, C, H, W].
        image: the pictures that the model takes; None if that isn't known.
    """

    decode: Decode
    image: ImageSpec | None


def local_memory(result: Result, folder: Path) -> Memory:
    """The decoder of a bundle, on the CPU.

    Raises:
        ImportError: the extra ``local`` isn't installed.
        UnfitResult: the bundle is damaged, or isn't the model that embedded the result.
    """
    from serve.bundle.engine.opening import open_engine
    from serve.bundle.manifest import load_bundle

    try:
        bundle = load_bundle(folder)
        engine = open_engine(bundle, "onnxruntime", "cpu")
    except ServeError as error:
        raise UnfitResult(str(error)) from error
    check_model(result, bundle.manifest.digest, str(folder))

    def decode(embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
        pixels: NDArray[np.float32] = np.rint(engine.decode(embeddings) * np.float32(255))
        return pixels.astype(np.uint8)

    return Memory(decode, bundle.manifest.image)


def service_memory(result: Result, client: Client, image_of: ImageOf) -> Memory:
    """The decoder of a service.

    Raises:
        PinholeError: the service can't be reached.
        UnfitResult: it has another model than the one that embedded the result.
    """
    digest = client.health().digest
    check_model(result, digest, client.url)
    return Memory(client.decode, result.image or image_of(digest))


def check_model(result: Result, digest: str, name: str) -> None:
    """Raise UnfitResult if a result is of another model, as far as it says."""
    own = result.metadata.get("model_digest", digest)
    if own != digest:
        raise UnfitResult(
            f"{result.path} was embedded by model {own[:12]}, and {name} is model {digest[:12]}"
        )
