"""Shapes and ranges of the network."""

import pytest
import torch

from train.config import TrainConfig
from train.loop import start_from_mean
from train.model import Autoencoder


@pytest.mark.parametrize("size", [4, 25, 28, 33])
@pytest.mark.parametrize(("channels", "width"), [(1, 2), (3, 5)])
def test_reconstructions_have_the_images_shape(size: int, channels: int, width: int) -> None:
    """Reconstructions have the images' shape, odd sizes included."""
    config = TrainConfig(hidden_dim=4, input_dim=channels, output_dim=width, image_size=size)
    model = Autoencoder(config)
    images = torch.randint(0, 256, (3, channels, size, size), dtype=torch.uint8)

    embeddings, reconstructions = model.encode(images), model(images)

    assert embeddings.shape == (3, width)
    assert reconstructions.shape == images.shape
    assert reconstructions.dtype == torch.float32
    assert 0 <= reconstructions.min() <= reconstructions.max() <= 1
    assert torch.equal(reconstructions, model.decode(embeddings))


def test_seed_network_has_the_seeds_size() -> None:
    """Eight convolutions of 64 channels and two linear layers: 238,467 numbers."""
    model = Autoencoder(TrainConfig())

    assert sum(part.numel() for part in model.parameters()) == 238_467


def test_untrained_model_answers_with_the_mean() -> None:
    """Training starts from the mean pixel, not from grey."""
    torch.manual_seed(0)  # one network in a hundred is further from the mean
    model = Autoencoder(TrainConfig(hidden_dim=8))
    images = torch.full((10, 1, 28, 28), 51, dtype=torch.uint8)  # 51 / 255 = 0.2

    start_from_mean(model, images)

    assert model(images).mean().item() == pytest.approx(0.2, abs=0.03)
