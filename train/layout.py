"""A map to start from: t-SNE tells the encoder which images belong side by side.

Left alone, an autoencoder of two numbers settles early for the map that its first steps happened to
draw, and crowds unlike digits into a corner of that map. t-SNE (van der Maaten & Hinton 2008) draws
a far better map, but only of the images it was given. So training pulls every embedding towards its
image's place on the t-SNE map. The pull fades, and the last steps follow the reconstruction error
alone. docs/experiments.md shows what this is worth.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from train.config import WIDEST_MAP
from train.model import to_unit_range

SAMPLE = 60_000  # most images on the map: t-SNE's time and memory grow with their number
SIDE = 32  # pixels; larger images are shrunk, as neighbours don't depend on the finest strokes
SHRUNK_AT_ONCE = 500  # images
FEWEST = 4  # fewest images that make a map
PERPLEXITY = 50  # about as many neighbours as each image is held to
PCA_COMPONENTS = 50  # t-SNE starts from so many principal components of the pixels
EXAGGERATED_ITERATIONS = 250  # t-SNE's first phase, early exaggeration
ITERATIONS = 400  # t-SNE's second phase
PROGRESS_EVERY = 10  # iterations between two calls of on_progress


def lay_out(images: Tensor, width: int, seed: int, on_progress: Callable[[float], None]) -> Tensor:
    """Place every image on a map of its neighbours.

    Args:
        images: uint8[N, C, H, W], on the CPU.
        width: D, numbers per place; t-SNE draws in at most WIDEST_MAP.
        seed: decides the sample and the map.
        on_progress: called every now and then with the share that is done, 0 to 1.

    Returns:
        float32[N, D] of mean 0 and standard deviation 1. An image without a place has NaN: images
        beyond SAMPLE, and every image if there are fewer than FEWEST or if D is over WIDEST_MAP.
    """
    random = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(images), generator=random)[:SAMPLE]
    places = torch.full((len(images), width), torch.nan)
    if len(sample) >= FEWEST and width <= WIDEST_MAP:
        parts = torch.split(images[sample], SHRUNK_AT_ONCE)
        pixels = torch.cat([shrink(part) for part in parts]).numpy()
        drawn = draw_map(pixels, width, seed, on_progress)
        places[sample] = torch.from_numpy((drawn - drawn.mean(0)) / drawn.std(0))
    return places


def shrink(images: Tensor) -> Tensor:
    """uint8[N, C, H, W] → float32[N, pixels], averaged down to SIDE at most."""
    height, width = (min(SIDE, side) for side in images.shape[2:])
    return functional.adaptive_avg_pool2d(to_unit_range(images), (height, width)).flatten(1)


def draw_map(
    pixels: NDArray[np.float32], width: int, seed: int, on_progress: Callable[[float], None]
) -> NDArray[np.float32]:
    """t-SNE of float32[N, pixels] → places float32[N, D], at t-SNE's own scale."""
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    total, done = EXAGGERATED_ITERATIONS + ITERATIONS, 0

    def report_progress(*_: object) -> None:
        nonlocal done
        done += PROGRESS_EVERY
        on_progress(min(1.0, done / total))

    pca = PCA(min(PCA_COMPONENTS, *pixels.shape), random_state=seed % 2**32)
    tsne = TSNE(
        n_components=width,
        perplexity=min(PERPLEXITY, (len(pixels) - 1) / 3),
        early_exaggeration_iter=EXAGGERATED_ITERATIONS,
        n_iter=ITERATIONS,
        n_jobs=torch.get_num_threads(),
        random_state=seed % 2**32,  # numpy takes no more
        callbacks=report_progress,
        callbacks_every_iters=PROGRESS_EVERY,
    )
    return np.asarray(tsne.fit(pca.fit_transform(pixels)), np.float32)
