# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`fit_mixture`: which shares of languages or domains are best, from runs with several mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics.training_curve.run_laws import Mixture, Refused

FEWEST = 4  # runs that have a family: two unknowns, and what is left says how well they fit
SPREAD = 1.5  # times the smallest share
LEAST = 1e-3  # gamma of a resample in which the loss does not fall


class MixtureFit(NamedTuple):
    """The law of each family, of models and data as large as the largest of the runs."""

    law: Mixture
    resampled: tuple[Mixture, ...]
    """Of runs drawn with replacement."""
    residual: float
    """Standard deviation of the residuals of log loss."""

    def best_shares(self, alike: bool = True) -> tuple[Tensor, Tensor]:
        """Shares ``(K,)`` of least total loss, and those ``(S, K)`` of each resample.

        Args:
            alike: weigh each family by 1 over its loss with all tokens its own, as the paper does;
                else the plain sum, in which the family of the largest loss counts most.
        """

        def best(law: Mixture) -> Tensor:
            return law.best_shares(1.0, 1.0, 1 / law.alone(1.0, 1.0) if alike else None)

        return best(self.law), torch.stack([best(law) for law in self.resampled])


def fit_mixture(
    shares: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
    sizes: Sequence[object] | None = None,
    names: Sequence[str] = (),
    resamples: int = 200,
    seed: int = 0,
) -> MixtureFit:
    """Fit ``L_i = L_i(1) p_i^-gamma_i`` to the final losses of each family i, arXiv 2410.12883.

    That law says gamma depends neither on the model nor on the amount of data, so runs of several
    sizes share it, and each size has its own ``L_i(1)``, the loss with all tokens the family's own.
    In logarithms this is a straight line; it is fitted by least squares.

    Args:
        shares: ``R x K``, of each run the share of each family in training. A share of 0, or NaN,
            is left out of the fit of its family: the law has a pole there.
        losses: ``R x K``, in nats; NaN where unknown.
        sizes: of each run, anything that is equal for runs of one size; the last one is the
            largest, whose law is returned. None: all are of one size.
        names: of the families, for what is refused.
        resamples: how often runs are drawn.
        seed: of the draws.

    Raises:
        Refused: fewer than two families; of one of them fewer than 4 runs, or shares within a
            factor of 1.5 among runs of one size, or a loss that does not fall with its share.
        ValueError: shapes that do not fit.
    """
    p = torch.tensor([*map(list, shares)], dtype=torch.float64)
    y = torch.tensor([*map(list, losses)], dtype=torch.float64)
    kinds = [*dict.fromkeys(sizes if sizes is not None else [0] * len(p))]
    if p.ndim != 2 or p.shape != y.shape or (sizes is not None and len(sizes) != len(p)):
        raise ValueError(
            f"shares and losses must be runs x families, found {tuple(p.shape)} and "
            f"{tuple(y.shape)}, and sizes one a run."
        )
    if p.shape[1] < 2:
        raise Refused("one family has no shares to choose.")
    if sizes is not None:
        kinds = [size for size in kinds if size != sizes[-1]] + [sizes[-1]]
    group = torch.tensor([kinds.index(one) for one in sizes] if sizes is not None else [0] * len(p))
    known = (p > 0) & (y > 0) & y.isfinite()
    x, z = torch.where(known, p, 1.0).log(), torch.where(known, y, 1.0).log()
    for i in range(p.shape[1]):
        name = names[i] if i < len(names) else f"family {i}"
        _refuse(name, x[:, i], known[:, i], group)
    slope, level, residual = _fit(x, z, known.double(), group, len(kinds))
    rising = [names[i] if i < len(names) else f"family {i}" for i in (slope >= 0).nonzero()[:, 0]]
    if rising:
        raise Refused(f"the loss of {', '.join(rising)} does not fall with its share.")
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(20 * resamples):
        times = torch.bincount(
            torch.randint(len(p), (len(p),), generator=generator), minlength=len(p)
        )
        weight = known * times[:, None].double()
        if _determined(x, weight, group, len(kinds)):
            drawn.append(_law(*_fit(x, z, weight, group, len(kinds))[:2]))
        if len(drawn) == resamples:
            break
    law = _law(slope, level)
    return MixtureFit(law, tuple(drawn) or (law,), residual)


def _law(slope: Tensor, level: Tensor) -> Mixture:
    """The law at one size: all of the loss of a family alone is its constant."""
    nothing, one = torch.zeros_like(level), torch.ones_like(level)
    return Mixture(level.exp(), nothing, nothing, one, one, (-slope).clamp(min=LEAST))


def _centred(x: Tensor, weight: Tensor, group: Tensor, kinds: int) -> tuple[Tensor, Tensor]:
    """x less its mean over runs of one size, and that mean ``(sizes, K)``."""
    total = x.new_zeros(kinds, x.shape[1]).index_add(0, group, weight)
    mean = x.new_zeros(kinds, x.shape[1]).index_add(0, group, weight * x) / total.clamp(min=1)
    return x - mean[group], mean


def _fit(
    x: Tensor, z: Tensor, weight: Tensor, group: Tensor, kinds: int
) -> tuple[Tensor, Tensor, float]:
    """Slope and, at the last size, log loss at share 1 ``(K,)``; deviation of the residuals."""
    dx, mean_x = _centred(x, weight, group, kinds)
    dz, mean_z = _centred(z, weight, group, kinds)
    slope = (weight * dx * dz).sum(0) / (weight * dx.square()).sum(0)
    left = weight * (dz - slope * dx).square()
    used = torch.zeros(kinds, x.shape[1]).double().index_add(0, group, weight) > 0
    freedom = float((weight.sum(0) - used.sum(0) - 1).clamp(min=0).sum())
    return slope, mean_z[-1] - slope * mean_x[-1], float(left.sum() / max(freedom, 1.0)) ** 0.5


def _determined(x: Tensor, weight: Tensor, group: Tensor, kinds: int) -> bool:
    """Whether every family has several shares, and is in a run of the last size."""
    dx, _ = _centred(x, weight, group, kinds)
    spread = (weight * dx.square()).sum(0)
    last = weight[group == kinds - 1].sum(0)
    return bool(((spread > 1e-6) & (last > 0)).all())


def _refuse(name: str, x: Tensor, known: Tensor, group: Tensor) -> None:
    """Raises Refused where one family's shares ``exp(x)`` ``(R,)`` carry no law."""
    if int(known.sum()) < FEWEST:
        raise Refused(f"{int(known.sum())} runs with {name} are too few: it takes {FEWEST}.")
    if not bool(known[group == group.max()].any()):
        raise Refused(f"no run of the largest size has {name}.")
    spans = [x[known & (group == one)] for one in range(int(group.max()) + 1)]
    widest = max(float((one.max() - one.min()).exp()) for one in spans if len(one))
    if widest < SPREAD:
        raise Refused(
            f"the shares of {name} in runs of one size are within a factor of {widest:.3g}, and "
            f"it takes {SPREAD}."
        )
