"""What changes from step to step of a run: the learning rate, the warping, the pull to the map."""

import math

from train.config import TrainConfig

WARPED_SHARE = 0.8  # share of the images that is warped before any fading; the rest stays sharp


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of step ``step`` of ``steps``.

    It warms up first. Then it is constant, or falls along half a cosine to 0.
    """
    warmup = min(config.warmup_steps, steps // 20)  # a short run is not all warm-up
    share = min(1.0, (step + 1) / (warmup + 1))
    if config.schedule == "cosine":
        share *= (1 + math.cos(math.pi * step / steps)) / 2
    return config.learning_rate * share


def warped_share(config: TrainConfig, step: int, steps: int) -> float:
    """The share of the images that step ``step`` of ``steps`` warps."""
    left = 1 - step / steps
    return WARPED_SHARE * min(1.0, left / config.augment_fade if config.augment_fade else 1.0)


def pull(config: TrainConfig, step: int, steps: int) -> float:
    """How strongly step ``step`` of ``steps`` draws embeddings to their places on the map.

    It falls evenly from ``config.layout`` to 0.
    """
    return config.layout * (1 - step / steps)
