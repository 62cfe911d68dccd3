# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic on a block of whole rows: statistics forward, dlogits backward.

Let z be a row of logits, p its softmax and lp = log p. Every statistic has a gradient of the form

    dz_j = p_j (A + B lp_j + C p_j) + D t_j + E + F 1[j = argmax]

with a few numbers a row, so any objective made of row statistics needs no ``(N, V)`` memory: the
upstream gradients become `Coefficients`, and one pass turns logits into dlogits in place. Written
with log p rather than z because large logits would cancel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .problem import LOWEST, NO_CLASS_LEFT

Grads = dict[str, Tensor | None]


class Coefficients(NamedTuple):
    """One number a row, ``(N, 1)``; None where no statistic needs it."""

    a: Tensor | None  # times p
    b: Tensor | None  # times p log p
    c: Tensor | None  # times p^2
    d: Tensor | None  # at the target (or times the soft target)
    e: Tensor | None  # everywhere
    f: Tensor | None  # at the argmax

    def rows(self, start: int, stop: int) -> Coefficients:
        """The coefficients of some of the rows."""
        return Coefficients(*(None if x is None else x[start:stop] for x in self))


def coefficients(
    grads: Grads, stats: dict[str, Tensor], mass: Tensor | None, classes: int
) -> Coefficients:
    """From upstream gradients ``(N,)`` by statistic; a missing or None gradient costs nothing.

    `mass` is the sum of each soft target ``(N,)``, None for class indices.
    """
    g = {name: grad for name, grad in grads.items() if grad is not None}
    a: list[Tensor] = []
    if "logsumexp" in g:
        a.append(g["logsumexp"])
    if "log_prob" in g:
        a.append(-g["log_prob"] if mass is None else -g["log_prob"] * mass)
    if "entropy" in g:
        a.append(-g["entropy"] * stats["entropy"])
    if "collision" in g:
        a.append(-2 * g["collision"] * stats["collision"])
    if "confidence" in g:
        a.append(-g["confidence"] * stats["confidence"])

    def column(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, None]

    return Coefficients(
        a=column(torch.stack(a).sum(0) if len(a) > 1 else a[0] if a else None),
        b=column(-g["entropy"] if "entropy" in g else None),
        c=column(2 * g["collision"] if "collision" in g else None),
        d=column(g.get("log_prob")),
        e=column(g["mean_logit"] / classes if "mean_logit" in g else None),
        f=column(g["confidence"] * stats["confidence"] if "confidence" in g else None),
    )


def target_mass(target: Tensor | None) -> Tensor | None:
    """The sum of each soft target ``(N,)``; None for class indices, whose mass is 1."""
    return target.sum(1) if target is not None and target.ndim == 2 else None


def block_statistics(
    z: Tensor, target: Tensor | None, want: frozenset[str], inplace: bool = False
) -> dict[str, Tensor]:
    """Statistics of a block of logits ``(n, V)``; log-sum-exp always.

    The block is a few rows that stay in cache, so each pass here is cheap beside the matrix product
    that made it: that is where the chunked kernel gains on torch's own softmax. z is only read; or
    with `inplace` it is left as ``exp(z - max z)``.
    """
    out: dict[str, Tensor] = {}
    if "prediction" in want:
        top, out["prediction"] = z.max(1, keepdim=True)
        out["prediction"] = out["prediction"].squeeze(1)
    else:
        top = z.amax(1, keepdim=True)
    # Entropy needs x beside e, and then x goes elsewhere.
    x = z.sub_(top) if inplace and "entropy" not in want else z - top
    if "mean_logit" in want:
        out["mean_logit"] = x.mean(1) + top.squeeze(1)
    if "log_prob" in want:
        assert target is not None
        if target.ndim == 1:
            shifted, mass = x.gather(1, target[:, None]).squeeze(1), None
        else:
            soft = target.to(x.dtype)
            shifted, mass = torch.linalg.vecdot(soft, x), soft.sum(1)
    e = x.exp_() if "entropy" not in want else torch.exp(x, out=z if inplace else None)
    s = e.sum(1)
    log_s = s.log()
    out["logsumexp"] = top.squeeze(1) + log_s
    if "log_prob" in want:
        out["log_prob"] = shifted - (log_s if mass is None else mass * log_s)
    if "entropy" in want:
        out["entropy"] = log_s - torch.linalg.vecdot(e, x) / s
    if "collision" in want:
        out["collision"] = torch.linalg.vecdot(e, e) / s.square()
    if "confidence" in want:
        out["confidence"] = 1 / s
    return out


