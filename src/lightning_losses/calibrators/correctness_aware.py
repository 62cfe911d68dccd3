# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Correctness-aware scaling: a temperature for each row, pushed up where the model was wrong."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lightning_losses.calibrators.calibrator import Calibrator, minimise
from lightning_losses.calibrators.temperature import TemperatureScaling

WIDTH, TOP = 5, 4
COOLEST, HOTTEST = 0.1, 10.0


def correctness_loss(confidence: Tensor, correct: Tensor, balanced: bool = True) -> Tensor:
    """Mean of `(confidence - correct)^2` over rows `(N,)`, 0-dim.

    Balanced, right rows weigh `1 - accuracy` and wrong ones `accuracy`, as in the code of arXiv
    2404.13016. Where all rows are right, or all wrong, all those weights are 0, and rows weigh the
    same instead.
    """
    right = correct.to(confidence)
    square = (confidence - right).square()
    if not balanced:
        return square.mean()
    accuracy = right.mean()
    weight = torch.where(correct, 1 - accuracy, accuracy)
    weight = torch.where(weight.sum() > 0, weight, torch.ones_like(weight))
    return (weight * square).sum() / weight.sum()


class CorrectnessAware(Calibrator):
    """`softmax(z_i / T_i)`, where a small network reads `T_i` off the row's top 4 probabilities.

    The aim is that of arXiv 2404.13016: confidence up where the prediction is right, down where it
    is wrong, by `correctness_loss`. The paper's network reads probabilities of transformed images;
    logits are all that is known here, so ours reads those of the row itself, and knows less. It
    starts at the temperature of `TemperatureScaling` and is fitted by LBFGS to the sum of
    `correctness_loss` and a small square of its weights. `T_i` stays within [0.1, 10]; accuracy
    does not change.

    Shapes: `fit` on logits `(N, C)` of any floating dtype and classes `(N,)` int64; logits
    `(..., C)` to probabilities `(..., C)`, float32 at least.

    Raises:
        ValueError: in `fit`, shapes that do not go together, or no row is left.

    Examples:
        >>> logits = torch.tensor([[2.0, -2.0]]).repeat(100, 1)  # 98 % sure, and right in 75 of 100
        >>> target = (torch.arange(100) >= 75).long()
        >>> calibrator = CorrectnessAware().fit(logits, target)
        >>> [round(p, 1) for p in calibrator(logits)[0].tolist()]
        [0.6, 0.4]
    """

    names = ("inner_weight", "inner_bias", "outer_weight", "start")
    inner_weight: Tensor
    inner_bias: Tensor
    outer_weight: Tensor
    start: Tensor

    def solve(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The network's numbers."""
        own = torch.Generator().manual_seed(0)  # the global random state is the training's
        features = min(TOP, logits.shape[1])
        inner = torch.randn(WIDTH, features, generator=own, dtype=torch.float64)
        found = {
            "inner_weight": inner.to(logits).requires_grad_(),
            "inner_bias": torch.zeros(WIDTH).to(logits).requires_grad_(),
            "outer_weight": torch.zeros(WIDTH).to(logits).requires_grad_(),
            "start": TemperatureScaling().fit(logits, target).temperature.log().requires_grad_(),
        }
        correct = logits.argmax(1) == target

        def loss() -> Tensor:
            p = (logits / temperature(logits, **found)).softmax(1)
            decay = sum(value.square().sum() for name, value in found.items() if name != "start")
            return correctness_loss(p.amax(1), correct) + 1e-4 * decay

        minimise(loss, list(found.values()))
        return found

    def apply_to(self, logits: Tensor) -> Tensor:
        """`softmax(logits / temperature)`, a temperature a row."""
        numbers = {name: self.number(name, logits) for name in self.names}
        return (logits / temperature(logits, **numbers)).softmax(-1)


def temperature(
    logits: Tensor, inner_weight: Tensor, inner_bias: Tensor, outer_weight: Tensor, start: Tensor
) -> Tensor:
    """Temperature of each row, `(..., 1)`."""
    top = logits.softmax(-1).topk(inner_weight.shape[1], dim=-1).values
    hidden = functional.softplus(top @ inner_weight.t() + inner_bias)
    raw = start + hidden @ outer_weight
    # A smooth bound: a hard clamp has no slope beyond it, and a row there would never come back.
    middle = (torch.as_tensor(COOLEST).log() + torch.as_tensor(HOTTEST).log()) / 2
    half = (torch.as_tensor(HOTTEST).log() - torch.as_tensor(COOLEST).log()) / 2
    return (middle.to(raw) + half.to(raw) * torch.tanh((raw - middle) / half))[..., None].exp()
