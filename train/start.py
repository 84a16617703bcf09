"""Training that starts from PCA, the best linear autoencoder, instead of from scratch.

The layers of ``train.model`` can compute PCA exactly, but for the sigmoid at the end. A convolution
of stride 2 sorts the pixels of its input into four times as many channels, as ``pixel_unshuffle``
does, and LeakyReLU leaves alone what isn't negative. So behind the encoder's convolutions every
pixel is still there, and the linear layer forms the principal components. The decoder goes the same
way back. The channels that PCA doesn't need stay random; what they hold is weighted with 0 until
training finds a use for it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.config import PCA_CHANNELS
from train.model import Autoencoder
from train.pca import Pca, centred

# Added to the logits on their way through the decoder, so that they aren't negative where LeakyReLU
# meets them: pixels darker than 0.02 are the exception.
OFFSET = 4.0
# The slope of the sigmoid is taken as at a pixel that is no darker, nor lighter than 1 less this.
DARKEST = 0.1
LEAST_SPREAD = 1e-3  # of a principal component: images that are all alike have none


@torch.no_grad()
def start_from_pca(model: Autoencoder, pca: Pca, images: Tensor) -> None:
    """Let an untrained model embed and decode as PCA does, with embeddings of variance 1.

    Args:
        model: of PCA_CHANNELS hidden channels or more for each channel of the images.
        pca: of ``images``.
        images: uint8[N, C, H, W], on the CPU.
    """
    axes = pca.axes[:, : model.config.output_dim]
    places = torch.cat([part @ axes for part in centred(images, pca.mean)])
    spread = places.std(0, correction=0).clamp(min=LEAST_SPREAD)
    colours = model.config.input_dim
    wide = [colours, 4 * colours, PCA_CHANNELS * colours, PCA_CHANNELS * colours]
    layers = [*model.encoder.convolutions, *model.decoder.convolutions]
    for layer, count in zip(layers[::2], wide + wide[::-1], strict=True):  # not the LeakyReLUs
        pass_pixels(layer, count)
    embed_along(axes / spread, pca.mean, model)
    decode_along(axes * spread, pca.mean, model)


def embed_along(axes: Tensor, mean: Tensor, model: Autoencoder) -> None:
    """Let the encoder's linear layer compute (image - mean) @ axes, float32[P, K].

    If there are fewer axes than the embedding has numbers, the rest are 0.
    """
    cells, linear = in_cells(axes.T, model), model.encoder.to_embedding
    count, kept = cells.shape[:2]
    linear.weight.zero_()
    linear.weight.view(-1, *model.decoder.unflatten.unflattened_size)[:count, :kept] = cells
    linear.bias[:count] = -mean @ axes


def decode_along(axes: Tensor, mean: Tensor, model: Autoencoder) -> None:
    """Let the decoder draw mean + axes @ embedding, as closely as a sigmoid can."""
    middle = mean.clamp(DARKEST, 1 - DARKEST)
    slopes = in_cells((axes / (middle * (1 - middle))[:, None]).T, model)
    logits = in_cells(mean.clamp(0.01, 0.99).logit()[None], model)[0]
    count, kept = slopes.shape[:2]
    linear, grid = model.decoder.from_embedding, model.decoder.unflatten.unflattened_size
    linear.weight.view(*grid, -1)[:kept, ..., :count] = slopes.permute(1, 2, 3, 0)
    linear.bias.view(grid)[:kept] = logits + OFFSET
    model.decoder.convolutions[-1].get_parameter("bias").fill_(-OFFSET)


def pass_pixels(layer: Any, wide: int) -> None:
    """Let a convolution's first channels hand on what they get, pixel by pixel.

    Args:
        layer: a convolution, transposed or not, of stride 1 or 2.
        wide: how many channels carry pixels on the side of the smaller grid, where one of stride 2
            has four times as many.
    """
    step = layer.stride[0]
    # The channels that come out; torch keeps the weights of a transposed convolution transposed.
    if isinstance(layer, nn.ConvTranspose2d):
        carrying = wide // step**2
        layer.weight[:, :carrying] = 0
    else:
        carrying = wide
        layer.weight[:carrying] = 0
    layer.get_parameter("bias")[:carrying] = 0
    for channel in range(wide):
        row, column = channel // step % step, channel % step
        layer.weight[channel, channel // step**2, 1 + row, 1 + column] = 1


def in_cells(values: Tensor, model: Autoencoder) -> Tensor:
    """float32[K, pixels] → float32[K, 16 C, H/4, W/4], sorted as the encoder sorts pixels."""
    size = model.config.image_size
    beyond = -size % 4  # the grid's last cells may lie partly beyond the image
    images = values.reshape(len(values), -1, size, size)
    images = functional.pad(images, (0, beyond, 0, beyond))
    return functional.pixel_unshuffle(functional.pixel_unshuffle(images, 2), 2)
