# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Temperature scaling: one number that divides all logits, at the exact optimum."""

from __future__ import annotations

from torch import Tensor

from lightning_losses.calibrators.calibrator import Calibrator

#: Temperatures searched, [1e-3, 1e3]: where all rows are right the best is 0, where logits are
#: worse than none it is infinite.
LARGEST = 1e3


class TemperatureScaling(Calibrator):
    """`softmax(z / T)` with the `T` of least negative log-likelihood (arXiv 1706.04599).

    The likelihood is convex in `1 / T`, so its slope has one root, which is bracketed and found by
    Newton steps to float64 precision. (The recipe in common use, one LBFGS call at a learning rate
    of 0.01, stops on the way there.) Accuracy does not change. `T` is kept in [1e-3, 1e3]; where
    the likelihood does not depend on it, it is 1.

    Shapes: `fit` on logits `(N, C)` of any floating dtype and classes `(N,)` int64; logits
    `(..., C)` to probabilities `(..., C)`, float32 at least.

    Raises:
        ValueError: in `fit`, shapes that do not go together, or no row is left.

    Examples:
        >>> logits = torch.tensor([[2.0, -2.0]]).repeat(100, 1)  # 98 % sure, and right in 75 of 100
        >>> target = (torch.arange(100) >= 75).long()
        >>> calibrator = TemperatureScaling().fit(logits, target)
        >>> calibrator(logits[:1])
        tensor([[0.7500, 0.2500]])
        >>> round(calibrator.temperature.item(), 4)  # 4 / log 3
        3.641
    """

    names = ("temperature",)
    temperature: Tensor

    def solve(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The optimal temperature, 0-dim."""
        z = logits - logits.amax(1, keepdim=True)
        at_target = z.gather(1, target[:, None]).squeeze(1)
        low, high = z.new_tensor(1 / LARGEST), z.new_tensor(LARGEST)  # of 1 / T
        inverse = z.new_ones(())
        for _ in range(100):
            p = (z * inverse).softmax(1)
            mean = (p * z).sum(1)
            slope = (mean - at_target).mean()
            curvature = (p * (z - mean[:, None]).square()).sum(1).mean()
            if slope == 0:  # here, or nowhere that float64 can tell: all logits equal, or all sure
                break
            if slope < 0:
                low = inverse
            else:
                high = inverse
            step = inverse - slope / curvature
            # Newton where it stays in the bracket; else halve the bracket, in logarithms.
            following = step if bool((step > low) & (step < high)) else (low * high).sqrt()
            if bool((following - inverse).abs() <= 1e-14 * inverse):
                break
            inverse = following
        return {"temperature": 1 / inverse}

    def apply_to(self, logits: Tensor) -> Tensor:
        """`softmax(logits / temperature)`."""
        return (logits / self.number("temperature", logits)).softmax(-1)
