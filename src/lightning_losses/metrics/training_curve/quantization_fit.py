# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What quantisation-aware training costs, over runs: by the size of a group, or by the bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics.training_curve.run_laws import GroupQuantization, Refused

FEWEST = 2  # pairs more than unknowns


class GroupFit(NamedTuple):
    """What quantisation adds, with intervals from resampled pairs."""

    law: GroupQuantization
    resampled: tuple[GroupQuantization, ...]
    residual: float
    """Standard deviation of the residuals of the logarithm of what is added."""
    fixed: tuple[str, ...]
    """Of ``n``, ``d`` and ``group`` those that no pair varies; their exponent is held at 0."""


def fit_group_quantization(
    added: Sequence[float],
    n: Sequence[float],
    d: Sequence[float],
    group: Sequence[float],
    resamples: int = 200,
    seed: int = 0,
) -> GroupFit:
    """Fit ``k D^gamma_d (log2 G)^gamma_g / N^gamma_n`` to what quantisation adds, 2505.14302.

    In logarithms a plane, fitted by least squares. What no pair varies has no exponent to be found
    and is part of k.

    Args:
        added: of each pair, the final loss of the quantised run less that of the run of the same
            size in full precision, in nats.
        n: parameters of each pair.
        d: tokens or samples that it has seen.
        group: weights that share a scale, at least 2.
        resamples: how often pairs are drawn.
        seed: of the draws.

    Raises:
        Refused: pairs fewer than two more than the unknowns; a pair in which quantisation adds
            nothing; nothing that varies by a factor of two.
        ValueError: lengths that differ, groups below 2.
    """
    columns = {"n": n, "d": d, "group": group}
    if any(len(column) != len(added) for column in columns.values()):
        lengths = [len(added), *map(len, columns.values())]
        raise ValueError(f"added, n, d and group must be as many, got {lengths}.")
    if any(one < 2 for one in group):
        raise ValueError(f"a group has at least 2 weights, got {min(group):g}.")
    y = torch.tensor([*added], dtype=torch.float64)
    vary = [name for name, column in columns.items() if max(column) >= 2 * min(column) > 0]
    if not vary:
        raise Refused("neither parameters, data nor the group vary by a factor of two.")
    needed = 1 + len(vary) + FEWEST
    if len(y) < needed:
        raise Refused(
            f"{len(y)} pairs of a quantised run and one in full precision of the same size are too "
            f"few for {1 + len(vary)} unknowns: it takes {needed}."
        )
    if not bool((y > 0).all()):
        worst = float(y.min())
        raise Refused(f"quantisation adds nothing in one of the pairs ({worst:.3g}).")
    x = [torch.tensor([*columns[name]], dtype=torch.float64).log() for name in vary]
    if "group" in vary:  # of log2 G
        x[vary.index("group")] = (x[vary.index("group")] / math.log(2)).log()
    design = torch.stack([torch.ones_like(y), *x], 1)
    best = _solve(design, y.log())
    left = y.log() - design @ best
    spread = float((left.square().sum() / (len(y) - design.shape[1])).sqrt())
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(20 * resamples):
        rows = torch.randint(len(y), (len(y),), generator=generator)
        if int(torch.linalg.matrix_rank(design[rows])) == design.shape[1]:
            drawn.append(_law(_solve(design[rows], y[rows].log()), vary))
        if len(drawn) == resamples:
            break
    law = _law(best, vary)
    fixed = tuple(name for name in columns if name not in vary)
    return GroupFit(law, tuple(drawn) or (law,), spread, fixed)


def _solve(design: Tensor, y: Tensor) -> Tensor:
    found: Tensor = torch.linalg.lstsq(design, y[:, None], driver="gelsd").solution[:, 0]
    return found


def _law(found: Tensor, vary: Sequence[str]) -> GroupQuantization:
    slope = dict(zip(vary, found[1:].tolist(), strict=True))
    return GroupQuantization(
        math.exp(float(found[0])), -slope.get("n", 0.0), slope.get("d", 0.0), slope.get("group", 0)
    )


class BitsFit(NamedTuple):
    """How many parameters in full precision those of few bits are worth, arXiv 2411.04330."""

    gamma: float
    """Of ``N (1 - exp(-bits / gamma))``; the larger, the more bits it takes."""
    resampled: tuple[float, ...]

    def worth(self, bits: float, gamma: float | None = None) -> float:
        """The share of the parameters that is left, in (0, 1)."""
        return -math.expm1(-bits / (self.gamma if gamma is None else gamma))


def fit_bits(
    added: Sequence[float],
    reducible: Sequence[float],
    bits: Sequence[float],
    alpha: float,
    resamples: int = 200,
    seed: int = 0,
) -> BitsFit:
    """gamma of the effective parameters ``N (1 - exp(-bits / gamma))``, arXiv 2411.04330.

    With ``A / N^alpha`` in the law of runs in full precision, weights of few bits make it
    ``A / (N w)^alpha``; so each pair says its w, and w its gamma. The middle one is taken: a run
    that went wrong counts little.

    Args:
        added: of each pair, the final loss of the quantised run less that of the run of the same
            size in full precision, in nats.
        reducible: of each pair ``A / N^alpha``.
        bits: of a weight.
        alpha: exponent of the law in full precision.
        resamples: how often pairs are drawn.
        seed: of the draws.

    Raises:
        Refused: fewer than 3 pairs; a pair in which quantisation adds nothing.
        ValueError: lengths that differ.
    """
    if not len(added) == len(reducible) == len(bits):
        lengths = len(added), len(reducible), len(bits)
        raise ValueError(f"added, reducible and bits must be as many, got {lengths}.")
    if len(added) < 1 + FEWEST:
        raise Refused(f"{len(added)} pairs of equal size are too few: it takes {1 + FEWEST}.")
    y, a, p = (torch.tensor([*x], dtype=torch.float64) for x in (added, reducible, bits))
    if not bool((y > 0).all()):
        raise Refused(f"quantisation adds nothing in one of the pairs ({float(y.min()):.3g}).")
    lost = -torch.expm1(-torch.log1p(y / a) / alpha)  # 1 - w
    gamma = p / -lost.log()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(y), (resamples, len(y)), generator=generator)
    drawn = torch.quantile(gamma[rows], 0.5, dim=1).tolist() if resamples else [float("nan")]
    return BitsFit(float(torch.quantile(gamma, 0.5)), tuple(drawn))
