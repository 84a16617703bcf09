"""Files → vectors with Ray Data, as its pages on images and on batch inference show it.

    BUNDLE=build/mnist python -m bench.peers.ray_data_job FILES OUT

One actor embeds, and the other cores read, for Ray reserves a core for each. Parquet files in the
end; Ray adds to what lies there.
"""

import os
import sys

import numpy as np
import ray

from bench.peers.encoder import Encoder


class Predictor:
    """The actor."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Paths and images of a batch → paths and embeddings."""
        return {"path": batch["path"], "embedding": self.encoder.embed(batch["image"][:, None])}


def main(files: str, out: str) -> None:
    """Embed a folder."""
    ray.init(
        "local", num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    images = ray.data.read_images(files, mode="L", include_paths=True)
    embedded = images.map_batches(
        Predictor, batch_size=256, compute=ray.data.ActorPoolStrategy(size=1)
    )
    embedded.write_parquet(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
