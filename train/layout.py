"""A map to start from: t-SNE tells the encoder which images belong side by side.

Left alone, an autoencoder of two numbers settles early for whatever map its first steps drew, and
keeps crowding unlike digits into one corner of it. t-SNE (van der Maaten & Hinton 2008) draws a far
better one, but only of the images it was given. So a pull draws every embedding towards its place
on that map; it fades, and the last steps follow the reconstruction error alone.
docs/experiments.md shows what it is worth.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.model import to_unit_range

SAMPLE = 60_000  # images on the map; its time and memory grow with them,
SIDE = 32  # pixels: larger images are shrunk; neighbours don't depend on the finest strokes
SHRUNK_AT_ONCE = 500  # images
FEWEST = 4  # images that make a map
WIDEST = 2  # t-SNE is made for pictures
PERPLEXITY = 50  # about the neighbours each image is held to
COMPONENTS = 50  # of the PCA that t-SNE starts from
ITERATIONS = 250, 400  # with early exaggeration and without
ANNOUNCED = 10  # iterations between two calls of on_progress


def lay_out(images: Tensor, width: int, seed: int, on_progress: Callable[[float], None]) -> Tensor:
    """Place every image on a map of its neighbours.

    Args:
        images: uint8[N, C, H, W], on the CPU.
        width: D, numbers per image; t-SNE draws in at most WIDEST.
        seed: of the sample and of the map.
        on_progress: called with the share done, 0 to 1, every now and then.

    Returns:
        float32[N, D] of mean 0 and standard deviation 1. NaN, for no place, where an image is
        beyond SAMPLE, there are fewer than FEWEST, or D is over WIDEST.
    """
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    random = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(images), generator=random)[:SAMPLE]
    targets = torch.full((len(images), width), torch.nan)
    if len(sample) < FEWEST or width > WIDEST:
        return targets
    pixels = torch.cat([shrink(part) for part in images[sample].split(SHRUNK_AT_ONCE)]).numpy()
    total, done = sum(ITERATIONS), 0

    def announce(*_: object) -> None:
        nonlocal done
        done += ANNOUNCED
        on_progress(min(1.0, done / total))

    components = PCA(min(COMPONENTS, *pixels.shape), random_state=seed % 2**32).fit_transform(
        pixels
    )
    tsne = TSNE(
        n_components=width,
        perplexity=min(PERPLEXITY, (len(sample) - 1) / 3),
        early_exaggeration_iter=ITERATIONS[0],
        n_iter=ITERATIONS[1],
        n_jobs=torch.get_num_threads(),
        random_state=seed,
        callbacks=announce,
        callbacks_every_iters=ANNOUNCED,
    )
    places = np.asarray(tsne.fit(components), np.float32)
    targets[sample] = torch.from_numpy((places - places.mean(0)) / places.std(0))
    return targets


def shrink(images: Tensor) -> Tensor:
    """uint8[N, C, H, W] → float32[N, pixels], averaged down to SIDE at most."""
    height, width = (min(SIDE, side) for side in images.shape[2:])
    return functional.adaptive_avg_pool2d(to_unit_range(images), (height, width)).flatten(1)
