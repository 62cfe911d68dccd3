# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does more confidence mean more often right? Ranking measures, from a fine histogram.

Rows that share a fine bin are ties: each function gives the mean over their orders, and says how
far the value of sorted rows may be. Write `e` for the wrong ones of a bin's `n` rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.metrics.calibration.fine_bins import FineBins, running_sum


def auroc(fine: FineBins) -> Tensor:
    """Chance that a correct row has more confidence than a wrong one; ties count one half.

    NaN when every row is correct or every row is wrong: ranking is undefined then, not 1/2. Rows
    that share a fine bin are ties: off by at most half the share of (correct, wrong) pairs that do.
    """
    wrong = fine.rows - fine.correct
    beaten = running_sum(wrong) - wrong / 2
    return (fine.correct * beaten).sum() / (fine.correct.sum() * wrong.sum())


def aurc(fine: FineBins) -> Tensor:
    """Area under the risk-coverage curve: the mean over k of the error rate of the top k rows.

    Of the k most confident rows, for every k from 1 to N; a fraction, lower is better, equal to
    1 - accuracy for a confidence that says nothing (Geifman, Uziel and El-Yaniv, arXiv 1805.08206).
    Others integrate the same curve by trapezoids and rescale: values differ by about 1 / N. Off by
    at most the sum over bins of `e (n - e) / n (H(k + n) - H(k)) / N`, where `k` rows have more
    confidence and `H` is the harmonic number.
    """
    n, wrong = fine.rows.flip(0), (fine.rows - fine.correct).flip(0)
    above = n.cumsum(0) - n
    wrong_above = running_sum(wrong) - wrong
    k = above.to(wrong)
    harmonic = torch.digamma(k + n + 1) - torch.digamma(k + 1)
    # sum_j (wrong_above + wrong j / n) / (k + j) over j = 1 .. n, in closed form.
    risks = (wrong_above - wrong * k / n.clamp(min=1)) * harmonic + wrong
    return risks.sum() / n.sum()


def eaurc(fine: FineBins) -> Tensor:
    """Excess area under the risk-coverage curve: `aurc` minus the least one with as many errors.

    How much is lost by the ranking alone: 0 where every wrong row has less confidence than every
    correct one, whatever the accuracy (Geifman, Uziel and El-Yaniv, arXiv 1805.08206). The least
    area is that of the `N` rows there are, `(E - (N - E) (H(N) - H(N - E))) / N` for `E` wrong ones
    and harmonic numbers `H`; the paper and others write its limit for large N,
    `r + (1 - r) ln(1 - r)` of the error rate `r`, with which small samples get below 0. Off by as
    much as `aurc`.
    """
    total, right = fine.rows.sum().to(fine.correct), fine.correct.sum()
    harmonic = torch.digamma(total + 1) - torch.digamma(right + 1)
    return (aurc(fine) - (total - right - right * harmonic) / total).clamp(min=0)


def augrc(fine: FineBins) -> Tensor:
    """Area under the generalised risk-coverage curve: risk of a silent error, over all coverages.

    The integral over coverage of (wrong rows among the accepted) / N, by trapezoids, in [0, 1/2]
    (arXiv 2407.01032). Where `aurc` weighs the few most confident rows most, this weighs all alike.
    Off by at most the sum over bins of `e (n - e) / (2 N^2)`.
    """
    wrong = (fine.rows - fine.correct).flip(0)
    total = fine.rows.sum()
    height = running_sum(wrong) - wrong / 2
    return (fine.rows.flip(0) * height).sum() / total / total


def auprc_error(fine: FineBins) -> Tensor:
    """Average precision of finding the errors by low confidence: `sum_b (R_b - R_{b-1}) P_b`.

    Rows are flagged from the least confident on; `P` is the share of errors among the flagged ones
    and `R` the share of all errors that they are. A random order has the error rate, so compare
    models of one accuracy only. NaN without an error. Rows that share a fine bin are flagged
    together, as scikit-learn does with ties. (The value of sorted rows may then be higher or
    lower: by at most `sum_b e_b / E` over the bins that hold both kinds.)
    """
    wrong = fine.rows - fine.correct
    flagged = fine.rows.cumsum(0).clamp(min=1)
    return (wrong * running_sum(wrong) / flagged).sum() / wrong.sum()


def risk_at_coverage(fine: FineBins, coverage: float = 0.8) -> Tensor:
    """Error rate of the `ceil(coverage N)` most confident rows, a fraction.

    Raises:
        ValueError: coverage outside (0, 1].
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be in (0, 1], found {coverage}; write coverage=0.8")
    n, wrong = fine.rows.flip(0).to(fine.correct), (fine.rows - fine.correct).flip(0)
    last, total = fine.rows.flip(0).cumsum(0).to(n), fine.rows.sum().to(n)
    # 0.07 * 100 is 7.000000000000001, which is meant to be 7 rows.
    k = (coverage * total * (1 - 1e-12)).ceil()
    share = ((k - (last - n)) / n.clamp(min=1)).clamp(0, 1)  # of each bin, which is accepted
    return (share * wrong).sum() / k


def coverage_at_risk(fine: FineBins, risk: float = 0.05) -> Tensor:
    """Largest share of rows, the most confident first, whose error rate is at most `risk`.

    0 where no number of rows is that safe (torch-uncertainty has NaN there; here NaN means that
    there are no rows).

    Raises:
        ValueError: risk outside [0, 1].
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"risk must be in [0, 1], found {risk}; write risk=0.05")
    n, wrong = fine.rows.flip(0).to(fine.correct), (fine.rows - fine.correct).flip(0)
    above = fine.rows.flip(0).cumsum(0).to(n) - n
    spare = risk * above - (running_sum(wrong) - wrong)  # errors that may still be made
    excess = wrong - risk * n  # of those, what the whole bin takes; each row takes its share
    slack = 1e-9  # of a row, against rounding
    some = ((spare + slack) * n / excess.clamp(min=slack)).floor().clamp(min=0)
    rows = torch.where(excess <= spare + slack, n, torch.where(spare + slack >= 0, some, -above))
    rows = torch.minimum(rows, n)
    return (above + rows).clamp(min=0).max() / fine.rows.sum()
