"""What a dataset is: four tensors that lie in memory whole. No DataLoader feeds them."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Images to learn from and images to be judged on, with their labels.

    Attributes:
        name: one of train.config.DATASETS.
        train_images: uint8[N, C, H, W].
        train_labels: int64[N].
        test_images: uint8[M, C, H, W].
        test_labels: int64[M].
        polarity: ``auto`` lets serving invert pictures of dark ink on a light ground; ``keep``
            leaves every picture as it is.
        framing: how serving cuts the picture out of a file; see serve.bundle.framing.
        classes: the name of each label, by its number; empty where the numbers are the names.
        split_by: what is kept on one side when images are split: image | folder | prefix.
        train_groups: int64[N]: images of one group train together or validate together; None where
            images are split one by one.
        left_out: number of files that couldn't be read.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    polarity: str = "keep"
    framing: str = "pad"
    classes: tuple[str, ...] = ()
    split_by: str = "image"
    train_groups: Tensor | None = None
    left_out: int = 0

    @property
    def checksum(self) -> str:
        """sha256 over every pixel and label, in order."""
        digest = hashlib.sha256()
        for part in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Shuffle ``count`` indices and cut them 80/20 into training and validation."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    cut = count * 4 // 5
    return order[:cut], order[cut:]


def split_groups(groups: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Cut images 80/20 as ``split`` does, by their groups: int64[N], two groups or more."""
    numbers = torch.tensor(sorted(set(groups.tolist())))
    chosen = numbers[split(len(numbers), seed)[0]]
    trains = torch.isin(groups, chosen)
    return trains.nonzero().flatten(), (~trains).nonzero().flatten()
