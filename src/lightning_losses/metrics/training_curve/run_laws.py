# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Laws of the final loss over several runs: of parameters N, tokens or samples D, and the like.

Closed forms first; then `fit_hoffmann` and, for one quantity alone, `fit_power`: they fit the laws
that need no constant of others to runs of one's own, with intervals, and refuse where these cannot
be had. Losses are in nats, final ones
at matched decay of the learning rate: points on the way of a schedule lie above the law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics.training_curve.law_grid import huber, non_negative

DELTA = 1e-3


class Kaplan(NamedTuple):
    """Kaplan et al., "Scaling Laws for Neural Language Models", arXiv 2001.08361.

    No constant term: it falls for ever. N is without embeddings.
    """

    alpha_n: float = 0.076
    n_c: float = 8.8e13
    alpha_d: float = 0.095
    d_c: float = 5.4e13

    def of_n(self, n: Tensor) -> Tensor:
        """Loss of so many parameters, data without end."""
        return (self.n_c / n) ** self.alpha_n

    def of_d(self, d: Tensor) -> Tensor:
        """Loss of so much data, a model without bound."""
        return (self.d_c / d) ** self.alpha_d

    def loss(self, n: Tensor, d: Tensor) -> Tensor:
        """Loss of both."""
        return ((self.n_c / n) ** (self.alpha_n / self.alpha_d) + self.d_c / d) ** self.alpha_d


class Allocation(NamedTuple):
    """The best use of a compute budget."""

    n: Tensor
    d: Tensor
    loss: Tensor


class Hoffmann(NamedTuple):
    """``E + A / N^alpha + B / D^beta``: Hoffmann et al., arXiv 2203.15556; N with embeddings.

    The defaults are the refit of Besiroglu et al. (arXiv 2404.10102) to the points of the paper,
    whose own constants are rounded too far to be used.
    """

    e: float = 1.8172
    a: float = 482.01
    b: float = 2085.43
    alpha: float = 0.3478
    beta: float = 0.3658

    def loss(self, n: Tensor, d: Tensor) -> Tensor:
        """Loss of N parameters after D tokens."""
        return self.e + self.a / n**self.alpha + self.b / d**self.beta

    @property
    def exponent_n(self) -> float:
        """N of the best allocation grows as compute to this power."""
        return self.beta / (self.alpha + self.beta)

    def best(self, compute: Tensor, flops: float = 6.0) -> Allocation:
        """The N and D of least loss for ``flops * N * D = compute``."""
        both = self.alpha + self.beta
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / both)
        n = ratio * (compute / flops) ** (self.beta / both)
        d = (compute / flops) ** (self.alpha / both) / ratio
        return Allocation(n, d, self.loss(n, d))


class Power(NamedTuple):
    """``E + A / x^alpha``: of one quantity, the others being equal or without bound."""

    e: float
    a: float
    alpha: float

    def loss(self, x: Tensor) -> Tensor:
        """Loss at so much of it."""
        return self.e + self.a / x**self.alpha


class Bivariate(NamedTuple):
    """``alpha (N_e / n_e)^p_e (N_d / n_d)^p_d + floor`` of encoders and decoders, arXiv 2109.07740.

    alpha and the units ``encoder`` and ``decoder`` are not identifiable together: fix the units.
    """

    alpha: float
    encoder: float
    decoder: float
    p_e: float
    p_d: float
    floor: float

    def loss(self, n_encoder: Tensor, n_decoder: Tensor) -> Tensor:
        """Loss of so many parameters in each."""
        small = (self.encoder / n_encoder) ** self.p_e * (self.decoder / n_decoder) ** self.p_d
        return self.alpha * small + self.floor

    @property
    def best_encoder_share(self) -> float:
        """Share of the parameters that the encoder should have."""
        return self.p_e / (self.p_e + self.p_d)


