"""The model that embedded a result: what it remembers, takes and calls its images.

It is run in this process, from a bundle, or asked at a service.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinhole.answers import expecting_contract
from pinhole.atlas.result import Result, UnfitResult
from pinhole.client import Client
from pinhole.jobs.pictures import to_image_spec
from serve.bundle.errors import ServeError
from serve.bundle.manifest import ImageSpec

Find = Callable[[str, str], dict[str, Any]]  # (path, model's digest) → page; {} if there is none.

AT_ONCE = 1_000  # Embeddings that are compared with all images of the model's own.


@dataclass(frozen=True)
class Model:
    """A model, as far as a page needs it.

    Attributes:
        decode: float32[N, D] → uint8[N, C, H, W].
        image: the pictures that the model takes; None if that isn't known.
        places: embeddings of the model's own test images: float32[M, D].
        names: the class of each of them; empty where there are no classes.
    """

    decode: Callable[[NDArray[np.float32]], NDArray[np.uint8]]
    image: ImageSpec | None
    places: NDArray[np.float32]
    names: Sequence[str]

    def name_each(self, embeddings: NDArray[np.float32]) -> list[str]:
        """For each of float32[N, D], the class of the nearest of the model's own images, or "".

        Raises:
            UnfitResult: the model's embeddings have another number of numbers.
        """
        if not self.names:
            return [""] * len(embeddings)
        given, own = embeddings.shape[1], self.places.shape[1]
        if given != own:
            raise UnfitResult(f"the result's embeddings have {given} numbers, the model's {own}")
        squares = np.square(self.places, dtype=np.float64).sum(1)
        nearest = list[int]()
        for first in range(0, len(embeddings), AT_ONCE):
            some = embeddings[first : first + AT_ONCE].astype(np.float64)
            # The square of a distance, without the part that all the model's images have in common.
            nearest += (squares - 2 * some @ self.places.T).argmin(1).tolist()
        return [self.names[index] for index in nearest]


def local_model(result: Result, folder: Path) -> Model:
    """The model of a bundle, on the CPU.

    Raises:
        ImportError: the extra ``local`` isn't installed.
        UnfitResult: the bundle is damaged, or isn't the model that embedded the result.
    """
    from serve.bundle.engine.opening import open_engine
    from serve.bundle.images import to_pixels
    from serve.bundle.manifest import load_bundle

    try:
        bundle = load_bundle(folder)
        engine = open_engine(bundle, "onnxruntime", "cpu")
    except ServeError as error:
        raise UnfitResult(str(error)) from error
    check_model(result, bundle.manifest.digest, str(folder))

    def decode(embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
        try:
            return to_pixels(engine.decode(embeddings))
        except ServeError as error:
            raise UnfitResult(str(error)) from error

    with np.load(folder / "map.npz") as own:
        names = names_of(own["labels"].tolist(), bundle.manifest.classes)
        return Model(decode, bundle.manifest.image, own["embeddings"], names)


def service_model(result: Result, client: Client, find: Find) -> Model:
    """The model of a service.

    Args:
        result: that the model has embedded.
        client: of the service.
        find: finds a page of the service; see find_page.

    Raises:
        PinholeError: the service can't be reached.
        UnfitResult: it has another model than the one that embedded the result.
    """
    digest = client.health().digest
    check_model(result, digest, client.url)
    about, own = find("/v2/models/embed", digest), find("/map.json", digest)
    with expecting_contract():
        places = np.array(own.get("embeddings", []), np.float32)
        names = names_of(own.get("labels", []), about.get("classes", []))
        return Model(client.decode, to_image_spec(about.get("image")), places, names)


def check_model(result: Result, digest: str, name: str) -> None:
    """Raise UnfitResult if a result is of another model, as far as it says."""
    own = result.metadata.get("model_digest", digest)
    if own != digest:
        raise UnfitResult(
            f"{result.path} was embedded by model {own[:12]}, and {name} is model {digest[:12]}"
        )


def names_of(labels: Sequence[int], classes: Sequence[str]) -> list[str]:
    """The class of each image, by its label; none where all images are of one class."""
    if len(set(labels)) < 2:
        return []
    return [classes[label] if classes else str(label) for label in labels]
