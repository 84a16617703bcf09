"""The decoder again, in convolutions: the same numbers up to summation order, faster.

Runtimes execute a transposed convolution as a matrix product and a scatter, image by image. It is
a plain convolution in disguise: of stride 1, with its kernel turned around; of stride 2 (kernel 3,
padding 1), as four convolutions on the small grid, one for each *phase* of the doubled grid (even
or odd row, even or odd column; Dumoulin & Visin 2016, chapter 4), none of which has a tap that is
always zero.

Interleaving the phases into one large picture is memory traffic that costs what the convolutions
save. So the widest layer stays in phases: LeakyReLU doesn't mind, and the last convolution is
rewritten to read and write phases itself (three quarters of its kernel are zeros: it is small).
Only its few channels are interleaved. docs/benchmarks.md compares the forms.

A tensor in phases is float[N, 4·C, H, W] for float[N, C, 2·H, 2·W]: channel (2·a + b)·C + c holds
the pixels (2·y + a, 2·x + b) of channel c.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.model import Decoder

# Along one axis: phase → {offset on the small grid: tap of the kernel that meets it}.
# Transposed, an input pixel i adds tap k to the output pixel 2·i + k − 1.
DOUBLING_TAPS = ({0: 1}, {0: 2, 1: 0})


def faster(decoder: Decoder) -> nn.Module:
    """The decoder rewritten, or as it is where 4 doesn't divide the image's size.

    There a doubling is cut short by a row and a column, and its phases are not of one size.
    """
    return ConvolutionalDecoder(decoder).eval() if decoder.image_size % 4 == 0 else decoder


class ConvolutionalDecoder(nn.Module):
    """``train.model.Decoder`` without transposed convolutions.

    Args:
        decoder: of an image size that 4 divides, so that both doublings are exact.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        first, second, third, last = (
            layer for layer in decoder.convolutions if isinstance(layer, nn.ConvTranspose2d)
        )
        slopes = [layer for layer in decoder.convolutions if isinstance(layer, nn.LeakyReLU)]
        self.from_embedding = decoder.from_embedding
        self.unflatten = decoder.unflatten
        self.first = turned(first)
        self.second = Doubling(second)
        self.third = Doubling(third)
        self.last = on_phases(turned(last))
        self.activation = slopes[0]

    def forward(self, z: Tensor) -> Tensor:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        small = self.activation(self.first(self.unflatten(self.from_embedding(z))))
        middle = interleave(self.activation(self.second(small)))
        phases = self.activation(self.third(middle))
        logits = interleave(self.last(phases))
        return logits.float().sigmoid()


class Doubling(nn.Module):
    """A transposed convolution of stride 2: float[N, C, H, W] → its result in phases."""

    def __init__(self, transposed: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.even_even = phase_of(transposed, 0, 0)
        self.even_odd = phase_of(transposed, 0, 1)
        self.odd_even = phase_of(transposed, 1, 0)
        self.odd_odd = phase_of(transposed, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Past the last row and column there is nothing: they are padded with zeros."""
        return torch.cat(
            [
                self.even_even(x),
                self.even_odd(functional.pad(x, (0, 1, 0, 0))),
                self.odd_even(functional.pad(x, (0, 0, 0, 1))),
                self.odd_odd(functional.pad(x, (0, 1, 0, 1))),
            ],
            dim=1,
        )


def interleave(phases: Tensor) -> Tensor:
    """float[N, 4·C, H, W] in phases → float[N, C, 2·H, 2·W]."""
    count, channels, height, width = phases.shape
    split = phases.reshape(count, 2, 2, channels // 4, height, width)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // 4, 2 * height, 2 * width)


@torch.no_grad()
def turned(transposed: nn.ConvTranspose2d) -> nn.Conv2d:
    """The convolution that a transposed one of stride 1 is."""
    return convolution(transposed.weight.flip(2, 3).transpose(0, 1), transposed.bias, padding=1)


@torch.no_grad()
def phase_of(transposed: nn.ConvTranspose2d, row: int, column: int) -> nn.Conv2d:
    """The convolution that gives one phase of a transposed one of stride 2."""
    rows, columns = DOUBLING_TAPS[row], DOUBLING_TAPS[column]
    kernel = transposed.weight[:, :, list(rows.values())][:, :, :, list(columns.values())]
    return convolution(kernel.transpose(0, 1), transposed.bias, padding=0)


@torch.no_grad()
def on_phases(large: nn.Conv2d) -> nn.Conv2d:
    """The convolution (kernel 3, padding 1) on phases that ``large`` is on the doubled grid."""
    out, channels = large.weight.shape[:2]
    kernel = large.weight.new_zeros(2, 2, out, 2, 2, channels, 3, 3)
    for row, column, y, x in torch.cartesian_prod(*map(torch.arange, (2, 2, 3, 3))).tolist():
        down, right = row + y - 1, column + x - 1  # where tap (y, x) looks, on the doubled grid
        kernel[row, column, :, down % 2, right % 2, :, down // 2 + 1, right // 2 + 1] = (
            large.weight[:, :, y, x]
        )
    return convolution(kernel.reshape(4 * out, 4 * channels, 3, 3), large.bias.repeat(4), padding=1)


def convolution(kernel: Tensor, bias: Tensor, padding: int) -> nn.Conv2d:
    """A convolution of stride 1 with these weights: kernel float[out, in, kh, kw]."""
    out, channels, height, width = kernel.shape
    layer = nn.Conv2d(channels, out, (height, width), padding=padding, dtype=kernel.dtype)
    layer.weight.copy_(kernel)
    layer.bias.copy_(bias)
    return layer