class Mixture(NamedTuple):
    """``(E_i + A_i / N^alpha_i + B_i / D^beta_i) p_i^-gamma_i`` of language family i, 2410.12883.

    D counts the tokens of all families, p_i is the share of family i in training, above 0.
    """

    e: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor

    def loss(self, n: float, d: float, shares: Tensor) -> Tensor:
        """Loss ``(..., K)`` of each family, for shares ``(..., K)``."""
        return self.alone(n, d) * shares**-self.gamma

    def alone(self, n: float, d: float) -> Tensor:
        """Loss ``(K,)`` of each family with all tokens its own."""
        return self.e + self.a / n**self.alpha + self.b / d**self.beta

    def best_shares(self, n: float, d: float, weights: Tensor | None = None) -> Tensor:
        """Shares ``(K,)`` of least ``sum w_i L_i``: there w_i gamma_i L_i / p_i are all the same.

        Args:
            n: parameters.
            d: tokens of all families.
            weights: ``(K,)``; None is 1 for each. ``1 / alone(n, d)`` weighs families alike.
        """
        weights = torch.ones_like(self.gamma) if weights is None else weights
        # p_i = (w_i gamma_i L_i(1) / lambda)^(1 / (1 + gamma_i)): lambda by bisection of its log.
        pull = (weights * self.gamma * self.alone(n, d)).log()

        def shares(level: float) -> Tensor:
            return ((pull - level) / (1 + self.gamma)).exp()

        low, high = float(pull.min()) - 60, float(pull.max()) + 60
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if float(shares(middle).sum()) > 1 else (low, middle)
        found = shares((low + high) / 2)
        return found / found.sum()


class GroupQuantization(NamedTuple):
    """What group-wise 4-bit quantisation-aware training adds to the loss, arXiv 2505.14302.

    ``k D^gamma_d (log2 G)^gamma_g / N^gamma_n`` with G weights to a group: it grows with the data
    and shrinks with the model.
    """

    k: float
    gamma_n: float
    gamma_d: float
    gamma_g: float

    def loss(self, n: Tensor, d: Tensor, group: Tensor) -> Tensor:
        """The addition to the loss."""
        return self.k * d**self.gamma_d * group.log2() ** self.gamma_g / n**self.gamma_n


class Refused(ValueError):
    """The runs do not carry a law; says why, and what would."""


class PowerFit(NamedTuple):
    """A law of one quantity with intervals from resampled runs."""

    law: Power
    resampled: tuple[Power, ...]
    residual: float
    """Standard deviation of the residuals of log loss."""

    def interval(self, x: float, level: float = 0.9) -> tuple[float, float]:
        """Between which losses a new run with so much of it is expected, at a level."""
        at = torch.tensor(x, dtype=torch.float64)
        drawn = torch.stack([law.loss(at).log() for law in self.resampled])
        return _interval(float(self.law.loss(at).log()), drawn, self.residual, level)


class Fit(NamedTuple):
    """A law with intervals from resampled runs."""

    law: Hoffmann
    objective: float
    """Sum of Huber's function of the residuals of log loss."""
    resampled: tuple[Hoffmann, ...]
    """Of runs drawn with replacement."""
    residual: float
    """Standard deviation of the residuals of log loss."""

    def interval(self, n: float, d: float, level: float = 0.9) -> tuple[float, float]:
        """Between which losses a new run of this size is expected, at a level."""
        x, y = torch.tensor(n, dtype=torch.float64), torch.tensor(d, dtype=torch.float64)
        drawn = torch.stack([law.loss(x, y).log() for law in self.resampled])
        return _interval(float(self.law.loss(x, y).log()), drawn, self.residual, level)


def _interval(centre: float, drawn: Tensor, residual: float, level: float) -> tuple[float, float]:
    """Around a log loss: its spread by resampling ``(S,)``, and that of a run around the law."""
    share = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(drawn, share).tolist()
    wide = float(torch.special.ndtri(share[1])) * residual  # quantile of a normal distribution
    # Robust against a best law outside of what the resampled ones say.
    low, high = min(low, centre), max(high, centre)
    return (
        math.exp(centre - math.hypot(centre - low, wide)),
        math.exp(centre + math.hypot(high - centre, wide)),
    )


