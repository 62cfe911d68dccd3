# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Correctness-aware scaling with the paper's input: how the model sees transformed images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_losses.calibrators.calibrator import finite, minimise
from lightning_losses.calibrators.correctness_aware import (
    COOLEST,
    HOTTEST,
    TOP,
    WIDTH,
    correctness_loss,
)
from lightning_losses.calibrators.temperature import TemperatureScaling
from lightning_losses.wide_buffers import WideBuffers


def view_features(logits: Tensor, views: Tensor, top: int = TOP) -> Tensor:
    """Probabilities of each view at the classes that the row itself finds likeliest, `(N, V top)`.

    Args:
        logits: `(N, C)` of the rows themselves.
        views: `(N, V, C)` logits of V transformed copies of each; the paper's are rotated, grey and
            colour-jittered images.
        top: how many classes; all where there are fewer.

    Raises:
        ValueError: shapes that do not go together.
    """
    if logits.ndim != 2 or views.ndim != 3 or views[:, 0].shape != logits.shape:
        raise ValueError(
            f"view_features needs logits (N, C) and views (N, V, C), found {tuple(logits.shape)} "
            f"and {tuple(views.shape)}; write torch.stack([model(view) for view in views], 1)"
        )
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    p = finite(views).softmax(-1)
    return p.gather(2, best[:, None, :].expand(-1, views.shape[1], -1)).flatten(1)


def view_temperature(
    features: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    outer_weight: Tensor,
    outer_bias: Tensor,
) -> Tensor:
    """`clamp(outer relu(inner f + b) + b', 0.1, 10)` of features `(N, F)`: `(N,)`, the paper's."""
    hidden = (features @ inner_weight.t() + inner_bias).relu()
    return (hidden @ outer_weight + outer_bias).clamp(COOLEST, HOTTEST)


class CorrectnessAwareViews(WideBuffers):
    """`softmax(z_i / T_i)`, where a small network reads `T_i` off transformed copies of the image.

    "Optimizing Calibration by Gaining Aware of Prediction Correctness", arXiv 2404.13016: where the
    model changes its mind about a rotated or grey copy it is likely to be wrong, which its own
    logits do not tell. The network of the authors' code (ReLU, T clamped to [0.1, 10], from where
    no gradient leads back); fitted by LBFGS from the temperature of `TemperatureScaling`, to
    `correctness_loss` and a small square of its weights. Accuracy does not change.

    Examples:
        >>> logits = torch.tensor([[2.0, -2.0]]).repeat(100, 1)
        >>> target = (torch.arange(100) >= 75).long()
        >>> views = torch.where(target[:, None] == 0, logits, -logits)[:, None]  # one turned copy
        >>> p = CorrectnessAwareViews().fit(logits, target, views)(logits, views)
        >>> bool(p[0, 0] > p[-1, 0])  # less sure where it is wrong
        True
    """

    names: Sequence[str] = ("inner_weight", "inner_bias", "outer_weight", "outer_bias")
    inner_weight: Tensor
    inner_bias: Tensor
    outer_weight: Tensor
    outer_bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in self.names:
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))

    def fit(self, logits: Tensor, target: Tensor, views: Tensor) -> CorrectnessAwareViews:
        """Choose the network by held-out rows, in float64.

        Args:
            logits: `(N, C)`.
            target: `(N,)` int64 classes; rows outside of [0, C), or whose logits or views hold a
                NaN or a +inf, are left out.
            views: `(N, V, C)`, see `view_features`.

        Raises:
            ValueError: shapes do not go together, or no row is left.
        """
        if target.shape != logits.shape[:1]:
            raise ValueError(f"target must be ({len(logits)},) classes, got {tuple(target.shape)}")
        with torch.inference_mode(False), torch.enable_grad():
            z, y, v = (part.detach().clone() for part in (logits, target.long(), views))
            features = view_features(z.double(), v.double())
            keep = (y >= 0) & (y < z.shape[1]) & (z < torch.inf).all(1)
            keep = keep & features.isfinite().all(1)
            z, y, features = finite(z[keep].double()), y[keep], features[keep]
            start = TemperatureScaling().fit(z, y).temperature  # complains where no row is left
            own = torch.Generator().manual_seed(0)  # the global random state is the training's
            inner = torch.randn(WIDTH, features.shape[1], generator=own, dtype=torch.float64)
            # Small but not 0: a ReLU behind weights of 0 has no gradient.
            outer = torch.randn(WIDTH, generator=own, dtype=torch.float64) / 10
            found = {
                "inner_weight": inner.to(z).requires_grad_(),
                "inner_bias": torch.zeros(WIDTH).to(z).requires_grad_(),
                "outer_weight": outer.to(z).requires_grad_(),
                "outer_bias": start.clamp(COOLEST, HOTTEST).reshape(()).requires_grad_(),
            }
            correct = z.argmax(1) == y

            def loss() -> Tensor:
                p = (z / view_temperature(features, **found)[:, None]).softmax(1)
                decay = sum(found[name].square().sum() for name in self.names[:3])
                return correctness_loss(p.amax(1), correct) + 1e-4 * decay

            minimise(loss, list(found.values()))
            for name in self.names:
                setattr(self, name, found[name].detach().double())
        return self

    def forward(self, logits: Tensor, views: Tensor) -> Tensor:
        """Calibrated probabilities `(N, C)`, float32 at least.

        Raises:
            RuntimeError: not fitted.
        """
        if not self.inner_weight.numel():
            raise RuntimeError(
                "CorrectnessAwareViews is not fitted; call fit(logits, target, views) on held-out "
                "rows"
            )
        z = finite(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        numbers = [getattr(self, name).to(z) for name in self.names]
        return (z / view_temperature(view_features(z, views.to(z)), *numbers)[:, None]).softmax(-1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        for name in self.names:  # sizes are only known after a fit
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[arg-type]