def block_gradient_(
    z: Tensor, logsumexp: Tensor, k: Coefficients, target: Tensor | None, prediction: Tensor | None
) -> Tensor:
    """Turn a block of logits ``(n, V)`` into dlogits, in place."""
    if k.a is None and k.b is None and k.c is None:
        z.zero_()
    else:
        # A row without any class left has p = 0 everywhere, not LOWEST - LOWEST.
        scale = torch.where(logsumexp < NO_CLASS_LEFT, -LOWEST, logsumexp)
        log_p = z.sub_(scale[:, None])
        if k.b is None:
            p = log_p.exp_()
            p.mul_(_weight(p, None, k))
        else:
            p = log_p.exp()
            _weight(p, log_p, k).mul_(p)
    return _add_unweighted_(z, k, target, prediction)


def exponentials_to_gradient_(
    e: Tensor,
    logsumexp: Tensor,
    confidence: Tensor,
    k: Coefficients,
    target: Tensor | None,
    prediction: Tensor | None,
) -> Tensor:
    """Turn ``exp(z - max z)`` ``(n, V)`` into dlogits, in place.

    `confidence` is max p, which is 1 over the sum of a row.
    """
    if k.a is None and k.b is None and k.c is None:
        e.zero_()
    else:
        none_left = logsumexp < NO_CLASS_LEFT  # as in `block_gradient_`
        p = e.mul_(torch.where(none_left, 0, confidence)[:, None])
        # Where e is too small for a float, p log p is 0, and so is 0 times any number.
        log_p = None if k.b is None else p.clamp(min=torch.finfo(p.dtype).tiny).log_()
        p.mul_(_weight(p, log_p, k))
    return _add_unweighted_(e, k, target, prediction)


def _weight(p: Tensor, log_p: Tensor | None, k: Coefficients) -> Tensor:
    """``a + b log p + c p`` of at least one; in place of log p where b needs that."""
    if k.b is None:
        if k.c is None:
            assert k.a is not None
            return k.a
        return p * k.c if k.a is None else torch.addcmul(k.a, p, k.c)
    assert log_p is not None
    weight = log_p.mul_(k.b)
    if k.a is not None:
        weight.add_(k.a)
    return weight if k.c is None else weight.addcmul_(p, k.c.expand_as(p))


def _add_unweighted_(
    z: Tensor, k: Coefficients, target: Tensor | None, prediction: Tensor | None
) -> Tensor:
    """Add what is not times p."""
    if k.e is not None:
        z.add_(k.e)
    if k.d is not None:
        assert target is not None
        if target.ndim == 1:
            z.scatter_add_(1, target[:, None], k.d)
        else:
            z.addcmul_(target.to(z.dtype), k.d)
    if k.f is not None:
        assert prediction is not None
        z.scatter_add_(1, prediction[:, None], k.f)
    return z


def gradient(z: Tensor, grads: Grads, target: Tensor | None, prediction: Tensor | None) -> Tensor:
    """dlogits ``(N, V)`` out of place, itself differentiable: the branch for second derivatives."""
    log_p = torch.log_softmax(z, dim=1)
    p = log_p.exp()
    stats = {
        "entropy": -(p * log_p).sum(1),
        "collision": p.square().sum(1),
        "confidence": p.amax(1) if prediction is None else p.gather(1, prediction[:, None])[:, 0],
    }
    k = coefficients(grads, stats, target_mass(target), z.shape[1])
    dz = torch.zeros_like(z)
    for coefficient, factor in ((k.a, p), (k.b, p * log_p), (k.c, p * p)):
        if coefficient is not None:
            dz = dz + coefficient * factor
    if k.d is not None:
        assert target is not None
        dz = dz.scatter_add(1, target[:, None], k.d) if target.ndim == 1 else dz + k.d * target
    if k.e is not None:
        dz = dz + k.e
    if k.f is not None:
        assert prediction is not None
        dz = dz.scatter_add(1, prediction[:, None], k.f)
    return dz