def objective(law: Hoffmann, n: Tensor, d: Tensor, loss: Tensor, delta: float = DELTA) -> float:
    """Sum of Huber's function of the residuals of log loss, as in arXiv 2203.15556."""
    residual = law.loss(n, d).log() - loss.log()
    return float(huber(residual, delta).sum())


def fit_hoffmann(
    n: Sequence[float],
    d: Sequence[float],
    loss: Sequence[float],
    resamples: int = 50,
    delta: float = DELTA,
    seed: int = 0,
) -> Fit:
    """Fit ``E + A / N^alpha + B / D^beta`` to the final losses of runs.

    For fixed exponents the law is linear in E, A and B, so only the two exponents are searched, on
    a grid that closes in: there is no start to choose (variable projection, as arXiv 2603.22339
    advises). Huber's function of log residuals makes a run that went wrong count little. Intervals
    come from runs drawn with replacement: steps of one run are no further evidence.

    Args:
        n: parameters of each run.
        d: tokens or samples that it has seen.
        loss: its final loss, in nats.
        resamples: how often runs are drawn.
        delta: where Huber's function turns from squares to absolute values.
        seed: of the draws.

    Raises:
        Refused: fewer than 8 runs, fewer than 3 values of N or D, less than a factor of 10 between
            the smallest and the largest of either, or a loss that does not fall with them.
    """
    x, y, z = (torch.tensor([*values], dtype=torch.float64) for values in (n, d, loss))
    if not len(x) == len(y) == len(z):
        raise ValueError(f"n, d and loss must be as many, got {len(x)}, {len(y)}, {len(z)}.")
    refuse(x, y, z)
    weights = torch.ones(1, len(x), dtype=torch.float64)
    best = _search(x, y, z, weights, delta)[0]
    drawn = _draws((x, y), 2, resamples, seed)
    laws = _search(x, y, z, drawn, delta, best) if len(drawn) else [best]
    spread = _spread(best.loss(x, y).log() - z.log(), 5)
    return Fit(best, objective(best, x, y, z, delta), tuple(laws), spread)


def fit_power(
    x: Sequence[float],
    loss: Sequence[float],
    resamples: int = 50,
    delta: float = DELTA,
    seed: int = 0,
) -> PowerFit:
    """Fit ``E + A / x^alpha`` to the final losses of runs, as `fit_hoffmann` does.

    Args:
        x: of each run, what the loss is a law of: parameters, tokens or samples, compute.
        loss: its final loss, in nats.
        resamples: how often runs are drawn.
        delta: where Huber's function turns from squares to absolute values.
        seed: of the draws.

    Raises:
        Refused: fewer than 5 runs, fewer than 4 values of x, less than a factor of 10 between the
            smallest and the largest, a loss that does not fall, or that follows no power.
    """
    at, z = (torch.tensor([*values], dtype=torch.float64) for values in (x, loss))
    if len(at) != len(z):
        raise ValueError(f"x and loss must be as many, got {len(at)}, {len(z)}.")
    refuse_power(at, z)
    best = _search_power(at, z, torch.ones(1, len(at), dtype=torch.float64), delta)[0]
    if not best.a > 0 or best.alpha >= 0.999 * HIGHEST or best.alpha <= 1.001 * LOWEST:
        raise Refused(
            f"the losses follow no power law: the best exponent is {best.alpha:.2g}, at the edge "
            f"of what was tried ({LOWEST:g} to {HIGHEST:g})."
        )
    drawn = _draws((at,), 3, resamples, seed)
    laws = _search_power(at, z, drawn, delta) if len(drawn) else [best]
    return PowerFit(best, tuple(laws), _spread(best.loss(at).log() - z.log(), 3))


