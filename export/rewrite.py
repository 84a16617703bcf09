"""The decoder rewritten with plain convolutions: the same numbers up to summation order, faster.

Runtimes execute a transposed convolution as a matrix product and a scatter, image by image. But
plain convolutions can compute a transposed convolution. With stride 1 it is a single plain
convolution with the kernel turned around. With stride 2 (kernel 3, padding 1) it is four plain
convolutions on the small grid, one for each *phase* of the doubled grid (even or odd row, even or
odd column; Dumoulin & Visin 2016, chapter 4). None of the four has a tap that is always zero.

Interleaving the phases into a large picture is memory traffic that costs what the convolutions
save. So the widest layer stays in phases: LeakyReLU works on each number alone, and the last
convolution is rewritten to read and write phases. Three quarters of the rewritten kernel are zeros,
which is cheap because the layer has few output channels. Only these few channels are interleaved.
docs/benchmarks.md compares the forms.

A tensor in phases is float[N, 4·C, H, W] for float[N, C, 2·H, 2·W]: channel (2·a + b)·C + c holds
the pixels (2·y + a, 2·x + b) of channel c.

If you change ``Decoder`` in train/model.py, change LAYERS and ``ConvolutionalDecoder`` here:
``faster`` refuses a decoder with other layers. What ``Decoder.forward`` does between the layers is
not checked here: export/parity.py compares the results.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import ExportError
from train.model import Decoder

TRANSPOSED = {"kernel_size": (3, 3), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
SAME_SIZE = TRANSPOSED | {"stride": (1, 1), "output_padding": (0, 0)}
DOUBLING = TRANSPOSED | {"stride": (2, 2), "output_padding": (1, 1)}

# Every module of the decoder that can be rewritten, by name, with its hyperparameters.
LAYERS: dict[str, tuple[type[nn.Module], dict[str, object]]] = {
    "from_embedding": (nn.Linear, {}),
    "unflatten": (nn.Unflatten, {}),
    "convolutions": (nn.Sequential, {}),
    "convolutions.0": (nn.ConvTranspose2d, SAME_SIZE),
    "convolutions.1": (nn.LeakyReLU, {}),
    "convolutions.2": (nn.ConvTranspose2d, DOUBLING),
    "convolutions.3": (nn.LeakyReLU, {}),
    "convolutions.4": (nn.ConvTranspose2d, DOUBLING),
    "convolutions.5": (nn.LeakyReLU, {}),
    "convolutions.6": (nn.ConvTranspose2d, SAME_SIZE),
}

# A transposed convolution of stride 2 adds tap k of input pixel i to output pixel 2·i + k − 1.
# Along an axis, this gives for each phase: {offset on the small grid: tap of the kernel}.
DOUBLING_TAPS = ({0: 1}, {0: 2, 1: 0})


def faster(decoder: Decoder) -> nn.Module:
    """The decoder rewritten, or as it is if 4 doesn't divide the image's size.

    If 4 doesn't divide the size, a doubling is cut short by a row and a column, and its phases
    differ in size.

    Raises:
        ExportError: the decoder has a layer that can't be rewritten.
    """
    if decoder.image_size % 4:
        return decoder
    check_layers(decoder)
    return ConvolutionalDecoder(decoder).eval()


def check_layers(decoder: Decoder) -> None:
    """Raise ExportError unless the decoder's modules are exactly those of LAYERS."""
    modules = dict(decoder.named_modules(remove_duplicate=False))
    del modules[""]  # the decoder itself
    for name, module in modules.items():
        kind, hyperparameters = LAYERS.get(name, (None, {}))
        if type(module) is not kind:
            raise cannot_rewrite(f"decoder.{name} ({type(module).__name__})")
        for key, value in hyperparameters.items():
            if getattr(module, key) != value:
                found = f"{kind.__name__} with {key} {getattr(module, key)}, not {value}"
                raise cannot_rewrite(f"decoder.{name} ({found})")
    for name in LAYERS.keys() - modules.keys():
        raise cannot_rewrite(f"a decoder without decoder.{name}")


def cannot_rewrite(what: str) -> ExportError:
    """The error that says what can't be rewritten, and what to do about that."""
    return ExportError(
        f"can't rewrite {what}: teach export/rewrite.py this layer, or let faster() in "
        "export/rewrite.py return the decoder as it is"
    )


class ConvolutionalDecoder(nn.Module):
    """``train.model.Decoder`` without transposed convolutions.

    Args:
        decoder: has passed ``check_layers``; 4 divides its image size, so both doublings are exact.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        layers = list(decoder.convolutions)
        first, second, third, last = (
            layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)
        )
        activations = [layer for layer in layers if isinstance(layer, nn.LeakyReLU)]
        self.from_embedding = decoder.from_embedding
        self.unflatten = decoder.unflatten
        self.first = nn.Sequential(turned(first), activations[0])
        self.second = nn.Sequential(Doubling(second), activations[1])
        self.third = nn.Sequential(Doubling(third), activations[2])
        self.last = on_phases(turned(last))

    def forward(self, z: Tensor) -> Tensor:
        """float32[N, D] → float32[N, C, H, W] in [0, 1]."""
        small = self.first(self.unflatten(self.from_embedding(z)))
        middle = interleave(self.second(small))
        logits = interleave(self.last(self.third(middle)))
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
        """An odd phase also reads the next row or column; past the last, these are zeros."""
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


def turned(transposed: nn.ConvTranspose2d) -> nn.Conv2d:
    """The plain convolution that equals a transposed convolution of stride 1."""
    kernel = transposed.weight.flip(2, 3).transpose(0, 1)
    return convolution(kernel, bias_of(transposed), padding=1)


def phase_of(transposed: nn.ConvTranspose2d, row: int, column: int) -> nn.Conv2d:
    """The plain convolution that computes a phase of a transposed convolution of stride 2."""
    rows, columns = DOUBLING_TAPS[row], DOUBLING_TAPS[column]
    kernel = transposed.weight[:, :, list(rows.values())][:, :, :, list(columns.values())]
    return convolution(kernel.transpose(0, 1), bias_of(transposed), padding=0)


@torch.no_grad()
def on_phases(large: nn.Conv2d) -> nn.Conv2d:
    """The convolution (kernel 3, padding 1) that does on phases what ``large`` does on the grid."""
    out, channels = large.weight.shape[:2]
    kernel = large.weight.new_zeros(2, 2, out, 2, 2, channels, 3, 3)
    for row, column, y, x in torch.cartesian_prod(*map(torch.arange, (2, 2, 3, 3))).tolist():
        down, right = row + y - 1, column + x - 1  # where tap (y, x) looks, on the doubled grid
        kernel[row, column, :, down % 2, right % 2, :, down // 2 + 1, right // 2 + 1] = (
            large.weight[:, :, y, x]
        )
    kernel = kernel.reshape(4 * out, 4 * channels, 3, 3)
    return convolution(kernel, bias_of(large).repeat(4), padding=1)


def bias_of(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """float[out]; zeros for a layer without a bias."""
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias


def convolution(kernel: Tensor, bias: Tensor, padding: int) -> nn.Conv2d:
    """A convolution of stride 1 with these weights: kernel float[out, in, kh, kw]."""
    out, channels, height, width = kernel.shape
    layer = nn.Conv2d(channels, out, (height, width), padding=padding, dtype=kernel.dtype)
    layer.load_state_dict({"weight": kernel, "bias": bias})
    return layer
