"""Muon: an optimiser for the weights of convolutions (Jordan et al. 2024).

A gradient moves a weight matrix mostly in a few directions. Muon moves it by about the same length
in all directions: of every update, it replaces the singular values by values near 1. For this it
needs no singular value decomposition, only a few products of small matrices.

torch.optim.Muon takes matrices only, rounds them to bf16, which is slow on processors without it,
and can't be recorded as a CUDA graph.
"""

from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
# Coefficients of the polynomial a·x + b·x³ + c·x⁵. Applied five times, it brings every x from 0.01
# to 1 to between 0.7 and 1.2 (Jordan et al. 2024).
POLYNOMIAL = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
SMALLEST_NORM = 1e-7  # a gradient of 0 stays 0


class Muon(torch.optim.Optimizer):
    """Stochastic gradient descent with Nesterov's momentum and evened updates.

    Args:
        groups: weights of convolutions, all of one shape, each with its ``lr`` and its
            ``weight_decay``; a weight is updated as a matrix of as many rows as its first axis has,
            which must be no more than the matrix has columns. A learning rate that is a tensor can
            be refilled between replays of a CUDA graph.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure
        """Update every weight by its gradient; all at once, as the matrices are small."""
        updates = []
        for group in self.param_groups:
            for weight in group["params"]:
                state, gradient = self.state[weight], weight.grad
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                updates.append(gradient.lerp(momentum, MOMENTUM).flatten(1))
        even = iter(evened(torch.stack(updates)))
        for group in self.param_groups:
            for weight in group["params"]:
                if group["weight_decay"]:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(group["lr"] * next(even).view(weight.shape))


def evened(matrices: Tensor) -> Tensor:
    """float[..., A, B], A ≤ B, with the same singular vectors, and every singular value near 1."""
    a, b, c = POLYNOMIAL
    norms = torch.linalg.matrix_norm(matrices, keepdim=True)
    matrices = matrices / (norms + SMALLEST_NORM)  # now no singular value is above 1
    for _ in range(ITERATIONS):
        squares = matrices @ matrices.mT
        matrices = a * matrices + (b * squares + c * squares @ squares) @ matrices
    return matrices
