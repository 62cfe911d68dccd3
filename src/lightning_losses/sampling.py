# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Drawing tokens: what rollouts and predict steps need beside the losses that read what was drawn.

Plain functions of logits ``(..., V)``, and two controllers with a state of their own. Randomness is
that of the generator that is passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_losses.losses.shared.relative_entropy import EntropyScale, entropy_scale
from lightning_losses.softmax import may_ask

__all__ = [
    "Draw",
    "EntropyGate",
    "EntropyScale",
    "Mirostat",
    "adaptive_temperature",
    "draw",
    "entropy_scale",
    "truncate",
]


class Draw(NamedTuple):
    """Tokens ``(...)`` int64 and their log-probabilities ``(...)``, nats.

    Examples:
        >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> drawn = draw(truncate(logits, top_k=1), source=logits)  # one token is left
        >>> drawn.token, drawn.log_prob, drawn.full_log_prob.exp()
        (tensor([0]), tensor([0.]), tensor([0.5000]))
    """

    token: Tensor  # int64
    log_prob: Tensor  # under the distribution that they were drawn from, nats
    full_log_prob: Tensor  # under the logits as they were, untempered and with all tokens


def truncate(
    logits: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    min_keep: int = 1,
) -> Tensor:
    """Logits to draw from: divided by the temperature, with -inf for tokens that are left out.

    In this order; for another call it several times. Tokens that are -inf stay so.

    Args:
        logits: ``(..., V)``.
        temperature: positive; a number, or one a row, ``(...)``.
        top_k: keep the k likeliest, and what is equal to the last of them.
        top_p: keep the likeliest that together have this mass; the one that crosses it is kept
            (nucleus sampling, arXiv 1904.09751).
        min_p: keep what is at least this fraction as likely as the likeliest (arXiv 2407.01082).
        min_keep: how many of the likeliest top_p and min_p keep at least.

    Returns:
        ``(..., V)`` in float32 at least, differentiable.

    Raises:
        ValueError: settings out of range; on a CPU, a row of -inf or NaN alone.

    Examples:
        >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
        >>> truncate(logits, top_p=0.6).softmax(-1)  # the likeliest two
        tensor([0.6250, 0.3750, 0.0000])
        >>> truncate(logits, temperature=0.5).softmax(-1)
        tensor([0.6579, 0.2368, 0.1053])
    """
    _check(temperature, top_k, top_p, min_p, min_keep)
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    _refuse_empty(z)
    z = z / (temperature[..., None] if isinstance(temperature, Tensor) else temperature)
    size = z.shape[-1]
    if top_k is not None:
        last = z.topk(min(top_k, size), -1).values[..., -1:]
        z = z.masked_fill(z < last, -torch.inf)
    for fraction, outside in ((top_p, _outside_mass), (min_p, _unlikely)):
        if fraction is not None:
            z = z.masked_fill(outside(z, fraction, min_keep), -torch.inf)
    return z


def draw(
    logits: Tensor, generator: torch.Generator | None = None, source: Tensor | None = None
) -> Draw:
    """A token from each row of logits ``(..., V)``, such as `truncate` makes them.

    For a policy loss pass the ``old_log_prob`` of the distribution that the token was drawn from,
    and have the loss use the same temperature and tokens; or the full one of both.

    Args:
        logits: ``(..., V)``, what is drawn from; -inf is never drawn.
        generator: of the device of the logits; None for torch's global one.
        source: ``(..., V)``, the logits before they were truncated, for full_log_prob; None for
            these.

    Returns:
        Tokens ``(...)`` int64, and two log-probabilities of them ``(...)``, nats.

    Examples:
        >>> logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
        >>> drawn = draw(logits.repeat(4, 1), torch.Generator().manual_seed(0))
        >>> drawn.token.shape, drawn.log_prob.equal(logits[0, drawn.token])
        (torch.Size([4]), True)
    """
    log_p = logits.log_softmax(-1)
    flat = log_p.exp().reshape(-1, log_p.shape[-1])
    token = torch.multinomial(flat, 1, generator=generator).reshape(logits.shape[:-1])
    full = log_p if source is None else source.to(log_p.dtype).log_softmax(-1)
    return Draw(token, _pick(log_p, token), _pick(full, token))


def adaptive_temperature(
    logits: Tensor, scale: EntropyScale, temperature: float = 1.0, tau: float = 0.05
) -> Tensor:
    """``temperature * (1 + tau * h)`` of each row ``(...)``: open tokens are drawn a little hotter.

    HAPO (arXiv 2509.16591): h is where the entropy of the row lies among those of the batch before,
    from -1 to 1; see `entropy_scale`, which makes a scale of entropies and their mask.

    Args:
        logits: ``(..., V)``.
        scale: of an earlier batch.
        temperature: at h = 0, positive.
        tau: how much it moves, in [0, 1).

    Raises:
        ValueError: a temperature or tau out of range.

    Examples:
        >>> scale = entropy_scale(torch.tensor([0.1, 0.3, 0.5, 0.6]))
        >>> logits = torch.tensor([[9.0, 0.0], [0.0, 0.0]])  # a sure row and an open one
        >>> adaptive_temperature(logits, scale, tau=0.05)
        tensor([0.9500, 1.0500])
    """
    if not (temperature > 0 and 0 <= tau < 1):
        raise ValueError(
            f"temperature must be positive and tau in [0, 1), got {temperature} and {tau}."
        )
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    entropy = -torch.where(p > 0, p * log_p, 0).sum(-1)
    return temperature * (1 + tau * scale.place(entropy))


