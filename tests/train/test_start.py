"""Training that starts from PCA."""

import pytest
import torch
from torch.nn.functional import interpolate

from train.config import PCA_CHANNELS, TrainConfig
from train.errors import ConfigError
from train.model import Autoencoder, to_unit_range
from train.pca import fit_pca
from train.start import start_from_pca


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 30), (1, 13)])
def test_an_untrained_model_does_what_pca_does(channels: int, size: int) -> None:
    """Its embeddings are PCA's at variance 1, and its error is PCA's, whatever the size."""
    random = torch.Generator().manual_seed(0)
    soft = interpolate(torch.rand(100, channels, 4, 4, generator=random), (size, size))
    images = (soft * 150 + 50).to(torch.uint8)  # the sigmoid is nearly straight between the two
    hidden = PCA_CHANNELS * channels
    config = TrainConfig(input_dim=channels, image_size=size, hidden_dim=hidden, output_dim=3)
    model = Autoencoder(config)
    pca = fit_pca(images, 3)

    start_from_pca(model, pca, images)

    with torch.inference_mode():
        embeddings, drawn = model.encode(images), model(images)
    along = (to_unit_range(images).flatten(1) - pca.mean) @ pca.axes[:, :3]
    assert embeddings == pytest.approx(along / along.std(0, correction=0), abs=1e-3)
    mse = (drawn - to_unit_range(images)).square().mean().item()
    mean_image_mse, pca_mse = (each.mean().item() for each in pca.errors(images, 3))
    assert mse == pytest.approx(pca_mse, rel=0.02)
    assert pca_mse < 0.9 * mean_image_mse


def test_embeddings_may_be_wider_than_pca() -> None:
    """Three images have fewer principal components than the embedding has numbers."""
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    model = Autoencoder(TrainConfig(image_size=8, hidden_dim=16, output_dim=9))

    start_from_pca(model, fit_pca(images, 9), images)

    with torch.inference_mode():
        assert model(images).isfinite().all()


def test_pca_takes_channels() -> None:
    """A network too narrow to start from PCA is refused, with the least width."""
    with pytest.raises(ConfigError, match=r"at least 48 for .* 3 channels; got 47"):
        TrainConfig(start="pca", input_dim=3, hidden_dim=47)
