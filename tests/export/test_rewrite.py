"""The decoder without transposed convolutions is the same decoder."""

import pytest
import torch
from torch import nn

from export.rewrite import ConvolutionalDecoder, faster, interleave
from train.config import TrainConfig
from train.model import Decoder


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (2, 8)])
def test_rewritten_decoder_gives_the_same_pixels(seed: int, channels: int, size: int) -> None:
    """For random weights, channels and sizes, up to summation order."""
    torch.manual_seed(seed)
    config = TrainConfig(input_dim=channels, image_size=size, hidden_dim=16, output_dim=3)
    decoder = Decoder(config).double()  # so that summation order is no excuse
    for weights in decoder.parameters():
        nn.init.normal_(weights, std=0.2)
    z = torch.randn(5, 3, dtype=torch.float64)

    with torch.inference_mode():
        expected = decoder(z)
        actual = faster(decoder)(z)

    assert isinstance(faster(decoder), ConvolutionalDecoder)
    assert actual.shape == (5, channels, size, size)
    assert expected.std() > 0.05  # no picture of one shade
    assert (actual - expected).abs().max() < 1e-6  # the sigmoid is float32's


def test_odd_sizes_are_left_as_they_are() -> None:
    """4 doesn't divide 27: its phases are not of one size."""
    decoder = Decoder(TrainConfig(image_size=27))

    assert faster(decoder) is decoder


def test_interleaving_puts_phases_in_place() -> None:
    """Channel 2·a + b of a coarse pixel becomes its fine pixel (a, b)."""
    phases = torch.arange(4.0).reshape(1, 4, 1, 1)

    assert interleave(phases).tolist() == [[[[0, 1], [2, 3]]]]
