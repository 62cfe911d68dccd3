# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Advantages of responses against the others that were sampled for the same prompt."""

from __future__ import annotations

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
    if reward.ndim != 1 or group_id.shape != reward.shape:
        raise ValueError(
            f"reward and group_id must both be (B,), got {tuple(reward.shape)} and "
            f"{tuple(group_id.shape)}: sum token rewards over each response first."
        )
    reward = reward.to(torch.promote_types(reward.dtype, torch.float32))
    group = torch.unique(group_id, return_inverse=True)[1]

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(len(values)).index_add(0, group, values)[group]

    size = total(torch.ones_like(reward))
    # Around some reward of the group, so that equal rewards leave exactly 0.
    centred = reward - reward.new_zeros(len(reward)).index_copy(0, group, reward)[group]
    centred = centred - total(centred) / size
    alone = size == 1
    if divide_by_std:
        std = (total(centred.square()) / (size - 1).clamp(min=1)).sqrt()
        return torch.where(alone, reward / (1 + 1e-6), centred / (std + 1e-6))
    return torch.where(alone, reward, centred)
