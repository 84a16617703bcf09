"""What a service on Granian serves now, and how it comes to serve another bundle."""

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.bundle.engine.checks import check_golden
from serve.bundle.engine.opening import open_engine
from serve.bundle.engine.protocol import Engine
from serve.bundle.manifest import Bundle
from serve.launcher.bundles import Served, copy_bundle, describe
from serve.launcher.proof import prove_engine
from serve.launcher.readiness import Readiness
from serve.launcher.settings import Settings
from serve.service import Service

logger = logging.getLogger(__name__)


class Model:
    """A bundle and its service; see serve.launcher.swapping.Replacing.

    A swap exchanges one reference. A batch ends with the service that it began with.

    Attributes:
        served: the bundle, and what is made of it.
        service: answers messages.
        readiness: whether the service is ready; its canaries change with the bundle.
        on_gpu: whether the engine runs on a GPU.

    Args:
        bundle: to begin with.
        settings: of the service.
        home: the service's folder.

    Raises:
        ServeError: the bundle can't be copied, or isn't fit to be served.
    """

    def __init__(self, bundle: Bundle, settings: Settings, home: Path) -> None:
        self._settings, self._home = settings, home
        self.served, self.service = self._open(bundle, 1)
        # The threads of this process can't die apart from it, so all workers are always there.
        workers = settings.worker_count
        self.readiness = Readiness(self.served.canaries, settings, lambda _: workers)

    def replace(self, bundle: Bundle, version: int) -> None:
        """Serve a bundle from now on, once it has given the golden answers.

        Raises:
            ServeError: the bundle isn't fit to be served; nothing has changed.
        """
        prove_engine(bundle, self._settings)  # in a process of its own: it might crash
        served, service = self._open(bundle, version)
        with self.readiness.changing:
            self.served, self.service = served, service
            self.readiness.canaries = served.canaries

    def end(self, old: Served) -> None:
        """Do nothing: the old service goes with the last batch that holds it."""

    def _open(self, bundle: Bundle, version: int) -> tuple[Served, Service]:
        settings = self._settings
        copy = copy_bundle(self._home, bundle, version)
        # Each call runs on the thread that makes it: cores that share a call wait for each other.
        engine = open_engine(copy, settings.runtime, settings.device, settings.precision, threads=1)
        check_golden(engine, copy)
        logger.info("engine ready: %s in %s", engine.name, engine.precision)
        self.on_gpu = "cuda" in engine.name.lower()
        if self.on_gpu:
            engine = OneAtATime(engine)
        return describe(copy, version, settings.precision), Service(copy, engine)


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
