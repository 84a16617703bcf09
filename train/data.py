"""Datasets: two uint8 tensors of images, their labels, and nothing that loads in the background.

A dataset this small lives whole on the training device, so there is no DataLoader.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from train.config import DATASETS
from train.errors import DatasetError


@dataclass(frozen=True)
class Dataset:
    """Images ``uint8[N, C, H, W]`` and labels ``int64[N]`` to learn from and to be judged on."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    polarity: str = "keep"  # or "auto": serving inverts pictures of dark ink on a light ground

    @property
    def checksum(self) -> str:
        """sha256 over every pixel and label, in order."""
        digest = hashlib.sha256()
        for part in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()


def load_dataset(
    name: str,
    data_dir: Path,
    channels: int | None = None,
    size: int | None = None,
    skip_unreadable: bool = False,
) -> Dataset:
    """Read a dataset, downloading it into ``data_dir`` if it isn't there.

    Args:
        name: one of train.config.DATASETS.
        data_dir: where torchvision keeps its datasets; for ``folder``, the images themselves.
        channels: of a folder's images; None takes 3 if any is coloured, else 1.
        size: height and width to bring a folder's images to; None takes 28.
        skip_unreadable: leave out a folder's broken files instead of refusing the folder.

    Raises:
        DatasetError: unknown name, or files are missing, damaged or can't be downloaded.
    """
    if name == "digits":
        return load_digits()
    if name == "folder":
        from train.folder import load_folder

        return load_folder(data_dir, channels, size or 28, skip_unreadable)
    if name not in TORCHVISION:
        raise DatasetError(f"no dataset is called {name!r}; there are {', '.join(DATASETS)}")
    return load_torchvision(name, data_dir)


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Shuffle ``count`` indices and cut them 80/20 into training and validation."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    cut = count * 4 // 5
    return order[:cut], order[cut:]


_kept_alive: list[torch.library.Library] = []


# name → torchvision's class and what else it wants to know
TORCHVISION: dict[str, tuple[str, dict[str, str]]] = {
    "mnist": ("MNIST", {}),
    "fashion-mnist": ("FashionMNIST", {}),
    "kmnist": ("KMNIST", {}),
    "emnist": ("EMNIST", {"split": "balanced"}),
}
MNIST_SHA256 = "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b"


def load_torchvision(name: str, data_dir: Path) -> Dataset:
    """MNIST (60,000 + 10,000 handwritten digits, 28×28, white ink on black) or a sibling of it.

    Raises:
        DatasetError: the files are missing, damaged or not the MNIST the world knows.
    """
    class_name, extra = TORCHVISION[name]
    read = getattr(import_torchvision_datasets(), class_name)
    try:
        train, test = (
            read(str(data_dir), train=part, download=True, **extra) for part in (True, False)
        )
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise DatasetError(f"can't read or download {name} in {data_dir}: {error}") from error
    images = [half.data.unsqueeze(1) for half in (train, test)]
    if name == "emnist":
        images = [half.transpose(2, 3) for half in images]  # EMNIST's files lie on their side
    dataset = Dataset(name, images[0], train.targets, images[1], test.targets, polarity="auto")
    if name == "mnist" and dataset.checksum != MNIST_SHA256:
        raise DatasetError(f"{data_dir} holds another MNIST: its pixels have the wrong checksum")
    return dataset


def load_digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, drawn at MNIST's scale; nothing is downloaded.

    The 8×8 pictures (inks 0 to 16) are enlarged to 20×20 and centred in 28×28, which is how
    MNIST places its own. Every fifth picture is a test image.
    """
    from sklearn.datasets import load_digits as load_small_digits

    small = load_small_digits()
    inks = torch.from_numpy(small.images.astype(np.float32) / 16)[:, None]  # [1797, 1, 8, 8]
    enlarged = torch.nn.functional.interpolate(inks, size=20, mode="bicubic", align_corners=False)
    centred = torch.nn.functional.pad(enlarged.clamp(0, 1), (4, 4, 4, 4))
    images = (centred * 255).round().to(torch.uint8)
    labels = torch.from_numpy(small.target.astype(np.int64))
    test = torch.arange(len(images)) % 5 == 4
    return Dataset(
        "digits", images[~test], labels[~test], images[test], labels[test], polarity="auto"
    )


def import_torchvision_datasets() -> ModuleType:
    """Import ``torchvision.datasets``, also beside a CPU-only torch.

    torchvision's default wheels are CUDA builds. Beside a CPU-only torch their compiled operators
    can't load, and the import dies describing two operators that nobody defined ("operator
    torchvision::nms does not exist"). The datasets need no operator, so defining the two schemas
    is enough. Where the first import succeeds (a matching build) nothing is defined: defining an
    operator twice is an error too.
    """
    try:
        from torchvision import datasets
    except RuntimeError:
        schemas = torch.library.Library("torchvision", "FRAGMENT")
        schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(schemas)  # a Library takes its operators back when it is collected
        from torchvision import datasets

    return datasets
