# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic on a block of whole rows: statistics forward, dlogits backward.

Let z be a row of logits, p its softmax and lp = log p. Every statistic has a gradient of the form

    dz_j = p_j (A + B lp_j + C p_j) + D t_j + E + F 1[j = argmax] + G w_j

with a few numbers a row (w are class weights), so any objective made of row statistics needs no
``(N, V)`` memory: the upstream gradients become `Coefficients`, and one pass turns logits into
dlogits in place. Nothing is computed from z itself or from its log-sum-exp, only from the distance
to the largest logit, x = z - max z, and s = sum exp x: where all logits of a row are large, the
digits that tell them apart are in x alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .problem import NO_CLASS_LEFT

Grads = dict[str, Tensor | None]


class Coefficients(NamedTuple):
    """One number a row, ``(N, 1)``; None where no statistic needs it."""

    a: Tensor | None  # times p
    b: Tensor | None  # times p log p
    c: Tensor | None  # times p^2
    d: Tensor | None  # at the target (or times the soft target)
    e: Tensor | None  # everywhere
    f: Tensor | None  # at the argmax
    g: Tensor | None  # times the class weights

    def rows(self, start: int, stop: int) -> Coefficients:
        """The coefficients of some of the rows."""
        return Coefficients(*(None if x is None else x[start:stop] for x in self))

    def of_exponentials(self, sum_exp: Tensor) -> Coefficients:
        """The same gradient as ``exp(x) (a + b x + c exp(x)) + ...`` with x = z - max z.

        Because p = exp(x) / s and log p = x - log s; `sum_exp` is s ``(N,)``.
        """
        s = sum_exp[:, None]
        a, b, c = self.a, self.b, self.c
        if b is not None:
            a = -b * s.log() if a is None else a - b * s.log()
        return self._replace(
            a=None if a is None else a / s,
            b=None if b is None else b / s,
            c=None if c is None else c / s.square(),
        )


