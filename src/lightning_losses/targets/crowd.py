# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Soft targets from the votes of several annotators, who disagree.

Functions over a whole data set, before training: how good an annotator is shows in all of their
votes. The soft targets `(N, C)` go to a loss that takes them, as `ce` does.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Method = Literal["votes", "softmax", "wawa", "zero_based_skill", "dawid_skene"]


def crowd_targets(
    votes: Tensor, num_classes: int, method: Method = "votes", steps: int = 100
) -> Tensor:
    """Soft targets `(N, C)` float64, rows that sum to 1, from votes `(N, A)` of A annotators.

    - `votes`: the share of the votes that each class has.
    - `softmax`: the softmax of the numbers of votes, which leaves no class out (Uma et al. 2020, "A
      Case for Soft Loss Functions").
    - `wawa`: votes weigh as often as their annotator agrees with the majority ("worker agreement
      with aggregate").
    - `zero_based_skill`: the same again and again with what comes out of it, from skills that all
      begin alike; an annotator's skill moves to the share of the weight that theirs agree with.
    - `dawid_skene`: the posterior of the class where each annotator has a confusion matrix of their
      own (Dawid and Skene 1979, doi 10.2307/2346806), by expectation maximisation from `votes`.
      Each matrix is held near the annotator's mean by one vote a class, so that no chance is 0.

    A row without a vote is uniform (of Dawid and Skene, the frequencies of the classes).

    Args:
        votes: int64, class indices; negative where an annotator did not vote.
        num_classes: C.
        method: one of these.
        steps: most iterations of the last two.

    Raises:
        ValueError: votes that are not `(N, A)` integers below num_classes; an unknown method.

    Examples:
        >>> votes = torch.tensor([[0, 0, 1], [1, -1, -1]])  # the second row has one vote
        >>> crowd_targets(votes, num_classes=2)
        tensor([[0.6667, 0.3333],
                [0.0000, 1.0000]], dtype=torch.float64)
    """
    if votes.ndim != 2 or votes.is_floating_point() or method not in get_args(Method):
        raise ValueError(
            f"crowd_targets needs votes (N, A) of integers and one of {', '.join(get_args(Method))}"
            f", found {votes.dtype} {tuple(votes.shape)} and {method!r}"
        )
    if votes.numel() and int(votes.max()) >= num_classes:
        raise ValueError(
            f"votes must be below num_classes={num_classes}, found {int(votes.max())}; write -1 "
            "for no vote, votes - 1 for classes from 1"
        )
    classes = torch.arange(num_classes, device=votes.device)
    voted = (votes[..., None] == classes).double()  # (N, A, C)
    counts = voted.sum(1)
    if method == "softmax":
        return counts.softmax(1)
    if method == "dawid_skene":
        return _dawid_skene(voted, steps)
    target = _shares(counts)
    if method == "votes":
        return target
    many = voted.sum((0, 2)).clamp(min=1)
    if method == "wawa":
        top = counts == counts.amax(1, keepdim=True)
        majority = top.double() / top.sum(1, keepdim=True)  # classes that tie share a vote
        skill = torch.einsum("nac,nc->a", voted, majority) / many
        return _shares(torch.einsum("nac,a->nc", voted, skill))
    for _ in range(steps):
        skill = torch.einsum("nac,nc->a", voted, target) / many
        following = _shares(torch.einsum("nac,a->nc", voted, skill))
        settled = bool((following - target).abs().max() < 1e-9) if target.numel() else True
        target = following
        if settled:
            break
    return target


def conflation(targets: Tensor) -> Tensor:
    """Of M soft targets a row, `(..., M, C)`, the one proportional to their product, `(..., C)`.

    Hill 2011, "Conflations of probability distributions": what independent judgements say together.
    Where they rule out every class, their mean.

    Raises:
        ValueError: fewer than two dimensions, or negative entries.

    Examples:
        >>> conflation(torch.tensor([[0.8, 0.2], [0.8, 0.2]]))  # two who agree are surer than one
        tensor([0.9412, 0.0588])
    """
    if targets.ndim < 2 or bool((targets < 0).any()):
        raise ValueError(f"targets must be (..., M, C), at least 0, found {tuple(targets.shape)}")
    log = targets.log().sum(-2)
    possible = log.amax(-1, keepdim=True) > -torch.inf
    return torch.where(possible, torch.where(possible, log, 0).softmax(-1), targets.mean(-2))


def likelihood_weights(nll: Tensor) -> Tensor:
    """Weights `(M,)` of M models or methods, the least negative log-likelihood over each one's.

    For a weighted mean of their soft targets; divided by their sum. `nll` in nats, positive.

    Raises:
        ValueError: not `(M,)`, or not all positive.

    Examples:
        >>> likelihood_weights(torch.tensor([0.5, 1.0]))
        tensor([0.6667, 0.3333])
    """
    if nll.ndim != 1 or not bool((nll > 0).all()):
        raise ValueError(f"nll must be (M,) and positive, found {tuple(nll.shape)}")
    weight = nll.min() / nll
    return weight / weight.sum()


def _shares(weight: Tensor) -> Tensor:
    """Rows `(N, C)` over their sums; uniform where that is 0."""
    total = weight.sum(1, keepdim=True)
    return torch.where(total > 0, weight / torch.where(total > 0, total, 1), 1 / weight.shape[1])


def _dawid_skene(voted: Tensor, steps: int) -> Tensor:
    target = _shares(voted.sum(1))
    for _ in range(steps):
        prior = (target.sum(0) + 1 / target.shape[1]) / (len(target) + 1)
        # How annotator a votes on rows of class k: (A, k, C).
        seen = torch.einsum("nk,nac->akc", target, voted)
        base = seen.sum(1, keepdim=True) + 1 / seen.shape[-1]
        seen = seen + base / base.sum(-1, keepdim=True)
        confusion = (seen / seen.sum(-1, keepdim=True)).log()
        following = (prior.log() + torch.einsum("nac,akc->nk", voted, confusion)).softmax(1)
        settled = bool((following - target).abs().max() < 1e-9) if target.numel() else True
        target = following
        if settled:
            break
    return target
