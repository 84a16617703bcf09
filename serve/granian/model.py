"""How a bundle is opened to be served on Granian."""

import logging
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.bundle.engine.checks import check_golden
from serve.bundle.engine.opening import open_engine
from serve.bundle.engine.protocol import Engine
from serve.bundle.manifest import Bundle
from serve.launcher.bundles import Served, describe
from serve.launcher.settings import Settings
from serve.service import Service

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A bundle that can be served: it has given the golden answers.

    Attributes:
        served: the bundle, and what is made of it.
        service: answers messages.
        on_gpu: whether the engine runs on a GPU.
    """

    served: Served
    service: Service
    on_gpu: bool


def open_model(copy: Bundle, version: int, settings: Settings) -> Opened:
    """Open the service's copy of a bundle.

    Raises:
        ServeError: the bundle isn't fit to be served.
    """
    # Each call runs on the thread that makes it: cores that share a call wait for each other.
    engine = open_engine(copy, settings.runtime, settings.device, settings.precision, threads=1)
    check_golden(engine, copy)
    logger.info("engine ready: %s in %s", engine.name, engine.precision)
    on_gpu = "cuda" in engine.name.lower()
    if on_gpu:
        engine = OneAtATime(engine)
    return Opened(describe(copy, version, settings.precision), Service(copy, engine), on_gpu)


class OneAtATime:
    """An engine that several threads use in turns, for a GPU, whose buffers are reused.

    See serve.bundle.engine.protocol.Engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.name, self.precision = engine.name, engine.precision
        self._engine, self._turn = engine, threading.Lock()

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]."""
        with self._turn:
            return self._engine.embed(images)

    def decode(self, embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        with self._turn:
            return self._engine.decode(embeddings)