def refuse_power(x: Tensor, loss: Tensor) -> None:
    """Raises Refused, with the reason, where runs ``(R,)`` carry no law of one quantity."""
    if len(x) < 5:
        raise Refused(f"{len(x)} runs are too few for three unknowns: it takes 5 at least.")
    _refuse_values(x, loss)
    _refuse_spread("values", x, 4)
    logs = x.log() - x.log().mean()
    if float((logs * (loss.log() - loss.log().mean())).sum()) >= 0:
        raise Refused("the loss does not fall with it, so there is nothing to extrapolate.")


def _draws(sizes: Sequence[Tensor], kinds: int, count: int, seed: int) -> Tensor:
    """How often each run was drawn ``(count, R)``, with so many kinds of each size at least."""
    runs = len(sizes[0])
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Tensor] = []
    while len(drawn) < count:
        picked = torch.randint(runs, (runs,), generator=generator)
        if all(len(torch.unique(size[picked])) >= kinds for size in sizes):
            drawn.append(torch.bincount(picked, minlength=runs).double())
    return torch.stack(drawn) if drawn else torch.zeros(0, runs, dtype=torch.float64)


def _spread(residual: Tensor, fitted: int) -> float:
    """Standard deviation, robust: one run that went wrong is no spread of the others."""
    freedom = math.sqrt(len(residual) / (len(residual) - fitted))
    return 1.4826 * float(residual.abs().median()) * freedom


def refuse(n: Tensor, d: Tensor, loss: Tensor) -> None:
    """Raises Refused, with the reason, where runs ``(R,)`` carry no law."""
    if len(n) < 8:
        raise Refused(f"{len(n)} runs are too few for five unknowns: it takes 8 at least.")
    _refuse_values(n, d, loss)
    _refuse_spread("model sizes", n, 3)
    _refuse_spread("amounts of data", d, 3)
    logs = [values.log() - values.log().mean() for values in (n, d, loss)]
    design = torch.stack(logs[:2], 1)
    slopes = torch.linalg.lstsq(design, logs[2][:, None]).solution[:, 0]
    if bool((slopes >= 0).any()):
        worse = "larger models" if slopes[0] >= 0 else "more data"
        raise Refused(f"the loss does not fall with {worse}, so there is nothing to extrapolate.")


def _refuse_values(*columns: Tensor) -> None:
    if not bool(torch.stack([column.isfinite() for column in columns]).all()):
        raise Refused("a run has no finite loss or size: leave it out.")
    if not all(bool((column > 0).all()) for column in columns):
        raise Refused("sizes and losses must be positive.")


def _refuse_spread(name: str, values: Tensor, fewest: int) -> None:
    kinds = len(torch.unique(values))
    if kinds < fewest:
        raise Refused(f"{kinds} {name} are too few: it takes {fewest} at least.")
    if float(values.max() / values.min()) < 10:
        raise Refused(
            f"{name} from {float(values.min()):.3g} to {float(values.max()):.3g} span less "
            "than a factor of 10, over which a power law is a straight line."
        )


#: Exponents that are searched.
LOWEST, HIGHEST = 0.02, 2.0


class Plan(NamedTuple):
    """How thoroughly exponents are searched."""

    size: int  # of the grid, each way
    zooms: int  # how often it closes in
    deltas: tuple[float, ...]  # of Huber's function, one a step of reweighting


#: From squares over the whole spread to Huber's narrow ones: a start at absolute deviations of
#: nothing would hold to whichever runs it met first.
WHOLE = Plan(9, 8, (1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.01))
NEAR = Plan(5, 7, (1.0, 0.1, 0.01))  # resampled runs, whose exponents are not far from the best
LAST = 8  # steps at the narrow one


