# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Rules that weigh terms: from the losses of an optimizer step to the weights of the next.

Plain numbers in float64, a handful of them, without trainer or device, so that a loop of one's own
can use a rule, and so that ranks that see the same losses have the same weights to the last bit.
A term that is absent from a step (weight or loss exactly 0) is NaN there: it keeps its weight and
counts in no mean. Weights have mean 1 over the terms, but for `Uncertainty`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

Numbers = Sequence[float]

FORMS = ("half", "kendall", "revised")


class Rule:
    """What a rule has in common: weights, and a state that is plain numbers."""

    reads_gradients: ClassVar[bool] = False
    """Whether `update` gets the lengths of the terms' gradients."""
    by_epoch: ClassVar[bool] = False
    """Whether `update` is for means of epochs, not of steps."""
    signed: ClassVar[bool] = False
    """Whether terms may be negative."""
    state: ClassVar[tuple[str, ...]] = ()
    """Attributes that go into checkpoints."""

    weights: list[float]

    def start(self, terms: int) -> None:
        """Begin anew with so many terms."""
        self.weights = [1.0] * terms

    def update(self, losses: Numbers, norms: Numbers | None = None) -> list[float]:
        """Take the mean losses of a step (NaN: absent) and return the new weights."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {name: getattr(self, name) for name in ("weights", *self.state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for name, value in state.items():
            setattr(self, name, list(value) if isinstance(value, list) else value)


class Uncertainty(Rule):
    """Weights of learned variances: a term that is large is held to be noisy, and weighs less.

    Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", arXiv
    1705.07115: with ``s = log sigma^2`` the objective is the sum of ``L e^-s / 2 + s / 2``, whose
    gradient ``(1 - L e^-s) / 2`` needs the value of L alone, so s moves here, by gradient descent
    of its own, and not in the optimizer of the model, where weight decay would pull it to 0. At the
    optimum e^s = L: the weight is 1 / (2 L), and what is minimised is the geometric mean. The total
    that is logged has no s / 2; terms may be negative in form, but their optimum is minus infinity.
    A loss far above 1 throws s to ``limit`` at once, from where it comes back by ``lr / 2`` a step:
    the term is next to absent until then. Scale such a term, or lower ``limit``.

    Args:
        lr: of s, by plain gradient descent.
        form: ``half`` as above; ``kendall`` takes ``L e^-s`` for softmax terms, which ``kinds``
            names; ``revised`` is Liebel and Koerner's ``L / (2 c^2) + log(1 + c^2)`` (arXiv
            1805.06334), never negative, with c the parameter.
        kinds: for ``kendall``, ``regression`` or ``classification`` of each term, in order.
        initial: s, or c for ``revised``, of every term; null is 0, and 1 for ``revised``.
        normalize: divide the weights by their mean. At s = 0 they are 1/2, so without it the
            learning rate is halved.
        limit: s stays within plus and minus this; a term that goes to 0 would drive it to infinity.

    Raises:
        ValueError: another form; kinds that form does not go with; lr or limit not positive.

    Examples:
        >>> rule = Uncertainty(lr=0.1)
        >>> rule.start(terms=2)
        >>> for _ in range(200):
        ...     weights = rule.update([2.0, 0.5])
        >>> [round(weight, 3) for weight in weights]  # 1 / (2 L)
        [0.25, 1.0]
    """

    state = ("parameters",)
    signed = True

    def __init__(
        self,
        lr: float = 0.025,
        form: Literal["half", "kendall", "revised"] = "half",
        kinds: Sequence[str] | None = None,
        initial: float | None = None,
        normalize: bool = False,
        limit: float = 10.0,
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form is {form!r}; write one of {', '.join(FORMS)}.")
        if (form == "kendall") != (kinds is not None):
            raise ValueError(
                "form='kendall' needs kinds, the kind of each term in order: write "
                "kinds: [regression, classification]. Other forms take none."
            )
        if wrong := sorted(set(kinds or ()) - {"regression", "classification"}):
            raise ValueError(f"kinds are regression and classification, found {wrong}.")
        if not (lr > 0 and limit > 0):
            raise ValueError(f"lr and limit must be positive, got {lr} and {limit}.")
        self.lr, self.form, self.kinds = lr, form, None if kinds is None else list(kinds)
        self.initial, self.normalize, self.limit = initial, normalize, limit

    def start(self, terms: int) -> None:
        """Begin anew with so many terms. Raises ValueError unless there are as many kinds."""
        if self.kinds is not None and len(self.kinds) != terms:
            raise ValueError(f"kinds names {len(self.kinds)} terms, and there are {terms}.")
        first = float(self.form == "revised") if self.initial is None else self.initial
        self.parameters = [first] * terms
        self.weights = self.current()

    def value(self, losses: Numbers) -> float:
        """The objective that the parameters descend."""
        parts = zip(self._raw_weights(), losses, self.parameters, strict=True)
        if self.form == "revised":
            return math.fsum(w * loss + math.log1p(c * c) for w, loss, c in parts)
        return math.fsum(w * loss + s / 2 for w, loss, s in parts)

    def gradient(self, losses: Numbers) -> list[float]:
        """Its gradient with respect to the parameters; 0 for terms that are absent."""
        found = []
        for weight, loss, at in zip(self._raw_weights(), losses, self.parameters, strict=True):
            if math.isnan(loss):
                found.append(0.0)
            elif self.form == "revised":
                found.append(-loss / at**3 + 2 * at / (1 + at * at))
            else:
                found.append(0.5 - weight * loss)
        return found

    def update(self, losses: Numbers, norms: Numbers | None = None) -> list[float]:
        steps = zip(self.parameters, self.gradient(losses), strict=True)
        moved = [at - self.lr * slope for at, slope in steps]
        low = math.exp(-self.limit / 2) if self.form == "revised" else -self.limit
        high = math.exp(self.limit / 2) if self.form == "revised" else self.limit
        self.parameters = [min(max(at, low), high) for at in moved]
        self.weights = self.current()
        return self.weights

    def _raw_weights(self) -> list[float]:
        if self.form == "revised":
            return [1 / (2 * c * c) for c in self.parameters]
        kinds = self.kinds or ["regression"] * len(self.parameters)
        half = [1.0 if kind == "classification" else 0.5 for kind in kinds]
        return [h * math.exp(-s) for h, s in zip(half, self.parameters, strict=True)]

    def current(self) -> list[float]:
        """Weights of the parameters as they are."""
        raw = self._raw_weights()
        mean = math.fsum(raw) / len(raw) if self.normalize else 1.0
        return [weight / mean for weight in raw]


class GradNorm(Rule):
    """Weights that bring gradients to one length, longer for terms that learn slowly.

    Chen et al., "GradNorm", arXiv 1711.02257: with G_i the length of the weighted gradient of term
    i and r_i its loss against its first one, over their mean, each weight moves by ``lr`` against
    ``sign(G_i - mean(G) r_i^alpha) |gradient of L_i|``; then all are divided by their mean. Weights
    are kept at least at ``floor``, where the paper lets them turn negative. A step is as long as
    the gradient: a term whose gradient has length 8 moves by 0.2 at a time, and swings between the
    floor and there where an even share were 0.01. Scale such a term, or lower ``lr``.

    Args:
        alpha: 1.5 in the paper for tasks that differ much, 0.12 for symmetric ones; 0 brings all
            gradients to one length.
        lr: 0.025 in the paper.
        window: steps whose mean is the first loss; one batch alone is noise.
        floor: smallest weight.

    Raises:
        ValueError: settings out of range.

    Examples:
        >>> rule = GradNorm(alpha=0.0, lr=0.1, window=1)
        >>> rule.start(terms=2)
        >>> [round(weight, 2) for weight in rule.update([1.0, 1.0], norms=[4.0, 1.0])]
        [0.71, 1.29]
    """

    reads_gradients = True
    state = ("first", "seen")

    def __init__(
        self, alpha: float = 1.5, lr: float = 0.025, window: int = 20, floor: float = 1e-3
    ) -> None:
        if not (alpha >= 0 and lr > 0 and window >= 1 and 0 < floor < 1):
            raise ValueError(
                "gradnorm needs alpha >= 0, lr > 0, window >= 1 and 0 < floor < 1, got "
                f"{alpha}, {lr}, {window} and {floor}."
            )
        self.alpha, self.lr, self.window, self.floor = alpha, lr, window, floor

    def start(self, terms: int) -> None:
        super().start(terms)
        self.first, self.seen = [0.0] * terms, [0] * terms

    def targets(self, losses: Numbers, norms: Numbers) -> list[float]:
        """The length that each weighted gradient should have; NaN for terms that are absent."""
        here = _present(losses, norms)
        lengths = {i: self.weights[i] * norms[i] for i in here}
        rate = {i: losses[i] / self.first[i] for i in here}
        mean_length, mean_rate = _mean(lengths.values()), _mean(rate.values())
        return [
            mean_length * (rate[i] / mean_rate) ** self.alpha if i in rate else math.nan
            for i in range(len(losses))
        ]

    def gradient(self, losses: Numbers, norms: Numbers) -> list[float]:
        """Of ``sum |G_i - target_i|`` with respect to the weights, with fixed targets."""
        found = []
        for weight, norm, target in zip(
            self.weights, norms, self.targets(losses, norms), strict=True
        ):
            gap = 0.0 if math.isnan(target) else weight * norm - target
            found.append(math.copysign(norm, gap) if gap else 0.0)
        return found

    def update(self, losses: Numbers, norms: Numbers | None = None) -> list[float]:
        assert norms is not None
        for i in _present(losses):
            if self.seen[i] < self.window:
                self.first[i] += (losses[i] - self.first[i]) / (self.seen[i] + 1)
                self.seen[i] += 1
        here = _present(losses, norms)
        if len(here) > 1:
            slopes = self.gradient(losses, norms)
            moved = [
                max(w - self.lr * slope, self.floor)
                for w, slope in zip(self.weights, slopes, strict=True)
            ]
            mean = _mean(moved)
            self.weights = [weight / mean for weight in moved]
        return self.weights


class DWA(Rule):
    """Weights by how fast losses fall: a term that has stopped falling gains.

    Dynamic weight average of Liu, Johns and Davison, arXiv 1803.10704: n times the softmax of
    ``r / temperature``, with r the mean loss of the last epoch over that of the epoch before; the
    first two epochs are not weighed. Only rates count: with ratios near 1 the weights stay near 1,
    and terms of different scale stay so.

    Args:
        temperature: small sharpens; 2 in the paper.
        every_n_steps: optimizer steps that make an epoch; null for the epochs of the training.

    Raises:
        ValueError: a temperature that is not positive, or fewer than one step an epoch.

    Examples:
        >>> rule = DWA(temperature=2.0)
        >>> rule.start(terms=2)
        >>> _ = rule.update([1.0, 1.0])  # mean losses of an epoch
        >>> [round(weight, 3) for weight in rule.update([0.5, 1.0])]  # the first fell by half
        [0.876, 1.124]
    """

    by_epoch = True
    state = ("before", "last")

    def __init__(self, temperature: float = 2.0, every_n_steps: int | None = None) -> None:
        if not temperature > 0 or (every_n_steps is not None and every_n_steps < 1):
            raise ValueError(
                "dwa needs temperature > 0 and every_n_steps at least 1 or null, got "
                f"{temperature} and {every_n_steps}."
            )
        self.temperature, self.every_n_steps = temperature, every_n_steps

    def start(self, terms: int) -> None:
        super().start(terms)
        self.before: list[float] = [math.nan] * terms
        self.last: list[float] = [math.nan] * terms

    def update(self, losses: Numbers, norms: Numbers | None = None) -> list[float]:
        for i in _present(losses):
            self.before[i], self.last[i] = self.last[i], losses[i]
        rates = [
            (last / before) / self.temperature if before > 0 else math.nan
            for last, before in zip(self.last, self.before, strict=True)
        ]
        self.weights = _spread(rates, self.weights)
        return self.weights


class ReLoBRaLo(Rule):
    """Weights by how losses compare with the step before, and now and then with the first.

    Bischof and Kraus, "Multi-Objective Loss Balancing for Physics-Informed Deep Learning", arXiv
    2110.09813: ``w = alpha (rho w + (1 - rho) h(first)) + (1 - alpha) h(last)`` with h(past) n
    times the softmax of ``L / (temperature past)`` and rho 1 or, with chance ``1 - rho``, 0. The
    first step is not weighed, after the second the weights are h(last) alone, as in the authors'
    code. Made for full batches: with minibatches ratios of single steps are noise, and a larger
    temperature is needed. The draws come from a generator of its own, which checkpoints keep.

    Args:
        alpha: memory; 0.999 in the authors' code.
        temperature: 1 in their code, 0.1 in the paper.
        rho: chance not to look back, in [0, 1]; 0.999 in the paper.
        seed: of the draws.

    Raises:
        ValueError: alpha or rho outside [0, 1], or a temperature that is not positive.

    Examples:
        >>> rule = ReLoBRaLo(alpha=0.0, temperature=1.0)
        >>> rule.start(terms=2)
        >>> _ = rule.update([1.0, 1.0])
        >>> [round(weight, 3) for weight in rule.update([0.5, 1.0])]
        [0.755, 1.245]
    """

    state = ("first", "last", "steps", "draws")
    epsilon = 1e-12

    def __init__(
        self, alpha: float = 0.999, temperature: float = 1.0, rho: float = 0.999, seed: int = 0
    ) -> None:
        if not (0 <= alpha <= 1 and temperature > 0 and 0 <= rho <= 1):
            raise ValueError(
                "relobralo needs alpha and rho in [0, 1] and temperature > 0, got "
                f"{alpha}, {rho} and {temperature}."
            )
        self.alpha, self.temperature, self.rho, self.seed = alpha, temperature, rho, seed

    def start(self, terms: int) -> None:
        super().start(terms)
        self.first: list[float] = [math.nan] * terms
        self.last: list[float] = [math.nan] * terms
        self.steps = self.draws = 0

    def update(self, losses: Numbers, norms: Numbers | None = None) -> list[float]:
        alpha = (1.0, 0.0)[self.steps] if self.steps < 2 else self.alpha
        # One draw a step whatever happens; from the count, so that a resumed run draws the same.
        keep = random.Random(f"{self.seed}/{self.draws}").random() < self.rho
        self.draws += 1
        return self.step(losses, alpha, keep)

    def step(self, losses: Numbers, alpha: float, keep: bool) -> list[float]:
        """One step of this memory, looking back to the first losses unless ``keep``."""
        self.steps += 1
        for i in _present(losses):
            if math.isnan(self.first[i]):
                self.first[i] = self.last[i] = losses[i]
        recent = self._against(losses, self.last)
        back = self.weights if keep else self._against(losses, self.first)
        self.weights = [alpha * b + (1 - alpha) * r for b, r in zip(back, recent, strict=True)]
        for i in _present(losses):
            self.last[i] = losses[i]
        return self.weights

    def _against(self, losses: Numbers, past: Numbers) -> list[float]:
        scores = [
            loss / (self.temperature * then + self.epsilon)
            for loss, then in zip(losses, past, strict=True)
        ]
        return _spread(scores, self.weights)


def _present(*each: Numbers) -> list[int]:
    """Places where every list has a number other than 0."""
    return [
        i
        for i, values in enumerate(zip(*each, strict=True))
        if all(value == value and value != 0 for value in values)
    ]


def _spread(scores: Numbers, weights: Numbers) -> list[float]:
    """n times the softmax over the scores that there are; weights without one stay."""
    here = [i for i, score in enumerate(scores) if not math.isnan(score)]
    if not here:
        return list(weights)
    top = max(scores[i] for i in here)
    powers = {i: math.exp(scores[i] - top) for i in here}
    total = math.fsum(powers.values())
    # Together they weigh what they weighed before, n where all are there.
    share = math.fsum(weights[i] for i in here)
    return [share * powers[i] / total if i in powers else w for i, w in enumerate(weights)]


def _mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values)