def coefficients(
    grads: Grads,
    stats: dict[str, Tensor],
    mass: Tensor | None,
    classes: int,
    class_weight: Tensor | None = None,
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
    if "mean_log_prob" in g:
        a.append(-g["mean_log_prob"])
    if "weighted_log_prob" in g:
        assert class_weight is not None
        upstream = g["weighted_log_prob"]
        a.append(-upstream * class_weight.to(upstream.dtype).mean())
    everywhere = [g[name] / classes for name in ("mean_logit", "mean_log_prob") if name in g]

    def column(*parts: Tensor) -> Tensor | None:
        if not parts:
            return None
        return (torch.stack(parts).sum(0) if len(parts) > 1 else parts[0])[:, None]

    return Coefficients(
        a=column(*a),
        b=column(-g["entropy"]) if "entropy" in g else None,
        c=column(2 * g["collision"]) if "collision" in g else None,
        d=column(g["log_prob"]) if "log_prob" in g else None,
        e=column(*everywhere),
        f=column(g["confidence"] * stats["confidence"]) if "confidence" in g else None,
        g=column(g["weighted_log_prob"] / classes) if "weighted_log_prob" in g else None,
    )


def nan_without_classes(top: Tensor) -> Tensor:
    """The largest logit of each row, NaN where every class is masked: such a row has no softmax.

    From there on every statistic of the row is NaN, and so is its gradient: never a finite number.
    """
    return torch.where(top < NO_CLASS_LEFT, torch.nan, top)


def target_mass(target: Tensor | None) -> Tensor | None:
    """The sum of each soft target ``(N,)``; None for class indices, whose mass is 1."""
    return target.sum(1) if target is not None and target.ndim == 2 else None


def block_statistics(
    z: Tensor,
    target: Tensor | None,
    class_weight: Tensor | None,
    want: frozenset[str],
    inplace: bool = False,
) -> dict[str, Tensor]:
    """Statistics of a block of logits ``(n, V)``; `MAX_AND_SUM` always.

    The block is a few rows that stay in cache, so each pass here is cheap beside the matrix product
    that made it: that is where the chunked kernel gains on torch's own softmax. z is only read; or
    with `inplace` it is left as ``exp(z - max z)``.
    """
    out: dict[str, Tensor] = {}
    if "prediction" in want:
        top, out["prediction"] = z.max(1)
    else:
        top = z.amax(1)
    out["max_logit"] = top = nan_without_classes(top)
    # Entropy needs x beside e, and then x goes elsewhere.
    x = z.sub_(top[:, None]) if inplace and "entropy" not in want else z - top[:, None]
    if not want.isdisjoint(("mean_logit", "mean_log_prob")):
        mean = x.mean(1)
    if "log_prob" in want:
        assert target is not None
        if target.ndim == 1:
            shifted, mass = x.gather(1, target[:, None]).squeeze(1), None
        else:
            soft = target.to(x.dtype)
            shifted, mass = torch.linalg.vecdot(soft, x), soft.sum(1)
    if "weighted_log_prob" in want:
        assert class_weight is not None
        weight = class_weight.to(x.dtype)
        weighted = torch.mv(x, weight) / len(weight)
    e = x.exp_() if "entropy" not in want else torch.exp(x, out=z if inplace else None)
    s = out["sum_exp"] = e.sum(1)
    log_s = s.log()
    if "logsumexp" in want:
        out["logsumexp"] = top + log_s
    if "mean_logit" in want:
        out["mean_logit"] = mean + top
    if "mean_log_prob" in want:
        out["mean_log_prob"] = mean - log_s
    if "weighted_log_prob" in want:
        out["weighted_log_prob"] = weighted - weight.mean() * log_s
    if "log_prob" in want:
        out["log_prob"] = shifted - (log_s if mass is None else mass * log_s)
    if "entropy" in want:
        out["entropy"] = log_s - torch.linalg.vecdot(e, x) / s
    if "collision" in want:
        out["collision"] = torch.linalg.vecdot(e, e) / s.square()
    if "confidence" in want:
        out["confidence"] = 1 / s
    return out


class Given(NamedTuple):
    """What a gradient is made of beside logits and coefficients, of the same rows."""

    target: Tensor | None
    prediction: Tensor | None
    class_weight: Tensor | None


def block_gradient_(z: Tensor, top: Tensor, k: Coefficients, given: Given) -> Tensor:
    """Turn a block of logits ``(n, V)`` into dlogits, in place.

    `top` is each row's largest logit ``(n,)``; k comes from `Coefficients.of_exponentials`.
    """
    if k.a is None and k.b is None and k.c is None:
        return _add_unweighted_(z.zero_(), k, given)
    x = z.sub_(top[:, None])
    if k.b is None:
        e = x.exp_()
        e.mul_(_weight(e, None, k))
    else:
        e = x.exp()
        _weight(e, x, k).mul_(e)
    return _add_unweighted_(z, k, given)


def exponentials_to_gradient_(e: Tensor, k: Coefficients, given: Given) -> Tensor:
    """Turn ``exp(z - max z)`` ``(n, V)`` into dlogits, in place."""
    if k.a is None and k.b is None and k.c is None:
        return _add_unweighted_(e.zero_(), k, given)
    # Where e is too small for a float, e x is 0, and so is 0 times any number.
    x = None if k.b is None else e.clamp(min=torch.finfo(e.dtype).tiny).log_()
    e.mul_(_weight(e, x, k))
    return _add_unweighted_(e, k, given)


def _weight(e: Tensor, x: Tensor | None, k: Coefficients) -> Tensor:
    """``a + b x + c e`` of at least one; in place of x where b needs that."""
    if k.b is None:
        if k.c is None:
            assert k.a is not None
            return k.a
        return e * k.c if k.a is None else torch.addcmul(k.a, e, k.c)
    assert k.a is not None  # `of_exponentials` makes one of b
    assert x is not None
    weight = x.mul_(k.b).add_(k.a)
    return weight if k.c is None else weight.addcmul_(e, k.c.expand_as(e))


def _add_unweighted_(z: Tensor, k: Coefficients, given: Given) -> Tensor:
    """Add what is not times p."""
    target, prediction, class_weight = given
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
    if k.g is not None:
        assert class_weight is not None
        z.addcmul_(k.g, class_weight.to(z.dtype))
    return z


def gradient(z: Tensor, grads: Grads, given: Given) -> Tensor:
    """dlogits ``(N, V)`` out of place, itself differentiable: the branch for second derivatives."""
    target, prediction, class_weight = given
    log_p = torch.log_softmax(z, dim=1)
    p = log_p.exp()
    stats = {
        "entropy": -(p * log_p).sum(1),
        "collision": p.square().sum(1),
        "confidence": p.amax(1) if prediction is None else p.gather(1, prediction[:, None])[:, 0],
    }
    k = coefficients(grads, stats, target_mass(target), z.shape[1], class_weight)
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
    if k.g is not None:
        assert class_weight is not None
        dz = dz + k.g * class_weight
    return dz
