"""The t-SNE map that embeddings are pulled towards."""

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from train.config import WIDEST_MAP, TrainConfig
from train.dataset import Dataset
from train.layout import FEWEST, lay_out
from train.loop import Trainer
from train.step import HUBER_BETA, distance


def test_map_puts_like_beside_like(digits: Dataset) -> None:
    """Neighbours on the map show the same digit, the scale is 1, and progress reaches the end."""
    shares: list[float] = []

    places = lay_out(digits.train_images[:300], 2, 0, shares.append)

    assert places.shape == (300, 2)
    assert places.std(0).numpy() == pytest.approx([1, 1], rel=1e-2)
    labels = digits.train_labels[:300].numpy()
    alike = KNeighborsClassifier(5).fit(places[:200], labels[:200])
    assert alike.score(places[200:], labels[200:]) > 0.8  # 0.1 by chance
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_any_seed_draws_a_map(digits: Dataset) -> None:
    """A seed that is more than numpy takes is no error."""
    assert not lay_out(digits.train_images[:20], 2, 5_000_000_000, lambda share: None).isnan().any()


def test_images_beyond_the_sample_have_no_place(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images beyond SAMPLE have no place; too few images or too wide a map give no places."""
    monkeypatch.setattr("train.layout.SAMPLE", 20)

    places = lay_out(digits.train_images[:50], 2, 0, lambda share: None)

    assert places.isnan().any(1).sum() == 30
    assert lay_out(digits.train_images[: FEWEST - 1], 2, 0, lambda share: None).isnan().all()
    assert lay_out(digits.train_images[:50], WIDEST_MAP + 1, 0, lambda share: None).isnan().all()


def test_images_without_a_place_are_not_pulled() -> None:
    """An image without a place has a loss and a gradient of 0; an image with a place has not."""
    z = torch.tensor([[3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    places = torch.tensor([[3.0, 2.0], [torch.nan, torch.nan]])

    distance(z, places).backward()

    assert distance(z, places).item() == pytest.approx((2 - HUBER_BETA / 2) / 4)
    assert z.grad is not None
    assert z.grad.tolist() == [[0, 0.25], [0, 0]]


def test_pull_shapes_the_embedding(digits: Dataset) -> None:
    """A stronger pull leaves embeddings nearer to their places on the map."""
    gaps = []
    for layout in (0.01, 10.0):
        config = TrainConfig(
            hidden_dim=4, dataset="digits", epochs=2, learning_rate=3e-3, layout=layout
        )
        trainer = Trainer(config, digits)
        for _ in range(config.epochs):
            trainer.run_epoch(lambda count: None)
        places = trainer.lay_out(lambda share: None)
        with torch.inference_mode():
            gaps.append(distance(trainer.model.encode(digits.train_images), places).item())

    assert gaps[1] < gaps[0] / 2
