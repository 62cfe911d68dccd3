# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Small functions on rows that several losses share: unit vectors, divergences, safe logarithms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST = -1e30  # stands for -inf: exp of it is 0, and 0 times it is 0 rather than NaN


def unit(x: Tensor) -> Tensor:
    """Rows ``(N, D)`` scaled to length 1; a zero row stays zero, with a gradient of order 1.

    `F.normalize` divides by 1e-12 there: finite, and ruinous.
    """
    squared = x.square().sum(-1, keepdim=True)
    zero = squared == 0
    return x / torch.where(zero, torch.ones_like(squared), squared).sqrt()


def log_softmax(z: Tensor) -> Tensor:
    """log p ``(N, C)`` with `LOWEST` instead of -inf, so that p log p is 0 where p is."""
    return F.log_softmax(z.clamp(min=LOWEST), dim=-1).clamp(min=LOWEST)


def energies(logits: Tensor, logits_adv: Tensor) -> dict[str, Tensor]:
    """What losses on perturbed rows tell in their ``diagnostics``: ``E = -log sum_k exp f_k``.

    One value a row, of the input as it is and as it was perturbed, in nats. Under attack the energy
    falls; how far the two lie apart tells the phases of an adversarial training (Mirza et al.,
    arXiv 2407.06315). A constant added to all logits moves both.
    """
    pairs = (("energy", logits), ("energy_adv", logits_adv))
    return {name: -z.detach().logsumexp(1) for name, z in pairs}


def from_top(z: Tensor, dim: int = -1) -> Tensor:
    """Scores less the largest of their row, `LOWEST` instead of -inf, for any function of their
    differences: at 1e6 a float32 has four bits after the point, and a log-sum-exp rounds to these.
    """
    z = z.clamp(min=LOWEST)
    return z - z.detach().amax(dim, keepdim=True) if z.numel() else z


def log_p_and_rest(z: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """``log p`` and ``log(1 - p)`` of every class, both exact where p is near 0 and near 1.

    Only the likeliest class can be so near to 1 that ``1 - p`` rounds away; of that one the
    others' share is summed. ``(..., C, ...)`` with the classes in ``dim``; `LOWEST` stands for
    -inf. With one class ``log(1 - p)`` is `LOWEST`.
    """
    z = from_top(z, dim)
    if not z.numel():
        return z, z
    top = z.detach().argmax(dim, keepdim=True)
    others = z.scatter(dim, top, LOWEST).logsumexp(dim, keepdim=True)
    gap = z.gather(dim, top) - others  # log odds of the likeliest class
    at_top = torch.zeros_like(z, dtype=torch.bool).scatter(dim, top, True)
    log_p = (z - z.logsumexp(dim, keepdim=True)).clamp(min=LOWEST)
    log_p = torch.where(at_top, F.logsigmoid(gap), log_p)
    # At most one half for the others; the clamp keeps the branch that is not taken finite.
    rest = torch.log1p(-torch.where(at_top, -1.0, log_p).exp())
    rest = torch.where(at_top, F.logsigmoid(-gap), rest)
    return log_p.clamp(min=LOWEST), rest.clamp(min=LOWEST)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row ``(N,)``, in nats, from log-probabilities ``(N, C)``."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
