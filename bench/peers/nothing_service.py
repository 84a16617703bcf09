"""This project's service on Granian, with an engine that computes nothing: what all the rest costs.

    python -m bench.peers.nothing_service build/mnist --port 9080

Takes the options of ``python -m serve``. But for Granian's own thread, all that is left runs under
Python's lock. So this shows how many requests one process can answer, on however many cores.
"""

import sys
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from serve.__main__ import main
from serve.bundle.manifest import Bundle


class NothingEngine:
    """Gives the golden answers to the golden images; to any others, the first of them each time."""

    name, precision = "nothing", "fp32"

    def __init__(self, bundle: Bundle, *_: Any, **__: Any) -> None:
        self._golden = bundle.golden()

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8[N, C, H, W] → float32[N, D]."""
        return answers(images, self._golden.images, self._golden.embeddings)

    def decode(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[N, D] → float32[N, C, H, W]."""
        return answers(embeddings, self._golden.embeddings, self._golden.reconstructions)


def answers(rows: NDArray[Any], known: NDArray[Any], golden: NDArray[Any]) -> NDArray[Any]:
    """All golden answers where ``rows`` are what they belong to, else the first for each row."""
    return golden if np.array_equal(rows, known) else np.repeat(golden[:1], len(rows), axis=0)


if __name__ == "__main__":
    with patch("serve.granian.model.open_engine", NothingEngine):
        sys.exit(main([*sys.argv[1:], "--server", "granian"]))
