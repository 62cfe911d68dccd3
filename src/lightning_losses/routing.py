# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Routing: which named tensors a loss gets, read from the parameter names of its ``forward``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from lightning_losses.named_tensors import describe
from lightning_losses.softmax import STATISTICS


class Argument(NamedTuple):
    """One parameter of a ``forward``, and the named tensor that fills it."""

    parameter: str
    tensor: str
    required: bool


def arguments(
    module: nn.Module, inputs: Mapping[str, str] | None = None, skip: int = 0
) -> tuple[Argument, ...]:
    """What ``module.forward`` asks for, in order, after the first ``skip`` parameters.

    Args:
        module: any module. Parameters without default are required. A module whose needs depend
            on its settings names the optional ones that it will read in an attribute ``needs``.
        inputs: ``{parameter: named tensor}`` where the names differ. A mapped parameter is
            required, even if it has a default: it would not have been mapped otherwise.

    Raises:
        ValueError: if ``inputs`` names a parameter that ``forward`` does not have.
    """
    mapping = dict(inputs or {})
    needs = tuple(getattr(module, "needs", ()))
    parameters = list(inspect.signature(module.forward).parameters.values())[skip:]
    named = [
        p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)
    ]
    found = tuple(
        Argument(
            p.name,
            mapping.pop(p.name, p.name),
            p.default is p.empty or p.name in needs or p.name in (inputs or {}),
        )
        for p in named
    )
    if mapping:
        raise ValueError(
            f"inputs names {sorted(mapping)}, which {type(module).__name__}.forward does not have; "
            f"its parameters are {[p.name for p in named]}."
        )
    # A statistic costs a pass, so one that is merely optional is not computed for it.
    return tuple(a for a in found if a.required or a.tensor not in STATISTICS)


def pick(wanted: tuple[Argument, ...], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call, by parameter name."""
    return {a.parameter: tensors[a.tensor] for a in wanted if a.tensor in tensors}


def missing_tensor(term: str, module: nn.Module, name: str, given: Mapping[str, Any]) -> ValueError:
    """The error for a named tensor that nobody passed or provides."""
    passed = ", ".join(sorted(k for k, v in given.items() if v is not None)) or "nothing"
    if name in STATISTICS:
        fix = "pass logits=... (or hidden=... and head_weight=...) and target=..."
    elif name == "logits" and "hidden" in given:
        fix = (
            "it needs whole rows of logits, which hidden and head_weight never hold; pass "
            "logits=self.head(hidden), or remove the term"
        )
    else:
        fix = f"write self.compute_loss(..., {name}=...)"
    if given.get("logit_map") is not None and name in ("logits", "target", *STATISTICS):
        # Beside maps, rows are the pixels; another term may still read the maps.
        fix += "; from the maps: logits=logit_map.movedim(1, -1), target=label_map"
    return ValueError(
        f"Term {term!r} ({type(module).__name__}) needs {describe(name)}. compute_loss got "
        f"{passed}. To fix it: {fix}."
    )
