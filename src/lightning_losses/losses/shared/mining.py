# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Mining: which of an anchor's pairs a pair loss reads, in the same words for every pair loss.

A miner narrows the masks of a block of anchors before the loss sees them. A block holds an anchor's
whole row of similarities, with the rows of all ranks, so what is hardest is so in the whole batch,
whatever ranks and blocks. The choice itself has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

#: A word, ``{"epsilon": 0.1}``, or ranges of distance ``{"negatives": [0.5, 1.4]}``.
Mining: TypeAlias = "str | Mapping[str, Any]"

Masks = tuple[Tensor, Tensor]


def hard(s: Tensor, pos: Tensor, neg: Tensor) -> Masks:
    """The farthest positive and the nearest negative of an anchor that has both."""
    return _both(_nearest(-s, pos), _nearest(s, neg))


def hard_negative(s: Tensor, pos: Tensor, neg: Tensor) -> Masks:
    """All positives and the nearest negative."""
    return pos, _nearest(s, neg)


def semihard(s: Tensor, pos: Tensor, neg: Tensor) -> Masks:
    """The farthest positive and the nearest of the negatives that are farther still."""
    return _beyond(s, _nearest(-s, pos), neg)


def easy_positive(s: Tensor, pos: Tensor, neg: Tensor) -> Masks:
    """The nearest positive and the nearest of the negatives that are farther."""
    return _beyond(s, _nearest(s, pos), neg)


WORDS: dict[str, Callable[[Tensor, Tensor, Tensor], Masks]] = {
    "hard": hard,
    "hard_negative": hard_negative,
    "semihard": semihard,
    "easy_positive": easy_positive,
}


def within_epsilon(s: Tensor, pos: Tensor, neg: Tensor, epsilon: float) -> Masks:
    """Negatives above the hardest positive less epsilon; positives below the hardest negative plus.

    Both in cosine; an anchor without negatives keeps no positive, and the reverse.
    """
    hardest_pos = torch.where(pos, s, torch.inf).amin(1, keepdim=True)
    hardest_neg = torch.where(neg, s, -torch.inf).amax(1, keepdim=True)
    return pos & (s < hardest_neg + epsilon), neg & (s > hardest_pos - epsilon)


def mine(mining: Mining, s: Tensor, pos: Tensor, neg: Tensor) -> Masks:
    """Masks ``(n, M)`` of the pairs that are kept, of cosines without gradient and masks.

    Args:
        mining: as `check_mining` returns it.
        s: ``(n, M)``.
        pos, neg: ``(n, M)`` bool.
    """
    if isinstance(mining, str):
        return (pos, neg) if mining == "all" else WORDS[mining](s, pos, neg)
    if "epsilon" in mining:
        return within_epsilon(s, pos, neg, mining["epsilon"])
    return _in_range(s, pos, mining.get("positives")), _in_range(s, neg, mining.get("negatives"))


def check_mining(mining: Mining) -> Mining:
    """The same, of plain types.

    Raises:
        ValueError: an unknown word, a range that holds no distance, an epsilon that keeps no pair.
    """
    known = ("all", *WORDS)
    if isinstance(mining, str) and mining in known:
        return mining
    if isinstance(mining, Mapping):
        plain = {str(key): value for key, value in mining.items()}
        if set(plain) == {"epsilon"} and isinstance(plain["epsilon"], (int, float)):
            return {"epsilon": _epsilon(float(plain["epsilon"]))}
        if plain and set(plain) <= {"positives", "negatives"}:
            return {side: _range(side, value) for side, value in plain.items()}
    raise ValueError(
        f"mining must be one of {', '.join(known)}, or a mapping: {{epsilon: 0.1}}, or ranges of "
        f"distance between 0 and 2, {{positives: [0.2, 2], negatives: [0, 0.8]}}; got {mining!r}."
    )


def _epsilon(value: float) -> float:
    if not value > -2:  # NaN too
        raise ValueError(
            f"mining: epsilon {value} keeps no pair; cosines are at most 2 apart: write 0.1."
        )
    return value


def _range(side: str, value: Any) -> list[float]:
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"mining: {side} must be a least and a largest distance, as [0.5, 1.4], got {value!r}."
        ) from error
    if not (low < high and high > 0 and low < 2):
        raise ValueError(
            f"mining: {side} [{low}, {high}] holds no distance; unit vectors are between 0 and 2 "
            "apart: write the smaller number first, as [0.5, 1.4]."
        )
    return [low, high]


def _in_range(s: Tensor, mask: Tensor, ends: list[float] | None) -> Tensor:
    """Pairs whose Euclidean distance is within; bounds that bound nothing are not rounded."""
    if ends is None:
        return mask
    low, high = ends
    if low > 0:
        mask = mask & (s <= 1 - low**2 / 2)
    return mask & (s >= 1 - high**2 / 2) if high < 2 else mask


def _nearest(s: Tensor, mask: Tensor) -> Tensor:
    """One column a row, the largest of the mask; none where it is empty."""
    column = torch.where(mask, s, -torch.inf).argmax(1, keepdim=True)
    return torch.zeros_like(mask).scatter(1, column, True) & mask


def _beyond(s: Tensor, one: Tensor, neg: Tensor) -> Masks:
    """One positive a row, and the nearest negative that is farther; rows that have both."""
    reached = torch.where(one, s, torch.inf).amin(1, keepdim=True)
    return _both(one, _nearest(s, neg & (s < reached)))


def _both(pos: Tensor, neg: Tensor) -> Masks:
    some = pos.any(1, keepdim=True) & neg.any(1, keepdim=True)
    return pos & some, neg & some
