"""Files → vectors in partitions, in clip-retrieval's style (its reader, mapper and writer).

    BUNDLE=build/mnist python -m bench.peers.partitions_job FILES OUT

Every Nth file belongs to a partition, which is read by a DataLoader of its own, kept in memory,
and written in the end: embeddings as .npy, names as Parquet. A second run makes all of them again.
"""

import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.peers.loader_job import batches, open_model

PARTITION = 10_000  # files, as clip-retrieval has it for each file of a webdataset


@torch.inference_mode()
def main(files: Path, out: Path) -> None:
    """Embed a folder."""
    model, paths = open_model(), sorted(files.iterdir())
    for part in ("img_emb", "metadata"):
        (out / part).mkdir(parents=True, exist_ok=True)
    count = math.ceil(len(paths) / PARTITION)
    for number in range(count):
        names, embeddings = [], []
        for some, images in batches(paths[number::count]):
            names += some
            embeddings.append(model.encode(images).numpy())
        np.save(out / "img_emb" / f"img_emb_{number}.npy", np.concatenate(embeddings))
        pq.write_table(pa.table({"path": names}), out / "metadata" / f"metadata_{number}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
