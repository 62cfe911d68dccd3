# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Other values of a case's parameters, to see that an adapter hands them on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from golden_harness.cases import Case
from golden_harness.compare import Leading, Unbuilt, Within, _double, _ragged
from golden_harness.runner import Outcome


def variations(case: Case, name: str) -> Iterator[Case]:
    """The case with one parameter changed, several times; expected values are then no longer."""
    for value in _others(case.params[name]):
        yield dataclasses.replace(case, params=case.params | {name: value})


def louder(case: Case) -> Case:
    """The case with all real inputs four times as large, where bounds and clips bind."""
    return dataclasses.replace(case, inputs={n: _scaled(v) for n, v in case.inputs.items()})


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, max(value - 1, 0), 1, 3 * value + 1]
    if isinstance(value, float):
        return [value * 1.25 + 0.01, value * 0.75, value * 8 + 0.3, value * 0.1]
    if isinstance(value, list):
        each = [_others(v) for v in value]
        return [[o[i % len(o)] for o in each] for i in range(2)] if all(each) else []
    return [0.5, 2.0] if value is None else ["something else"]


def _scaled(value: Any) -> Any:
    if isinstance(value, list):
        return [_scaled(v) for v in value]
    if isinstance(value, dict):
        return value | {"data": _scaled(value["data"])} if "data" in value else value
    return value * 4 if isinstance(value, float) else value


def numbers(made: Outcome) -> Tensor:
    """All values and gradients that came of a case, as one row of numbers."""
    found = made.found
    backward = found.get("backward", found.get("loss", found.get("value")))
    leaves = [made.inputs[name] for name in made.case.gradients]
    grads = torch.autograd.grad(
        backward.value.sum() if isinstance(backward, Within) else backward.sum(),
        leaves,
        allow_unused=True,
        retain_graph=True,
    ) if leaves else ()  # fmt: skip
    return torch.cat([_row(found), *(g.reshape(-1) for g in grads if g is not None)]).nan_to_num()


def _row(found: Any) -> Tensor:
    if isinstance(found, dict):
        parts = [_row(v) for v in found.values() if not isinstance(v, Unbuilt)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
    if _ragged(found):
        return torch.cat([_row(part) for part in found])
    if isinstance(found, (Leading, Within)):
        found = found.value
    return _double(found).reshape(-1)
