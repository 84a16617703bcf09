"""The decoder without transposed convolutions is the same decoder, or an error."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.rewrite import ConvolutionalDecoder, faster, interleave
from train.config import TrainConfig
from train.model import Decoder


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (2, 8)])
def test_rewritten_decoder_gives_the_same_pixels(seed: int, channels: int, size: int) -> None:
    """For random weights, channels and sizes, up to summation order."""
    torch.manual_seed(seed)
    config = TrainConfig(input_dim=channels, image_size=size, hidden_dim=16, output_dim=3)

    assert_same_pixels(Decoder(config), (channels, size, size))


def assert_same_pixels(decoder: Decoder, shape: tuple[int, ...]) -> None:
    """Compare a decoder of 3 numbers with its rewritten form, with random weights."""
    decoder = decoder.double()  # so that summation order is no excuse
    for weights in decoder.parameters():
        nn.init.normal_(weights, std=0.2)
    z = torch.randn(5, 3, dtype=torch.float64)

    with torch.inference_mode():
        expected = decoder(z)
        actual = faster(decoder)(z)

    assert isinstance(faster(decoder), ConvolutionalDecoder)
    assert actual.shape == (5, *shape)
    assert expected.std() > 0.05  # the picture has more than one shade
    assert (actual - expected).abs().max() < 1e-6  # the sigmoid is computed in float32


SMALL = TrainConfig(image_size=8, hidden_dim=16, output_dim=3)


def test_every_layer_keeps_its_own_slope() -> None:
    """Three LeakyReLUs of three slopes are rewritten as three LeakyReLUs of the same slopes."""
    torch.manual_seed(0)
    decoder = Decoder(SMALL)
    for index, slope in ((1, 0.01), (3, 0.5), (5, 0.9)):
        decoder.convolutions[index] = nn.LeakyReLU(slope)

    assert_same_pixels(decoder, (1, 8, 8))


def test_layers_without_a_bias_are_rewritten() -> None:
    """A transposed convolution without a bias gives the same pixels too."""
    torch.manual_seed(0)
    decoder = Decoder(SMALL)
    for index in (0, 2, 4, 6):
        decoder.convolutions[index].bias = None

    assert_same_pixels(decoder, (1, 8, 8))


def insert(index: int, layer: nn.Module) -> Callable[[Decoder], object]:
    """A change that puts ``layer`` before the layer at ``index``."""
    return lambda decoder: decoder.convolutions.insert(index, layer)


def replace(index: int, layer: nn.Module) -> Callable[[Decoder], object]:
    """A change that puts ``layer`` in the place of the layer at ``index``."""
    return lambda decoder: decoder.convolutions.__setitem__(index, layer)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (insert(1, nn.BatchNorm2d(16)), r"decoder\.convolutions\.1 \(BatchNorm2d\)"),
        (insert(4, nn.Dropout()), r"decoder\.convolutions\.4 \(Dropout\)"),
        (insert(7, nn.LeakyReLU()), r"decoder\.convolutions\.7 \(LeakyReLU\)"),
        (replace(3, nn.ReLU()), r"decoder\.convolutions\.3 \(ReLU\)"),
        (
            replace(2, nn.ConvTranspose2d(16, 16, 5, stride=2, padding=2, output_padding=1)),
            r"decoder\.convolutions\.2 \(ConvTranspose2d with kernel_size \(5, 5\), not \(3, 3\)\)",
        ),
        (
            replace(0, nn.ConvTranspose2d(16, 16, 3, padding=1, groups=2)),
            r"decoder\.convolutions\.0 \(ConvTranspose2d with groups 2, not 1\)",
        ),
        (
            replace(4, nn.ConvTranspose2d(16, 16, 3, stride=1, padding=1)),
            r"decoder\.convolutions\.4 \(ConvTranspose2d with stride \(1, 1\), not \(2, 2\)\)",
        ),
        (
            lambda decoder: decoder.convolutions.pop(6),
            r"a decoder without decoder\.convolutions\.6",
        ),
        (
            lambda decoder: decoder.add_module("norm", nn.LayerNorm(3)),
            r"decoder\.norm \(LayerNorm\)",
        ),
    ],
)
def test_unknown_layers_are_named(change: Callable[[Decoder], object], named: str) -> None:
    """A decoder with any other layer is refused; the message names the layer and the file."""
    decoder = Decoder(SMALL)
    change(decoder)

    with pytest.raises(ExportError, match=rf"can't rewrite {named}: .*export/rewrite\.py"):
        faster(decoder)


def test_odd_sizes_are_left_as_they_are() -> None:
    """4 doesn't divide 27, so the phases differ in size."""
    decoder = Decoder(TrainConfig(image_size=27))

    assert faster(decoder) is decoder


def test_interleaving_puts_phases_in_place() -> None:
    """Channel 2·a + b of a pixel on the small grid becomes pixel (a, b) on the doubled grid."""
    phases = torch.arange(4.0).reshape(1, 4, 1, 1)

    assert interleave(phases).tolist() == [[[[0, 1], [2, 3]]]]
