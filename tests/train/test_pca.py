"""PCA in chunks, with which models are compared."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from train.dataset import Dataset
from train.pca import fit_pca

# How much memory PCA takes beside its images, in MB: 4,000 colour pictures of 64 x 64 are 49 MB.
PEAK = """
import resource, torch
from train.pca import fit_pca
images = torch.randint(0, 256, (4_000, 3, 64, 64), dtype=torch.uint8)
fit_pca(images[:100], 2)  # the libraries' own memory
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fit_pca(images, 2)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("components", [2, 16])
def test_pca_is_scikit_learns(
    digits: Dataset, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errors and the spectrum are those of scikit-learn's exact PCA, in however many chunks."""
    monkeypatch.setattr("train.pca.CHUNK", 100 * 784)
    train, test = (
        (part.flatten(1).double() / 255).numpy()
        for part in (digits.train_images, digits.test_images)
    )
    exact = PCA(components, svd_solver="full").fit(train)

    pca = fit_pca(digits.train_images, components)

    as_mean, as_pca = pca.errors(digits.test_images, components)
    restored = exact.inverse_transform(exact.transform(test))
    assert as_pca.numpy() == pytest.approx(((restored - test) ** 2).mean(1), rel=1e-3)
    assert as_pca.mean().item() == pytest.approx(((restored - test) ** 2).mean(), rel=1e-4)
    assert as_mean.numpy() == pytest.approx(((train.mean(0) - test) ** 2).mean(1), rel=1e-5)
    shares = exact.explained_variance_ratio_.cumsum()
    assert pca.kept(digits.train_images)[:components].numpy() == pytest.approx(shares, rel=1e-4)


def test_few_images_keep_less_of_others_than_of_themselves() -> None:
    """40 images of noise lie on 40 axes, which say next to nothing of other noise."""
    noise = torch.Generator().manual_seed(0)
    seen, unseen = torch.randint(0, 256, (2, 40, 1, 28, 28), generator=noise, dtype=torch.uint8)

    pca = fit_pca(seen, 2)

    assert pca.kept(seen)[-1] > 0.99
    assert pca.kept(unseen)[-1] < 0.1


def test_images_that_are_all_alike_have_a_pca() -> None:
    """Without variance nothing is lost, and nothing is divided by 0."""
    images = torch.full((20, 1, 8, 8), 100, dtype=torch.uint8)

    pca = fit_pca(images, 2)

    assert torch.cat(pca.errors(images, 2)).numpy() == pytest.approx(np.zeros(40), abs=1e-12)
    assert (pca.kept(images) == 1).all()


def test_pca_takes_little_memory() -> None:
    """Its images are never in memory as floats, which would take 197 MB."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)

    assert float(done.stdout) < 100
