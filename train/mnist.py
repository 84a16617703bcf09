"""MNIST and its siblings, which torchvision downloads and reads."""

from pathlib import Path
from types import ModuleType

import torch

from serve.bundle.pictures.kinds import SUFFIXES
from train.dataset import Dataset
from train.errors import DatasetError

# For each dataset: the name of torchvision's class, the further arguments of its constructor, and
# how its makers framed the pictures.
TORCHVISION: dict[str, tuple[str, dict[str, str], str]] = {
    "mnist": ("MNIST", {}, "ink"),
    "fashion-mnist": ("FashionMNIST", {}, "pad"),
    "kmnist": ("KMNIST", {}, "ink"),
    "emnist": ("EMNIST", {"split": "balanced"}, "ink"),
}
MNIST_SHA256 = "1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b"


def load_torchvision(name: str, data_dir: Path) -> Dataset:
    """MNIST (60,000 + 10,000 handwritten digits, 28×28, white ink on black) or a sibling of it.

    Raises:
        DatasetError: the files are missing or damaged, can't be downloaded, or hold something
            else than the published MNIST; or the folder is one of the user's own images.
    """
    if name == "mnist":
        check_no_images(data_dir)
    class_name, arguments, framing = TORCHVISION[name]
    read = getattr(import_torchvision_datasets(), class_name)
    try:
        train, test = (
            read(str(data_dir), train=part, download=True, **arguments) for part in (True, False)
        )
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise DatasetError(f"can't read or download {name} in {data_dir}: {error}") from error
    images = [half.data.unsqueeze(1) for half in (train, test)]
    if name == "emnist":
        images = [half.transpose(2, 3) for half in images]  # EMNIST's files lie on their side
    dataset = Dataset(
        name,
        images[0],
        train.targets,
        images[1],
        test.targets,
        polarity="auto",
        framing=framing,
        classes=() if name == "mnist" else tuple(train.classes),  # a digit needs no other name
    )
    if name == "mnist" and dataset.checksum != MNIST_SHA256:
        raise DatasetError(f"{data_dir} holds another MNIST: its pixels have the wrong checksum")
    return dataset


def check_no_images(data_dir: Path) -> None:
    """Raise DatasetError if MNIST would be downloaded into a folder of the user's own images."""
    if (data_dir / "MNIST").exists():
        return
    near = (path for depth in ("*", "*/*") for path in data_dir.glob(depth))
    if image := next((path for path in near if path.suffix.lower() in SUFFIXES), None):
        raise DatasetError(
            f"{data_dir} holds images ({image}) and no MNIST: for MNIST name another --data-dir; "
            "--dataset folder trains on the images"
        )


def import_torchvision_datasets() -> ModuleType:
    """Import ``torchvision.datasets``, also beside a CPU-only torch.

    torchvision's default wheels are CUDA builds. Beside a CPU-only torch their compiled operators
    can't load, and the import fails because it describes two operators that nobody defined
    ("operator torchvision::nms does not exist"). The datasets need no operator, so it is enough to
    define the schemas of these two. Where the first import succeeds (the builds match) nothing is
    defined, because defining an operator twice is an error too.
    """
    try:
        import torchvision.datasets
    except RuntimeError:
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", schema)
        torch.library.define("torchvision::qnms", schema)
        import torchvision.datasets

    datasets: ModuleType = torchvision.datasets
    return datasets
