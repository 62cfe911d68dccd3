# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""AnyLoss: trains on a score of the confusion matrix, made smooth by a steep sigmoid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import reduce_with_gradient
from lightning_losses.losses.shared.one_vs_rest import keep, one_vs_rest

#: ``(tp, fp, fn, tn) -> (score, whether it is defined)``, each ``(K,)``: a column a class.
Score = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def some(count: Tensor) -> Tensor:
    """Whether a sum of soft decisions counts a row: it is 0 or at least 1, but rounded."""
    return count.detach() > 0.5


def over(above: Tensor, below: Tensor) -> Tensor:
    """A quotient that is 0 where there is nothing to divide by, with a finite gradient."""
    there = below.detach() != 0
    return torch.where(there, above, 0.0) / torch.where(there, below, 1.0)


def root(value: Tensor) -> Tensor:
    """The square root, whose slope at 0 is infinite, kept off it."""
    return value.clamp(min=torch.finfo(value.dtype).tiny).sqrt()


def accuracy(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor, Tensor]:
    """Right decisions over all."""
    rows = tp + fp + fn + tn
    return over(tp + tn, rows), some(rows)


def f_beta(
    tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weighted harmonic mean of precision and recall; not defined without a positive."""
    above = (1 + beta**2) * tp
    return over(above, above + beta**2 * fn + fp), some(tp + fn)


def balanced_accuracy(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of sensitivity and specificity; not defined without a positive and a negative."""
    both = some(tp + fn) & some(tn + fp)
    return (over(tp, tp + fn) + over(tn, tn + fp)) / 2, both


def gmean(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor, Tensor]:
    """Geometric mean of the same two."""
    both = some(tp + fn) & some(tn + fp)
    return root(over(tp, tp + fn) * over(tn, tn + fp)), both


def jaccard(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union; not defined without a positive."""
    return over(tp, tp + fp + fn), some(tp + fn)


def mcc(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor, Tensor]:
    """Matthews' correlation of decision and label, -1 to 1; 0 of one class alone."""
    counted = some(tp + fn) & some(tn + fp)
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    value = over(tp * tn - fp * fn, root(torch.where(counted, below, 1.0)))
    return torch.where(counted, value, 0.0 * tp), some(tp + fp + fn + tn)


def kappa(tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> tuple[Tensor, Tensor]:
    """Cohen's agreement beyond chance, -1 to 1; 0 of one class alone."""
    counted = some(tp + fn) & some(tn + fp)
    below = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
    value = over(2 * (tp * tn - fn * fp), torch.where(counted, below, 1.0))
    return torch.where(counted, value, 0.0 * tp), some(tp + fp + fn + tn)


SCORES: dict[str, Score] = {
    "accuracy": accuracy,
    "f_beta": f_beta,
    "balanced_accuracy": balanced_accuracy,
    "gmean": gmean,
    "jaccard": jaccard,
    "mcc": mcc,
    "kappa": kappa,
}


class AnyLoss(nn.Module):
    """``1 - score`` of decisions ``sigmoid(steepness (p - threshold))`` over the batch.

    Han, Moniz and Chawla, "AnyLoss: Transforming Classification Metrics into Loss Functions",
    arXiv 2405.14745. The score counts the rows of the batch, of all ranks. At steepness 73 a
    confident mistake has next to no gradient (1e-6 of the largest at p = 0.25): begin with
    cross-entropy, or with a smaller steepness.

    With more than two classes (not in the paper) each class is scored against the rest, and the
    mean is over the classes that can be scored: those with a positive in the batch, and for
    balanced accuracy and gmean with a negative too. If there is none the loss is 0. ``mcc`` and
    ``kappa`` of rows of one class alone are 0, as everywhere, so their loss is 1; for the
    correlation of several classes as one number see `multiclass_mcc`.

    A score over a batch is no mean over rows: accumulating gradients is not a larger batch.

    Args:
        score: ``accuracy``, ``f_beta``, ``balanced_accuracy``, ``gmean`` (of sensitivity and
            specificity), ``jaccard``, ``mcc`` (Matthews), ``kappa`` (Cohen); or any differentiable
            function ``(tp, fp, fn, tn) -> score`` of tensors ``(K,)``, a column a class, which may
            return ``(score, whether it is defined)`` instead. In YAML ``score: {_target_:
            my.score, _partial_: true}``.
        beta: of f_beta; above 1 favours recall.
        steepness: 73 in the paper; None counts the probabilities as they are.
        threshold: of the decision, a probability.

    Shapes: binary logits ``(N,)`` or ``(N, 1)`` with target ``(N,)`` in {0, 1}, or ``(N, C)`` with
    indices ``(N,)``; one number for the batch.
    """

    scope = "batch"
    contract = Contract(target=("class", "binary"))

    def __init__(
        self,
        score: str | Callable[..., Tensor | tuple[Tensor, Tensor]] = "f_beta",
        beta: float = 1.0,
        steepness: float | None = 73.0,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if not callable(score) and score not in SCORES:
            raise ValueError(
                f"Unknown score {score!r}; write one of {', '.join(SCORES)}, or a function of "
                "tp, fp, fn and tn."
            )
        if not (beta > 0 and (steepness is None or steepness > 0)):
            raise ValueError(f"beta and steepness must be positive, got {beta} and {steepness}.")
        self.score, self.beta = score, beta
        self.steepness, self.threshold = steepness, threshold

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim. Raises ValueError for a score that is not ``(K,)``."""
        cells = self.counts(logits, target, valid)
        found = self._function()(*cells)
        value, scored = found if isinstance(found, tuple) else (found, some(cells.sum(0)))
        if value.shape != cells.shape[1:]:
            raise ValueError(
                f"score must return a number for each of {cells.shape[1]} columns, got "
                f"{tuple(value.shape)}: work on tp, fp, fn and tn column by column."
            )
        loss = torch.where(scored, 1 - value, 0.0 * cells[0])
        mean: Tensor = loss.sum() / scored.sum().clamp(min=1)
        return mean

    def counts(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Soft tp, fp, fn and tn ``(4, K)`` of the rows of all ranks, with gradient."""
        log_p, log_rest, t, _ = one_vs_rest(logits, target, valid, hard=True)
        if self.steepness is None:
            yes, no = log_p.exp(), log_rest.exp()
        else:
            margin = self.steepness * (log_p.exp() - self.threshold)
            yes, no = margin.sigmoid(), (-margin).sigmoid()
        cells = (yes * t, yes * (1 - t), no * t, no * (1 - t))
        return reduce_with_gradient(torch.stack([keep(cell, valid).sum(0) for cell in cells]))

    def _function(self) -> Callable[..., Tensor | tuple[Tensor, Tensor]]:
        if callable(self.score):
            return self.score
        return partial(f_beta, beta=self.beta) if self.score == "f_beta" else SCORES[self.score]
