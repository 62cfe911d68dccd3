# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of single samples from predictions and last hidden states; no gradient is computed.

All of them are high (or low) for samples that are hard, rare *or* wrongly labelled, and cannot tell
which. The gradient of the cross-entropy of a linear softmax layer is the outer product of the error
``p - onehot`` and the features, and of a bias the error itself; that is all that is used.
"""

from __future__ import annotations

import torch
from torch import Tensor


def errors(logits: Tensor, target: Tensor) -> Tensor:
    """``p - onehot`` ``(N, C)``, or ``p - t`` for soft targets ``(N, C)``."""
    p = logits.softmax(1)
    if target.ndim == 2:
        return p - target
    return p.scatter_add(1, target[:, None], p.new_full((len(p), 1), -1.0))


def el2n(log_prob: Tensor, collision: Tensor) -> Tensor:
    """Length of the error ``(N,)``, in [0, sqrt 2], from softmax statistics alone.

    Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", arXiv 2107.07075: the root,
    averaged over about 10 trainings, early in each; of one training it is noisy.

    Args:
        log_prob: ``(N,)`` of the target, nats.
        collision: ``(N,)`` sum of squared probabilities.
    """
    p, rest = log_prob.exp(), -torch.expm1(log_prob)
    # As the error of the target and that of the other classes, or 1 - 2 p + p^2 would cancel.
    # The other classes hold `rest` together, so their squares add up to no more than its square.
    others = (collision - p.square()).clamp(min=0).minimum(rest.square())
    return (rest.square() + others).sqrt()


def last_layer_norm(error: Tensor | float, features: Tensor, bias: bool = True) -> Tensor:
    """Length of each sample's gradient at the last layer ``(N,)``.

    The part of GraNd (arXiv 2107.07075) that costs nothing: ``el2n sqrt(|a|^2 + 1)``.

    Args:
        error: ``(N,)`` its length, as `el2n` gives it; or one number for all.
        features: ``(N, D)`` what the layer reads.
        bias: whether the layer has one.
    """
    return error * (features.square().sum(1) + float(bias)).sqrt()


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Logit of the target less the largest other ``(N,)``; the area under it is AUM.

    Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking", arXiv
    2001.10528: the mean over the epochs before the first drop of the learning rate. It is of the
    logits, whose scale drifts while training, and late epochs hide what was learned by heart.
    """
    own = logits.gather(1, target[:, None])[:, 0]
    others = logits.scatter(1, target[:, None], -torch.inf)
    return own - others.amax(1)


def mean_gradient(error: Tensor, features: Tensor, bias: bool = True) -> Tensor:
    """Mean gradient of the last layer ``(C, D)``, with the bias as column ``D``.

    Args:
        error: ``(N, C)`` as `errors` gives it.
        features: ``(N, D)``.
        bias: whether the layer has one.
    """
    return error.mT @ _with_one(features, bias) / max(len(error), 1)


def tracin(error: Tensor, features: Tensor, gradient: Tensor, bias: bool = True) -> Tensor:
    """Inner product of each sample's gradient of the last layer with another ``(N,)``.

    Times the learning rate, summed over checkpoints, this is TracIn of the last layer (Pruthi et
    al., arXiv 2002.08484): positive where a step on the sample lowers the loss whose gradient it
    is, such as `mean_gradient` of the validation set.
    """
    return ((error @ gradient) * _with_one(features, bias)).sum(1)


def _with_one(features: Tensor, bias: bool) -> Tensor:
    return torch.cat([features, torch.ones_like(features[:, :1])], 1) if bias else features
