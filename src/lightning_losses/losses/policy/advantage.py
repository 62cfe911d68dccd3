# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Advantages of responses against the others that were sampled for the same prompt."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


@torch.no_grad()
def grpo_advantage(reward: Tensor, group_id: Tensor, divide_by_std: bool = True) -> Tensor:
    """``(R - mean) / (std + 1e-6)`` within each group of responses to one prompt.

    Group-relative advantage (DeepSeekMath, arXiv 2402.03300); without the division it is that of
    Dr. GRPO (arXiv 2503.20783). The standard deviation is the unbiased one. A group of one keeps
    its reward; a group of equal rewards gets 0. A group must be whole on one rank.

    Args:
        reward: ``(B,)`` float, one a response.
        group_id: ``(B,)`` int64, equal for the responses to one prompt.
        divide_by_std: divide by the standard deviation of the group.

    Returns:
        ``(B,)`` without gradient, float32 at least. For compute_loss, repeat it over the tokens of
        each response: ``advantage[:, None].expand_as(target)``.

    Raises:
        ValueError: shapes differ.
    """
    reward, group = _grouped(reward, group_id)

    def total(values: Tensor) -> Tensor:
        return _total(values, group)

    size = total(torch.ones_like(reward))
    # Around some reward of the group, so that equal rewards leave exactly 0.
    centred = reward - reward.new_zeros(len(reward)).index_copy(0, group, reward)[group]
    centred = centred - total(centred) / size
    alone = size == 1
    if divide_by_std:
        std = (total(centred.square()) / (size - 1).clamp(min=1)).sqrt()
        return torch.where(alone, reward / (1 + 1e-6), centred / (std + 1e-6))
    return torch.where(alone, reward, centred)


@torch.no_grad()
def rloo_advantage(reward: Tensor, group_id: Tensor) -> Tensor:
    """``R - mean of the others`` within each group of responses to one prompt.

    Leave-one-out REINFORCE (Ahmadian et al., arXiv 2402.14740). A group of one keeps its reward.
    Arguments, result and errors are those of `grpo_advantage`.
    """
    reward, group = _grouped(reward, group_id)
    size = _total(torch.ones_like(reward), group)
    others = (_total(reward, group) - reward) / (size - 1).clamp(min=1)
    return torch.where(size > 1, reward - others, reward)


@torch.no_grad()
def hapo_advantage(
    reward: Tensor, group_id: Tensor, length: Tensor, smooth_threshold: float = 5.0
) -> Tensor:
    """``(R - mean) / (std + 1e-6)`` with mean and standard deviation over the tokens of a group.

    HAPO (arXiv 2509.16591): a long response counts as often as it has tokens. The standard
    deviation is the biased one. A group in which some response reaches the threshold gets
    `grpo_advantage` instead.

    Args:
        reward: ``(B,)`` float, one a response.
        group_id: ``(B,)`` int64, equal for the responses to one prompt.
        length: ``(B,)`` tokens of each response that count.
        smooth_threshold: size of an advantage that is too large.

    Returns:
        ``(B,)`` without gradient, 0 for a response without tokens.

    Raises:
        ValueError: shapes differ.
    """
    if length.shape != reward.shape:
        raise ValueError(
            f"length must be {tuple(reward.shape)}, as reward, got {tuple(length.shape)}: write "
            "mask.sum(1)."
        )
    plain = grpo_advantage(reward, group_id)
    reward, group = _grouped(reward, group_id)
    tokens = length.to(reward.dtype)
    size = _total(tokens, group).clamp(min=1)
    centred = reward - _total(tokens * reward, group) / size
    std = (_total(tokens * centred.square(), group) / size).sqrt()
    advantage = torch.where(tokens > 0, centred / (std + 1e-6), 0)
    large = _total((advantage.abs() >= smooth_threshold).to(reward.dtype), group) > 0
    return torch.where(tokens > 0, torch.where(large, plain, advantage), 0)


