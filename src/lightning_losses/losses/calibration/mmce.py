# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""MMCE: how far confidence and correctness are apart, in the eyes of a kernel."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, gather_with_gradient, reduce_with_gradient
from lightning_losses.losses.shared.correctness import right_rows, root

#: Pairs at a time.
LARGE = 1 << 22

Form = Literal["norm", "squared", "weighted", "official"]


class MMCE(nn.Module):
    """Maximum mean calibration error of the rows' confidences c and correctness a.

    Kumar, Sarawagi and Jain, "Trainable Calibration Measures from Kernel Mean Embeddings", ICML
    2018: ``sqrt(sum_ij (a_i - c_i) (a_j - c_j) k(c_i, c_j)) / N`` with the kernel
    ``exp(-|c_i - c_j| / width)``, over all pairs of rows, of all ranks. A term beside another
    loss, with a weight of 2 to 8. Gradient flows through the confidence only. Four conventions are
    in use:

    - ``norm``: as above (netcal's metric is this).
    - ``squared``: without the root, as focal_calibration's MMCE.
    - ``weighted``: the paper's MMCE_w, where right rows and wrong rows have the same say: the norm
      of ``sum_right (1 - c) k / m - sum_wrong c k / n`` for m right and n wrong ones. 0 without one
      of each.
    - ``official``: MMCE_w of focal_calibration, which divides twice, by m^2, n^2 and m n again. Its
      value and gradient shrink with the batch: 60 times smaller than ``weighted`` at 20 rows of
      each kind, and so is the term's say. For comparisons.

    Args:
        form: one of these.
        width: of the kernel, a difference of confidences, positive.

    Shapes: confidence and prediction from the softmax statistics, target ``(N,)``; one number for
    the batch of all ranks. Memory for up to 4 million pairs at a time.

    Raises:
        ValueError: an unknown form, a width that is not positive.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, form: Form = "weighted", width: float = 0.4) -> None:
        super().__init__()
        if form not in get_args(Form):
            raise ValueError(f"Unknown form {form!r}; write one of {', '.join(get_args(Form))}.")
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}; write 0.4.")
        self.form, self.width = form, width

    def forward(
        self, confidence: Tensor, prediction: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        right, counts = right_rows(prediction, target, valid, confidence)
        many = all_sum(torch.stack([right.sum(), counts.sum()]))
        m, n = many[0], many[1] - many[0]
        if self.form in ("norm", "squared"):
            value = self._pairs((right - confidence) * counts / many[1].clamp(min=1), confidence)
            return root(value) if self.form == "norm" else value
        # Nothing is to be told apart without rows of both kinds.
        both = (m > 0) & (n > 0)
        share_right = torch.where(both, right / m.clamp(min=1), 0)
        share_wrong = torch.where(both, (counts - right) / n.clamp(min=1), 0)
        sides = (1 - confidence) * share_right, confidence * share_wrong
        if self.form == "weighted":
            return root(self._pairs(sides[0] - sides[1], confidence))
        # The same three sums, each divided by the numbers of its rows once more.
        own, other = sides[0] / m.clamp(min=1), sides[1] / n.clamp(min=1)
        return root(self._pairs(own - other, confidence))

    def _pairs(self, rows: Tensor, confidence: Tensor) -> Tensor:
        """``sum_ij r_i r_j k(c_i, c_j)`` over rows of all ranks, 0-dim."""
        every = gather_with_gradient(torch.stack([rows, confidence], 1))
        columns, places = every.unbind(1)
        step = max(1, LARGE // max(1, len(columns)))
        total = every.sum() * 0  # a rank without rows takes part in the backward pass as well
        for start in range(0, len(rows), step):
            part = (rows[start : start + step], confidence[start : start + step], columns, places)
            whole = len(rows) <= step
            total = total + (
                self._block(*part) if whole else checkpoint(self._block, *part, use_reentrant=False)
            )
        return reduce_with_gradient(total)

    def _block(self, rows: Tensor, own: Tensor, columns: Tensor, places: Tensor) -> Tensor:
        kernel = (-(own[:, None] - places[None, :]).abs() / self.width).exp()
        return rows @ (kernel @ columns)
