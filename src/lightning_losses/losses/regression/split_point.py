# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Three heads that learn how far, how far above and how far below a prediction the truth lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.estimates import error_rows


class SplitPoint(nn.Module):
    """``(v - |r|)^2 + 1[r > 0] (u - r)^2 + 1[r < 0] (l + r)^2``, r = reference - estimate.

    Least where v is the mean absolute residual, u the mean residual of those above the estimate and
    l that of those below: the heads of "Post-Hoc Split-Point Self-Consistency Verification", arXiv
    2509.13262. r is without gradient: beside ``mse``, as in ``loss=[mse,split_point]``, or after a
    training, with the rest frozen. What the heads then say: ``u + l`` is the noise of the data, and
    how far the three contradict each other is what the model does not know
    (`metrics.split_point_discrepancy`, `metrics.split_point_scale`). Let them be softplus of a
    layer: means of lengths are not negative.

    Of classes u is ``1 - p``, l is p, and only v is left to learn: ``loss=mse`` with
    ``estimate=residual`` and ``reference=(onehot - p).abs()``.

    Shapes: estimate, reference, residual v, above u and below l ``(N, ...)`` of one shape. Per-row
    values ``(N,)``, in the squared unit of the reference; the mean over the entries of a row.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def forward(
        self,
        estimate: Tensor,
        reference: Tensor,
        residual: Tensor,
        above: Tensor,
        below: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError unless all have one shape."""
        shapes = {"residual": residual.shape, "above": above.shape, "below": below.shape}
        for name, shape in shapes.items():
            if shape != estimate.shape:
                raise ValueError(
                    f"{name} must be {tuple(estimate.shape)}, as estimate, got {tuple(shape)}: "
                    "one number an entry."
                )
        r = error_rows(reference, estimate, valid).detach()
        v, u, low = (self._rows(z, valid).to(r.dtype) for z in (residual, above, below))
        losses = (v - r.abs()).square()
        losses = losses + torch.where(r > 0, u - r, 0.0).square()
        losses = losses + torch.where(r < 0, low + r, 0.0).square()
        return losses.sum(1) / max(losses.shape[1], 1)

    def _rows(self, z: Tensor, valid: Tensor | None) -> Tensor:
        """``(N, D)``, 0 in rows that do not count."""
        rows = z.flatten(1) if z.ndim > 1 else z[:, None]
        return rows if valid is None else torch.where(valid[:, None], rows, 0)