@torch.no_grad()
def canon_advantage(
    reward: Tensor,
    metric: Tensor,
    group_id: Tensor,
    alpha: float = 1.0,
    beta: float = 0.0,
    mu: float = 1.0,
    scaled: Literal["low", "high"] = "low",
) -> Tensor:
    """A response of the half with the higher metric against the mean of the lower half, and back.

    CANON (Chen et al., arXiv 2509.23962): each group is split at the middle by a metric, such as
    mean entropy or length, so that which half is the better shows. With R_low, R_high the mean
    rewards of the halves::

        high:  mu (R - alpha R_low + beta) + (1 - mu) (R - R_high)
        low:   mu (alpha R - R_high - beta) + (1 - mu) (R - R_low)

    The middle one of an odd group is of the higher half; ties go by their order. A group of one
    keeps its reward. The authors divide by the largest length: see `SequenceWeight`.

    Args:
        reward: ``(B,)`` float, one a response.
        metric: ``(B,)`` float.
        group_id: ``(B,)`` int64, equal for the responses to one prompt; whole on one rank.
        alpha: factor of the lower half's rewards between the halves; below 1 it is disfavoured.
        beta: bonus of the higher half.
        mu: 1 compares between the halves, 0 within.
        scaled: ``high`` gives the factor to the higher half, as the authors do for length.

    Returns:
        ``(B,)`` without gradient.

    Raises:
        ValueError: shapes differ, or a word that is none.
    """
    if metric.shape != reward.shape:
        raise ValueError(
            f"metric must be {tuple(reward.shape)}, as reward, got {tuple(metric.shape)}: one "
            "number a response."
        )
    if scaled not in ("low", "high"):
        raise ValueError(f"scaled must be 'low' or 'high', got {scaled!r}.")
    reward, group = _grouped(reward, group_id)
    n = len(reward)
    by_metric = metric.argsort(stable=True)
    order = by_metric[group[by_metric].argsort(stable=True)]
    size = _total(torch.ones_like(reward), group)
    begins = _first(group[order])
    place = torch.empty_like(reward).index_copy(
        0, order, (torch.arange(n, device=reward.device) - begins).to(reward.dtype)
    )
    high = place >= torch.div(size, 2, rounding_mode="floor")

    def mean(side: Tensor) -> Tensor:
        count = _total(side.to(reward.dtype), group)
        return _total(torch.where(side, reward, 0), group) / count.clamp(min=1)

    low_mean, high_mean = mean(~high), mean(high)
    of_low, of_high = (alpha, 1.0) if scaled == "low" else (1.0, alpha)
    between = torch.where(
        high,
        of_high * reward - of_low * low_mean + beta,
        of_low * reward - of_high * high_mean - beta,
    )
    within = reward - torch.where(high, high_mean, low_mean)
    return torch.where(size > 1, mu * between + (1 - mu) * within, reward)


def _grouped(reward: Tensor, group_id: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards ``(B,)`` in float32 at least, and groups by number. ValueError for other shapes."""
    if reward.ndim != 1 or group_id.shape != reward.shape:
        raise ValueError(
            f"reward and group_id must both be (B,), got {tuple(reward.shape)} and "
            f"{tuple(group_id.shape)}: sum token rewards over each response first."
        )
    reward = reward.to(torch.promote_types(reward.dtype, torch.float32))
    return reward, torch.unique(group_id, return_inverse=True)[1]


def _total(values: Tensor, group: Tensor) -> Tensor:
    """The sum over the group of each ``(B,)``."""
    return values.new_zeros(len(values)).index_add(0, group, values)[group]


def _first(ordered: Tensor) -> Tensor:
    """Where the run of equal numbers that each is in begins ``(B,)``."""
    places = torch.arange(len(ordered), device=ordered.device)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return torch.where(new, places, 0).cummax(0).values if len(ordered) else places
