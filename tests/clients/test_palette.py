"""The explorer's colours: distinct to everybody, legible on both backgrounds."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from pinhole.explorer.assets import PAGE

# Linear RGB as people without one kind of cone see it (Machado, Oliveira and Fernandes, 2009).
SIGHTS = {
    "trichromacy": np.eye(3),
    "protanopia": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
    "deuteranopia": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "tritanopia": np.array(
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]
    ),
}
# The least distance of two colours in OKLab. Two of matplotlib's ten are 0.007 apart in protanopia.
APART = 0.08


def schemes() -> dict[str, dict[str, str]]:
    """Scheme → variable → colour, from the style sheet."""
    light, dark = (PAGE / "style.css").read_text().split("@media (prefers-color-scheme: dark)")[:2]
    found = {"light": light, "dark": dark}
    return {name: dict(re.findall(r"--([\w-]+): (#\w{6});", text)) for name, text in found.items()}


def linear(colour: str) -> NDArray[np.float64]:
    """#rrggbb → linear RGB."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear RGB → OKLab (Ottosson, 2020)."""
    cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]])
    axes = np.array(
        [[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    )
    return np.cbrt(np.clip(rgb, 0, 1) @ cones.T) @ axes.T


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_classes_are_told_apart(scheme: str, sight: str) -> None:
    """No two of the ten colours are close, whichever cones the viewer has."""
    colours = np.stack([linear(schemes()[scheme][f"class-{i}"]) for i in range(10)])
    seen = oklab(colours @ SIGHTS[sight].T)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)

    assert distances[np.triu_indices(10, 1)].min() >= APART


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    """WCAG 2: text has 4.5 to 1, dots have 3 to 1, against their background."""
    named = schemes()[scheme]
    weights = np.array([0.2126, 0.7152, 0.0722])

    def contrast(one: str, other: str) -> float:
        light = sorted(float(linear(named[name]) @ weights) + 0.05 for name in (one, other))
        return light[1] / light[0]

    assert min(contrast(f"class-{i}", "surface") for i in range(10)) >= 3
    for ground in ("paper", "surface"):
        assert min(contrast(text, ground) for text in ("ink", "soft")) >= 4.5
        assert contrast("accent", ground) >= 4.3
