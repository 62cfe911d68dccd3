# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Compares what an adapter returned with what a golden case expects."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden_harness.cases import Case, number

VALUE_RTOL, GRADIENT_RTOL = 1e-7, 1e-5
# Rounding of float64 sums: an entry that cancels to nearly 0 cannot be met relative to itself.
ROUNDING = 1e-12


class Mismatch(AssertionError):
    """An adapter's result is not what the case expects."""


class Within:
    """A value with a stated bound: it may exceed the expected one by `above`, or fall short."""

    def __init__(self, value: Any, *, above: float, below: float) -> None:
        self.value, self.above, self.below = value, float(above), float(below)


def difference(name: str, found: Any, wanted: Any, rtol: float, atol: float) -> str | None:
    """What is wrong with `found`, in one line; None if nothing is."""
    above = below = 0.0
    if isinstance(found, Within):
        found, above, below = found.value, found.above, found.below
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or wanted.keys() - found.keys():
            return f"{name}: expected {sorted(wanted)}, got {found!r}"
        parts = [difference(f"{name}.{k}", found[k], w, rtol, atol) for k, w in wanted.items()]
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


def _double(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to(torch.float64)
    if isinstance(value, (list, tuple)):
        parts = [_double(v) for v in value]
        return torch.stack(parts) if parts else torch.zeros(0, dtype=torch.float64)
    return torch.tensor(number(value), dtype=torch.float64)


def check(case: Case, inputs: dict[str, Any], found: dict[str, Any]) -> None:
    """Compare values and gradients; raises `Mismatch` with every difference, a line each.

    `found` holds values by the names of the expected ones, with ``loss`` also for ``value``. The
    gradient is that of ``backward`` if there, else of the sum of ``loss``.
    """
    if "loss" in found:
        found = {"value": found["loss"], **found}
    names = [n for n in case.expected if n in found] if case.flat else list(case.expected)
    lines = [] if names else [f"the adapter returned {sorted(found)}, nothing that is expected"]
    for name in names:
        if name not in found:
            lines.append(f"{name}: expected, but the adapter returned only {sorted(found)}")
            continue
        rtol, atol = _tolerance(case, VALUE_RTOL)
        lines.append(difference(name, found[name], case.expected[name], rtol, atol) or "")
    if case.gradients:
        lines += _gradients(case, inputs, found)
    lines = [line for line in lines if line]
    if lines:
        raise Mismatch("\n".join(lines))


def _gradients(case: Case, inputs: dict[str, Any], found: dict[str, Any]) -> list[str]:
    backward = found.get("backward")
    if backward is None:
        backward = torch.as_tensor(found["loss"] if "loss" in found else found["value"]).sum()
    if not backward.requires_grad:
        return ["loss: has no graph, but a gradient is expected"]
    leaves = {name: inputs[name] for name in case.gradients}
    grads = torch.autograd.grad(backward, list(leaves.values()), allow_unused=True)
    lines: list[str] = []
    rtol, atol = _tolerance(case, GRADIENT_RTOL)
    for (name, wanted), grad in zip(case.gradients.items(), grads, strict=True):
        if wanted is None:
            if grad is not None and bool(grad.any()):
                lines.append(f"grad.{name}: expected none, largest is {grad.abs().max():.3g}")
        elif grad is None:
            lines.append(f"grad.{name}: none reached it")
        else:
            wanted = wanted["data"] if isinstance(wanted, dict) else wanted
            wanted = _double(wanted).reshape(grad.shape)
            lines.append(difference(f"grad.{name}", grad, wanted, rtol, atol) or "")
    return lines


def _tolerance(case: Case, default: float) -> tuple[float, float]:
    """(rtol, atol) of the case where it gives one."""
    if case.rtol is None and case.atol is None:
        return default, 0.0
    return case.rtol or 0.0, case.atol or 0.0