def _search(
    x: Tensor, y: Tensor, z: Tensor, weights: Tensor, delta: float, near: Hoffmann | None = None
) -> list[Hoffmann]:
    """The best law for each row of weights ``(W, R)`` of the runs; exponents near to ``near``."""
    count, plan = len(weights), WHOLE if near is None else NEAR
    low = torch.full((count, 2), math.log(LOWEST), dtype=torch.float64)
    high = torch.full((count, 2), math.log(HIGHEST), dtype=torch.float64)
    if near is not None:
        centre = torch.tensor([near.alpha, near.beta], dtype=torch.float64).log()
        low, high = centre.expand(count, 2) - math.log(2), centre.expand(count, 2) + math.log(2)
    deltas = (*plan.deltas, *[delta] * LAST)
    unit_n, unit_d = float(x.log().mean().exp()), float(y.log().mean().exp())
    size = plan.size
    steps = torch.linspace(0, 1, size, dtype=torch.float64)
    for _ in range(plan.zooms):
        each = low[:, :, None] + (high - low)[:, :, None] * steps  # (W, 2, S)
        one = each[:, 0, :, None].expand(-1, size, size).reshape(count, -1).exp()
        two = each[:, 1, None, :].expand(-1, size, size).reshape(count, -1).exp()
        columns = torch.stack(
            [
                torch.ones(count, size * size, len(x), dtype=torch.float64),
                (x / unit_n) ** -one[..., None],
                (y / unit_d) ** -two[..., None],
            ],
            3,
        )
        theta, cost = _fit(columns, z, weights[:, None], deltas)
        best = cost.argmin(1)
        rows = torch.arange(count)
        at = torch.stack([one[rows, best], two[rows, best]], 1).log()
        half = (high - low) / (size - 1)  # up to the neighbours on the grid
        low, high = at - half, at + half
    found = []
    for row in range(count):
        place = int(best[row])
        e, a, b = theta[row, place].tolist()
        alpha, beta = float(one[row, place]), float(two[row, place])
        found.append(Hoffmann(e, a * unit_n**alpha, b * unit_d**beta, alpha, beta))
    return found


def _search_power(x: Tensor, z: Tensor, weights: Tensor, delta: float) -> list[Power]:
    """The best law of one quantity for each row of weights ``(W, R)`` of the runs."""
    count, size, unit = len(weights), 33, float(x.log().mean().exp())
    low = torch.full((count, 1), math.log(LOWEST), dtype=torch.float64)
    high = torch.full((count, 1), math.log(HIGHEST), dtype=torch.float64)
    steps = torch.linspace(0, 1, size, dtype=torch.float64)
    rows = torch.arange(count)
    for _ in range(5):
        exponent = (low + (high - low) * steps).exp()  # (W, S)
        power = (x / unit) ** -exponent[..., None]
        columns = torch.stack([torch.ones_like(power), power, torch.zeros_like(power)], 3)
        theta, cost = _fit(columns, z, weights[:, None], (*WHOLE.deltas, *[delta] * LAST))
        best = cost.argmin(1)
        at = exponent[rows, best].log()[:, None]
        half = (high - low) / (size - 1)
        low, high = at - half, (at + half).clamp(max=math.log(HIGHEST))
        low = low.clamp(min=math.log(LOWEST))
    found = []
    for row in range(count):
        alpha = float(exponent[row, best[row]])
        e, a, _ = theta[row, best[row]].tolist()
        found.append(Power(e, a * unit**alpha, alpha))
    return found


def _fit(
    columns: Tensor, z: Tensor, weights: Tensor, deltas: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Coefficients, not negative, ``(..., 3)`` and cost ``(...)`` by reweighted Gauss-Newton."""
    shape = columns.shape[:2]
    value = z.expand(*shape, -1)
    residual = torch.zeros_like(value)
    for delta in deltas:
        pull = weights * delta / residual.abs().clamp(min=delta) / value.square()
        weighted = columns * pull[..., None]
        gram = (weighted.mT @ columns).flatten(0, 1)
        right = (weighted.mT @ (value * (1 + residual))[..., None])[..., 0].flatten(0, 1)
        theta = non_negative(gram, right).reshape(*shape, -1)
        value = torch.maximum((columns @ theta[..., None])[..., 0], z / 20)
        residual = (z / value).log()
    return theta, (weights * huber(residual, deltas[-1])).sum(-1)