@dataclass(frozen=True)
class EntropyGate:
    """AEPO's choice of temperature for extra samples, by the entropy of the last step.

    Wang et al., "Arbitrary Entropy Policy Optimization", arXiv 2510.08141: at or below the target
    samples are drawn hot, above it cold and half as many; the term `aepo` makes the rewarded of
    them likelier, which moves entropy towards the target from either side.

    Examples:
        >>> gate = EntropyGate(target=0.5)
        >>> gate.choose(0.3), gate.choose(0.9)  # temperature, samples
        ((1.2, 60), (0.8, 30))
    """

    target: float = 0.5  # nats
    hot: float = 1.2
    cold: float = 0.8
    samples: int = 60

    def choose(self, entropy: float) -> tuple[float, int]:
        """The temperature, and how many samples to draw, after a step of this entropy in nats."""
        if entropy <= self.target:
            return self.hot, self.samples
        return self.cold, self.samples // 2


class Mirostat:
    """Holds the surprise of what is drawn at a target, by feedback. Basu et al., arXiv 2007.14966.

    A state a sequence: make one object for a batch of generations and use it for every token, in
    place of top-k and top-p (a temperature may come before)::

        sampler = Mirostat(len(prompts), target=3.0)
        kept = sampler.truncate(logits)                  # (B, V)
        token = draw(kept, generator).token
        sampler.observe(logits, kept, token)

    Surprise is ``-log2 p``, in bits. Version 2 keeps the tokens of a surprise of at most mu;
    version 1 as many as Zipf's law says give the target. mu begins at twice the target, and moves
    by ``rate * (surprise - target)``. It is held within 0 and ``log2 V + target``, or it would run
    away where the target cannot be reached.

    Args:
        batch: how many sequences.
        target: surprise in bits, positive.
        rate: of the feedback.
        version: 2, or 1.
        surprise: of the ``kept`` distribution, as in llama.cpp, or of the ``full`` one, as in the
            paper; the text's perplexity is of the full one.
        rounding: of the number of tokens of version 1: ``paper`` is round(k) + 1, ``floor`` is
            llama.cpp's.
        ratios: how many of the likeliest tokens tell the exponent of version 1.
        vocabulary: n in its formula, None for the number of logits; 50000 in the paper's code.

    Attributes:
        mu: ``(batch,)`` float64, bits.
        exponent: ``(batch,)`` Zipf's exponent of the last call of version 1.

    Raises:
        ValueError: settings out of range.

    Examples:
        >>> sampler = Mirostat(1, target=1.0)
        >>> logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
        >>> kept = sampler.truncate(logits)  # what has at most mu = 2 bits
        >>> kept.isfinite()
        tensor([[ True,  True, False, False]])
        >>> sampler.observe(logits, kept, torch.tensor([0]))  # -log2 of 2 / 3
        tensor([0.5850], dtype=torch.float64)
        >>> sampler.mu
        tensor([2.0415], dtype=torch.float64)
    """

    def __init__(
        self,
        batch: int,
        target: float = 3.0,
        rate: float = 0.1,
        version: Literal[1, 2] = 2,
        surprise: Literal["kept", "full"] = "kept",
        rounding: Literal["paper", "floor"] = "floor",
        ratios: int = 100,
        vocabulary: int | None = None,
    ) -> None:
        if not (target > 0 and rate >= 0 and ratios >= 1):
            raise ValueError(
                "target must be positive, rate at least 0 and ratios at least 1, got "
                f"{target}, {rate} and {ratios}; write 3.0, 0.1, 100."
            )
        if vocabulary is not None and vocabulary < 2:
            raise ValueError(f"vocabulary must be at least 2, got {vocabulary}.")
        for name, value, words in (
            ("version", version, (1, 2)),
            ("surprise", surprise, ("kept", "full")),
            ("rounding", rounding, ("paper", "floor")),
        ):
            if value not in words:
                raise ValueError(f"{name} must be one of {words}, got {value!r}.")
        self.target, self.rate, self.version = target, rate, version
        self.surprise, self.rounding = surprise, rounding
        self.ratios, self.vocabulary = ratios, vocabulary
        self.mu = torch.full((batch,), 2 * target, dtype=torch.float64)
        self.exponent = torch.full((batch,), math.nan, dtype=torch.float64)

    @torch.no_grad()
    def truncate(self, logits: Tensor) -> Tensor:
        """Logits ``(batch, V)`` with -inf for what is not to be drawn; at least one token stays."""
        _refuse_empty(logits)
        z = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log_p = z.log_softmax(-1)
        order = log_p.argsort(dim=-1, descending=True, stable=True)
        ordered = log_p.gather(-1, order)
        self.mu = self.mu.to(log_p.device)
        if self.version == 2:
            kept = -ordered / math.log(2) <= self.mu[:, None]
        else:
            place = torch.arange(z.shape[-1], device=z.device)
            kept = place < self._zipf(ordered.double())[:, None]
        kept[:, 0] = True
        return z.masked_fill(~torch.zeros_like(kept).scatter(-1, order, kept), -torch.inf)

    @torch.no_grad()
    def observe(self, logits: Tensor, kept: Tensor, token: Tensor) -> Tensor:
        """Move mu by what was drawn; returns its surprise in bits ``(batch,)``."""
        of = kept if self.surprise == "kept" else logits
        surprise = -_pick(of.double().log_softmax(-1), token) / math.log(2)
        largest = math.log2(logits.shape[-1]) + self.target
        self.mu = (self.mu - self.rate * (surprise - self.target)).clamp(0, largest)
        return surprise

    def _zipf(self, log_p: Tensor) -> Tensor:
        """How many of the tokens sorted by log-probability ``(batch, V)`` version 1 keeps."""
        size = log_p.shape[-1]
        m = min(self.ratios, size - 1)
        i = torch.arange(1, m + 1, dtype=log_p.dtype, device=log_p.device)
        t = ((i + 1) / i).log()
        b = log_p[:, :m] - log_p[:, 1 : m + 1]
        some = b.isfinite()  # excluded tokens tell nothing
        t = torch.where(some, t, 0)
        squares = t.square().sum(-1)
        s = (t * torch.where(some, b, 0)).sum(-1) / torch.where(squares > 0, squares, 1)
        self.exponent = s
        n = float(max(size, 2) if self.vocabulary is None else self.vocabulary)
        # (s - 1) / (1 - n^-(s - 1)) is 1 / log n where s is 1.
        epsilon = s - 1
        near = epsilon.abs() < 1e-9
        part = torch.where(near, 1.0, epsilon)
        part = torch.where(near, 1 / math.log(n), part / -torch.expm1(-part * math.log(n)))
        k = (part * 2**self.mu) ** (1 / s.clamp(min=1e-9))
        k = k.clamp(max=float(size))
        return k.round() + 1 if self.rounding == "paper" else k.floor().clamp(min=1)


