# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Compares what an adapter returned with what a golden case expects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from golden_harness.cases import Case, number

VALUE_RTOL, GRADIENT_RTOL = 1e-7, 1e-5
# Rounding of float64 sums: an entry that cancels to nearly 0 cannot be met relative to itself.
ROUNDING = 1e-12

#: Makes a wrong value of a right one, to see that it is noticed.
Change = Callable[[Tensor], Tensor]


class Mismatch(AssertionError):
    """An adapter's result is not what the case expects."""


class Within:
    """A value with a stated bound: it may exceed the expected one by `above`, or fall short."""

    def __init__(self, value: Any, *, above: float, below: float) -> None:
        self.value, self.above, self.below = value, float(above), float(below)


class Leading:
    """Steps of which a case may have recorded only the first."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Unbuilt:
    """Stands for a value that the product does not compute; the others are compared still."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def difference(name: str, found: Any, wanted: Any, rtol: float, atol: float) -> str | None:
    """What is wrong with `found`, in one line; None if nothing is."""
    above = below = 0.0
    if isinstance(found, Within):
        found, above, below = found.value, found.above, found.below
    if isinstance(found, Leading):
        found = found.value[: max(len(wanted), 1)]
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or wanted.keys() - found.keys():
            return f"{name}: expected {sorted(wanted)}, got {found!r}"
        parts = [difference(f"{name}.{k}", found[k], w, rtol, atol) for k, w in wanted.items()]
        return next((part for part in parts if part), None)
    if _ragged(wanted):  # such as batches of different sizes
        if len(found) != len(wanted):
            return f"{name}: {len(found)} parts instead of {len(wanted)}"
        parts = [
            difference(f"{name}[{i}]", f, w, rtol, atol)
            for i, (f, w) in enumerate(zip(found, wanted, strict=True))
        ]
        return next((part for part in parts if part), None)
    wanted, found = _double(wanted), _double(found)
    if found.shape != wanted.shape:
        return f"{name}: shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
    finite = wanted.isfinite()
    scale = max(1.0, float(wanted[finite].abs().max())) if bool(finite.any()) else 1.0
    allowed = atol + rtol * wanted.abs() + ROUNDING * scale
    off = found - wanted
    close = (off <= allowed + above) & (off >= -allowed - below)
    close = torch.where(finite, close, (found == wanted) | (found.isnan() & wanted.isnan()))
    if bool(close.all()):
        return None
    worst = int(torch.where(close, -1.0, off.abs().nan_to_num(nan=torch.inf)).argmax())
    f, w, a = (t.expand(wanted.shape).flatten()[worst].item() for t in (found, wanted, allowed))
    where = "" if wanted.ndim == 0 else f" at entry {worst} of {wanted.numel()}"
    return f"{name}: {f:.10g} instead of {w:.10g}{where} (off {f - w:.2g}, allowed {a:.2g})"


def _ragged(value: Any) -> bool:
    """Whether nested lists are no one tensor."""
    if not isinstance(value, (list, tuple)):
        return False
    shapes = [None if _ragged(part) else _double(part).shape for part in value]
    return None in shapes or len(set(shapes)) > 1


def _double(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(torch.float64)
    if isinstance(value, (list, tuple)):
        parts = [_double(v) for v in value]
        return torch.stack(parts) if parts else torch.zeros(0, dtype=torch.float64)
    value = math.nan if value is None else number(value)  # JSON has no other null
    if isinstance(value, str):  # a word is another number than any other word
        value = crc32(value.encode())
    return torch.tensor(value, dtype=torch.float64)


def compare(
    case: Case,
    inputs: dict[str, Any],
    found: dict[str, Any],
    ours: dict[str, Any],
    change: Change | None = None,
) -> dict[str, str | None]:
    """What is wrong with each value and gradient that the case expects, by name; None if nothing.

    ``found`` holds values by the names of the expected ones, with ``loss`` also for ``value``. The
    gradient is that of ``backward`` if there, else of the sum of ``loss``. Values of ``ours``
    replace expected ones of that name, and gradients of its ``backward`` replace all gradients.
    ``change`` is done to what was found before it is compared.
    """
    found, ours = _both_names(found), _both_names(ours)
    expected = case.expected | {name: v for name, v in ours.items() if name in case.expected}
    names = [n for n in expected if n in found] if case.flat else list(expected)
    if not names:
        return {"": f"the adapter returned {sorted(found)}, nothing that is expected"}
    wrong: dict[str, str | None] = {}
    rtol, atol = _tolerance(case, VALUE_RTOL)
    for name in names:
        if name not in found:
            wrong[name] = f"{name}: expected, but the adapter returned only {sorted(found)}"
        elif not isinstance(found[name], Unbuilt):
            value = found[name] if change is None else _changed(found[name], change)
            wrong[name] = difference(name, value, expected[name], rtol, atol)
    if case.gradients:
        wrong |= _gradients(case, inputs, found, ours.get("backward"), change)
    return wrong


def _both_names(values: dict[str, Any]) -> dict[str, Any]:
    return {"value": values["loss"], **values} if "loss" in values else values


def _changed(value: Any, change: Change) -> Any:
    """Every number of a value changed, whatever holds them."""
    if isinstance(value, Within):
        return Within(change(_double(value.value)), above=value.above, below=value.below)
    if isinstance(value, Leading):
        return Leading(change(_double(value.value)))
    if isinstance(value, dict):
        return {name: _changed(v, change) for name, v in value.items()}
    if _ragged(value):
        return [_changed(part, change) for part in value]
    return change(_double(value))


def _gradients(
    case: Case,
    inputs: dict[str, Any],
    found: dict[str, Any],
    ours: Tensor | None,
    change: Change | None,
) -> dict[str, str | None]:
    backward = found.get("backward")
    if backward is None:
        backward = found["loss"] if "loss" in found else found["value"]
    if not isinstance(backward, (Tensor, Unbuilt)):
        backward = torch.as_tensor(backward)
    if isinstance(backward, Unbuilt):
        return {}
    leaves = {name: inputs[name] for name in case.gradients}
    names = [f"grad.{name}" for name in leaves]
    if not backward.requires_grad:
        return dict.fromkeys(names, "loss: has no graph, but a gradient is expected")
    wanted = dict(case.gradients)
    if ours is not None:
        wanted = dict(zip(leaves, _grad(ours, leaves), strict=True))
    wrong: dict[str, str | None] = {}
    rtol, atol = _tolerance(case, GRADIENT_RTOL)
    for name, grad in zip(leaves, _grad(backward, leaves), strict=True):
        expected = wanted[name]
        if change is not None:
            grad = change(torch.zeros_like(leaves[name]) if grad is None else grad)
        if expected is None:
            leaks = grad is not None and bool(grad.any())
            wrong[f"grad.{name}"] = f"grad.{name}: expected none" if leaks else None
        elif grad is None:
            wrong[f"grad.{name}"] = f"grad.{name}: none reached it"
        else:
            expected = expected["data"] if isinstance(expected, dict) else expected
            expected = _double(expected).reshape(grad.shape)
            wrong[f"grad.{name}"] = difference(f"grad.{name}", grad, expected, rtol, atol)
    return wrong


def _grad(value: Tensor, leaves: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(
        value.sum(), list(leaves.values()), allow_unused=True, retain_graph=True
    )


def _tolerance(case: Case, default: float) -> tuple[float, float]:
    """(rtol, atol) of the case where it gives one."""
    if case.rtol is None and case.atol is None:
        return default, 0.0
    return case.rtol or 0.0, case.atol or 0.0
