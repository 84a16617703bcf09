"""The anomaly score: its arithmetic, and how it ranks real digits and other images."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pinhole.commands import embed
from serve.bundle.engine.opening import open_engine
from serve.bundle.manifest import Bundle, Calibration
from serve.bundle.score import OUTLIER_PERCENTILE, is_outside, percentile
from serve.service import Service
from serve.wire.message import Message
from serve.wire.npy import write_npy
from train.dataset import Dataset

from .conftest import fields, file, png

SAMPLE = 300  # images: enough for an AUROC to two decimals
CALIBRATION = Calibration(
    mse_quantiles=np.linspace(0.01, 0.02, 101).tolist(),
    relative_quantiles=np.linspace(0.1, 0.2, 101).tolist(),
    embedding_min=[-1.0, -2.0],
    embedding_max=[1.0, 2.0],
)
NAN = float("nan")
MIDDLE = np.zeros(2, np.float32)


def score(bundle: Bundle, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """mse, percentile and outlier of uint8[N, 1, 28, 28], as the service replies them."""
    message = Message(write_npy(images), {"content-type": "application/x-npy"})
    (reply,) = Service(bundle, open_engine(bundle, device="cpu")).reconstruct([message])
    answer = json.loads(reply.body)
    rows = answer["anomaly"]
    return {"mse": np.array(answer["mse"])} | {
        key: np.array([row[key] for row in rows], float) for key in ("percentile", "outlier")
    }


def auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """The chance that something unknown scores higher than something known."""
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    return float(roc_auc_score(truth, np.concatenate([known, unknown])))


@pytest.fixture(scope="module")
def real_digits(mnist: Dataset) -> NDArray[np.uint8]:
    """Test digits from all over the test set: its first half is neater than its second."""
    return mnist.test_images[:: len(mnist.test_images) // SAMPLE][:SAMPLE].numpy()


@pytest.fixture(scope="module")
def strangers(real_digits: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Kind → as many images as there are digits, which look like no digit."""
    random = np.random.default_rng(0)
    pixels = real_digits.reshape(len(real_digits), -1)
    return {
        "inverted": 255 - real_digits,
        "noise": random.integers(0, 256, real_digits.shape, np.uint8),
        "shuffled": random.permuted(pixels, axis=1).reshape(real_digits.shape),
    }


@pytest.mark.parametrize("kind", ["inverted", "noise", "shuffled"])
def test_strangers_rank_above_digits(
    shipped_bundle: Bundle,
    real_digits: NDArray[np.uint8],
    strangers: dict[str, NDArray[np.uint8]],
    kind: str,
) -> None:
    """Images unlike digits rank higher by mse and percentile, and nine in ten are outliers."""
    known, unknown = score(shipped_bundle, real_digits), score(shipped_bundle, strangers[kind])

    assert auroc(known["mse"], unknown["mse"]) > 0.95
    assert auroc(known["percentile"], unknown["percentile"]) > 0.95
    assert unknown["outlier"].mean() > 0.9


def test_few_digits_are_outliers(shipped_bundle: Bundle, real_digits: NDArray[np.uint8]) -> None:
    """One digit in 100 is an outlier by design; over 9 of 300 have a chance of under 1 in 500."""
    assert score(shipped_bundle, real_digits)["outlier"].mean() <= 0.03


def test_other_handwriting_is_known(shipped_bundle: Bundle, digits: Dataset) -> None:
    """Digits from other hands and another scanner are digits: few of them are outliers."""
    assert score(shipped_bundle, digits.test_images.numpy())["outlier"].mean() < 0.05


@pytest.mark.parametrize(
    ("mse", "expected"),
    [
        (0.0, 0.0),
        (0.1, 0.0),
        (0.15, 50.0),
        (0.1505, 50.5),
        (0.2, 100.0),
        (0.9, 100.0),
        (NAN, 100.0),
    ],
)
def test_percentile_is_read_off_the_quantiles(mse: float, expected: float) -> None:
    """The percentile is interpolated between quantiles, and is 0 below all and 100 above all.

    An error that overflowed is above all.
    """
    assert percentile(mse, CALIBRATION) == pytest.approx(expected)


@pytest.mark.parametrize(("rank", "expected"), [(0.0, False), (99.0, False), (99.1, True)])
def test_top_percent_is_an_outlier(
    service: Service, monkeypatch: pytest.MonkeyPatch, rank: float, expected: bool
) -> None:
    """An image amid the others on the map is an outlier only above the 99th percentile."""
    monkeypatch.setattr("serve.service.score_each", lambda *_: [(0.1, rank, False)])

    (reply,) = service.reconstruct([file(png(51))])

    assert fields(reply)["anomaly"] == {"percentile": rank, "outlier": expected}


def test_jobs_have_the_same_threshold() -> None:
    """The client, which imports nothing of a server's, repeats it."""
    assert embed.OUTLIER_PERCENTILE == OUTLIER_PERCENTILE


@pytest.mark.parametrize(
    ("embedding", "expected"),
    [
        ([1, 2], False),
        ([-1, -2], False),
        ([1.01, 0], True),
        ([0, -2.01], True),
        ([-9, 9], True),
        ([NAN, 0], True),
    ],
)
def test_beyond_the_map_is_an_outlier(embedding: list[float], expected: bool) -> None:
    """An embedding outside the bounds is an outlier whatever its mse; on a bound it is not."""
    assert is_outside(np.array(embedding, np.float32), CALIBRATION) is expected