def _outside_mass(z: Tensor, mass: float, least: int) -> Tensor:
    """Tokens beyond the likeliest that have this mass together, and beyond the ``least`` first."""
    ascending, order = z.sort(dim=-1, stable=True)
    p = ascending.softmax(-1)
    # Where the mass is met exactly, rounding must not decide.
    slack = 4 * torch.finfo(p.dtype).eps
    out = p.cumsum(-1) <= 1 - mass + (slack if mass < 1 else -slack)
    out[..., max(z.shape[-1] - least, 0) :] = False
    return torch.zeros_like(out).scatter(-1, order, out)


def _unlikely(z: Tensor, fraction: float, least: int) -> Tensor:
    """Tokens less than this fraction as likely as the likeliest, beyond the ``least`` likeliest."""
    if not fraction:
        return torch.zeros_like(z, dtype=torch.bool)
    best = z.topk(min(least, z.shape[-1]), -1).indices
    return (z < z.amax(-1, keepdim=True) + math.log(fraction)).scatter(-1, best, False)


def _pick(log_p: Tensor, token: Tensor) -> Tensor:
    return log_p.gather(-1, token[..., None])[..., 0]


def _refuse_empty(z: Tensor) -> None:
    if may_ask(z) and z.numel() and not bool((z.amax(-1) > -torch.inf).all()):
        raise ValueError(
            "a row of logits holds -inf for every token, or NaN: nothing is left to draw."
        )


def _check(
    temperature: float | Tensor,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    min_keep: int,
) -> None:
    wrong: Sequence[tuple[bool, str]] = (
        (not isinstance(temperature, Tensor) and not temperature > 0, "temperature positive"),
        (top_k is not None and top_k < 1, "top_k at least 1"),
        (top_p is not None and not 0 <= top_p <= 1, "top_p in [0, 1]"),
        (min_p is not None and not 0 <= min_p <= 1, "min_p in [0, 1]"),
        (min_keep < 1, "min_keep at least 1"),
    )
    said = [text for bad, text in wrong if bad]
    if said:
        raise ValueError(
            f"{', '.join(said)} is needed, got temperature={temperature}, top_k={top_k}, "
            f"top_p={top_p}, min_p={min_p}, min_keep={min_keep}."
        )
