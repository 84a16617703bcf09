"""Files → vectors with a PyTorch DataLoader, as most people write it first.

    BUNDLE=build/mnist python -m bench.peers.loader_job FILES OUT

A reading process for each core, the model in TorchScript, and one .npy file in the end.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Files(Dataset):
    """The files of a folder: (name, uint8[1, H, W]) of each."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        """How many there are."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        path = self.paths[index]
        return path.name, torch.from_numpy(np.array(Image.open(path).convert("L")))[None]


def batches(paths: list[Path]) -> DataLoader:
    """Batches of names and images, read ahead."""
    return DataLoader(Files(paths), batch_size=256, num_workers=len(os.sched_getaffinity(0)))


def open_model() -> torch.jit.ScriptModule:
    """The model of $BUNDLE."""
    return torch.jit.load(Path(os.environ["BUNDLE"]) / "autoencoder.ts").eval()


@torch.inference_mode()
def main(files: Path, out: Path) -> None:
    """Embed a folder."""
    model, names, embeddings = open_model(), [], []
    for some, images in batches(sorted(files.iterdir())):
        names += some
        embeddings.append(model.encode(images).numpy())
    out.mkdir(exist_ok=True)
    np.save(out / "embeddings.npy", np.concatenate(embeddings))
    (out / "names.txt").write_text("\n".join(names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
