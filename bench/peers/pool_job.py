"""Files → vectors with onnxruntime and a pool of threads.

    BUNDLE=build/mnist python -m bench.peers.pool_job FILES OUT

Each thread reads 256 files and embeds them, so that reading and arithmetic overlap; one .npy file
in the end.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.peers.encoder import Encoder

BATCH = 256


def main(files: Path, out: Path) -> None:
    """Embed a folder."""
    encoder, paths = Encoder(), sorted(files.iterdir())

    def embed(start: int) -> NDArray[np.float32]:
        some = paths[start : start + BATCH]
        return encoder.embed(np.stack([encoder.read(path.read_bytes()) for path in some]))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        embeddings = list(pool.map(embed, range(0, len(paths), BATCH)))
    out.mkdir(exist_ok=True)
    np.save(out / "embeddings.npy", np.concatenate(embeddings))
    (out / "names.txt").write_text("\n".join(path.name for path in paths))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
