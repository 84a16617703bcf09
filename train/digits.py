"""The handwritten digits that scikit-learn brings along: nothing is downloaded."""

import numpy as np
import torch
from torch.nn import functional

from train.dataset import Dataset
from train.model import to_pixels


def load_digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, drawn at MNIST's scale.

    The 8×8 pictures (ink from 0 to 16) are enlarged to 20×20 and centred in 28×28, which is how
    MNIST places its own digits. Every fifth picture is a test image.
    """
    from sklearn.datasets import load_digits as load_small_digits

    small = load_small_digits()
    ink = torch.from_numpy(small.images.astype(np.float32) / 16)[:, None]  # [1797, 1, 8, 8]
    enlarged = functional.interpolate(ink, size=20, mode="bicubic", align_corners=False)
    centred = functional.pad(enlarged.clamp(0, 1), (4, 4, 4, 4))
    images = to_pixels(centred)
    labels = torch.from_numpy(small.target.astype(np.int64))
    test = torch.arange(len(images)) % 5 == 4
    return Dataset(
        "digits",
        images[~test],
        labels[~test],
        images[test],
        labels[test],
        polarity="auto",
        framing="ink",
    )
