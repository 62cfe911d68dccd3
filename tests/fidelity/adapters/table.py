# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What every adapter uses: the table by key, and the three ways out for a case that is not met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from golden_harness.compare import Leading, Unbuilt, Within
from torch import Tensor, nn

from lightning_losses import Objective, Term

__all__ = [
    "ADAPTERS",
    "Adapter",
    "Deviates",
    "Leading",
    "NotBuilt",
    "Term",
    "Unbuilt",
    "Within",
    "adapter",
    "evaluate",
    "named",
    "only",
]


class Deviates(Exception):
    """We differ from the source on purpose; the reason is one line.

    Args:
        reason: one line.
        found: what the product computes, by the names of the expected values. Compared with the
            case first, which counts as passed if it is met all the same.
        ours: what is right under our convention, by an independent formula, for the values that
            differ; the others must meet the case. With ``backward``, gradients are held to its.
    """

    def __init__(self, reason: str, found: dict[str, Any], ours: dict[str, Any]) -> None:
        super().__init__(reason)
        self.reason, self.found, self.ours = reason, found, ours


class NotBuilt(Exception):
    """The key has an adapter, but a parameter of this case asks for what does not exist yet."""


class Adapter(NamedTuple):
    """``function(inputs, params) -> values by name``; with variants, a third argument."""

    function: Callable[..., dict[str, Any]]
    variants: tuple[str, ...]


#: Key of a golden case -> adapter.
ADAPTERS: dict[str, Adapter] = {}


def adapter(*keys: str, variants: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Register a function for keys; with ``variants`` each case is run once for each."""

    def register(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        for key in keys:
            assert key not in ADAPTERS, f"two adapters for {key!r}"
            ADAPTERS[key] = Adapter(function, variants)
        return function

    return register


def evaluate(loss: nn.Module | Term, reduction: str = "mean", **named: Any) -> Tensor:
    """The total of an objective with this one term, as a user gets it."""
    objective = Objective({"loss": loss}, reduction=reduction)
    total: Tensor = objective(**named).total
    return total


def named(params: dict[str, Any], name: str, known: dict[str, Any]) -> Any:
    """What we call a word of the source's; raises `NotBuilt` for a word that is none of these."""
    value = params[name]
    if value not in known:
        raise NotBuilt(f"{name}={value!r}")
    return known[value]


def only(params: dict[str, Any], name: str, *known: Any) -> None:
    """Read a parameter of which we have these values and no other; raises `NotBuilt` elsewhere.

    The first one is the source's default.
    """
    value = params.get(name, known[0])
    if not any(value == k for k in known):
        raise NotBuilt(f"{name}={value!r}")
