# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Matthews' correlation of several classes, of the probabilities themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import reduce_with_gradient
from lightning_losses.losses.shared.one_vs_rest import keep, one_vs_rest


class MulticlassMCC(nn.Module):
    """``1 - R``, with R the correlation of predicted probabilities and classes over the batch.

    Gorodkin's R_K, "Comparing two K-category assignments by a K-category correlation coefficient"
    (2004), of the soft confusion matrix, whose entry k, j adds up the probability of class j over
    the rows of class k: 1 if all is right, 0 at chance whatever the imbalance, and for two classes
    Matthews' correlation. The loss is in [0, 2]; with one class in the batch R is 0. The sums are
    those of the rows of all ranks. It is no mean over rows: accumulating gradients is not a larger
    batch.

    Shapes: binary logits ``(N,)`` or ``(N, 1)`` with target ``(N,)`` in {0, 1}, or ``(N, C)`` with
    indices ``(N,)``; one number for the batch.
    """

    scope = "batch"
    contract = Contract(target=("class", "binary"))

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim; 0 of no rows."""
        confusion = self.confusion(logits, target, valid)
        rows, true, predicted = confusion.sum(), confusion.sum(1), confusion.sum(0)
        others = predicted.sum() - predicted
        classes, spread = (true * (rows - true)).sum(), (predicted * others).sum()
        # Some row is of another class than some other, and not all probability on one column,
        # where the numerator is nothing but rounding.
        mixed = (classes.detach() > 0.5) & (spread.detach() > torch.finfo(rows.dtype).eps * rows**2)
        above = confusion.trace() * rows - (predicted * true).sum()
        below = torch.where(mixed, classes * spread, 1.0).sqrt()
        correlation = torch.where(mixed, above / below, 0.0 * above)
        return torch.where(rows.detach() > 0.5, 1 - correlation, 0.0 * rows)

    def confusion(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """``(C, C)``: class of the row, by probability; of all ranks, with gradient."""
        log_p, log_rest, t, binary = one_vs_rest(logits, target, valid, hard=True)
        p = log_p.exp()
        if binary:
            p, t = torch.cat([log_rest.exp(), p], 1), torch.cat([1 - t, t], 1)
        return reduce_with_gradient(keep(t, valid).mT @ keep(p, valid))
