"""Datasets: two uint8 tensors of images, their labels, and nothing that loads in the background.

A dataset this small lives whole on the training device, so there is no DataLoader.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

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


def load_dataset(name: str, data_dir: Path) -> Dataset:
    """Read a dataset, downloading it into ``data_dir`` if it isn't there.

    Raises:
        DatasetError: unknown name, or the files are missing, damaged or can't be downloaded.
    """
    loaders: dict[str, Callable[[Path], Dataset]] = {"mnist": load_mnist, "digits": load_digits}
    if name not in loaders:
        raise DatasetError(f"no dataset is called {name!r}; there are {', '.join(loaders)}")
    return loaders[name](data_dir)


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Shuffle ``count`` indices and cut them 80/20 into training and validation."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    cut = count * 4 // 5
    return order[:cut], order[cut:]


_kept_alive: list[torch.library.Library] = []


def load_mnist(data_dir: Path) -> Dataset:
    """The 60,000 + 10,000 handwritten digits, 28×28, white ink on black."""
    mnist = import_torchvision_datasets().MNIST
    try:
        train, test = (mnist(str(data_dir), train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"can't read or download MNIST in {data_dir}: {error}") from error
    return Dataset(
        "mnist",
        train.data.unsqueeze(1),
        train.targets,
        test.data.unsqueeze(1),
        test.targets,
        polarity="auto",
    )


def load_digits(data_dir: Path) -> Dataset:
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
