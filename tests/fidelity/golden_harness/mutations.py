# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Wrong products, to see that the cases notice: is a value compared, and is it the product's?"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import adapters
import torch
from torch import Tensor, nn

from golden_harness.cases import Case
from golden_harness.compare import _double, _ragged

PRODUCT = "lightning_losses"


def one_percent(value: Tensor) -> Tensor:
    """1 % more; what is 0 throughout or infinite becomes a number as well."""
    changed = torch.where(value.isfinite(), value.double() * 1.01, 1.0)
    return changed + 0.01 if not bool(value.any()) else changed


def noticeable(case: Case, wanted: Any) -> bool:
    """Whether a wrong value is outside of what the case itself, not we, allows."""
    if isinstance(wanted, dict) and "data" not in wanted:
        return any(noticeable(case, part) for part in wanted.values())
    if _ragged(wanted):
        return any(noticeable(case, part) for part in wanted)
    wanted = _double(wanted["data"] if isinstance(wanted, dict) else wanted)
    if not wanted.numel():
        return False
    off = (one_percent(wanted) - wanted).abs().nan_to_num(nan=torch.inf)
    return bool((off > (case.atol or 0.0) + (case.rtol or 0.0) * wanted.abs() + 1e-9).any())


@contextmanager
def wrong_product() -> Iterator[None]:
    """Everything that adapters get of the product is off, be it from modules or functions."""
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, result: _off(result) if _ours(type(module)) else None
    )
    patches = []
    classes: set[type] = set()
    for name in adapters.__all__:
        module = sys.modules.get(f"adapters.{name}")
        for public, thing in list(vars(module).items()) if module else []:
            if not _ours(thing):
                continue
            if inspect.isfunction(thing):
                patches.append(mock.patch.object(module, public, _wrapped(thing)))
            elif inspect.isclass(thing):
                classes.add(thing)
    for kind in classes:
        for public, method in list(vars(kind).items()):
            hidden = public.startswith("_") or public in ("forward", "update", "training_step")
            if inspect.isfunction(method) and not hidden:
                patches.append(mock.patch.object(kind, public, _wrapped(method)))
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        hook.remove()
        for patch in patches:
            patch.stop()


def _ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).split(".")[0] == PRODUCT


def _wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrong(*args: Any, **named: Any) -> Any:
        return _off(function(*args, **named))

    return wrong


def _off(value: Any) -> Any:
    """Whatever a product returns, with other numbers in it."""
    if isinstance(value, nn.Module):  # such as a fitted calibrator
        return value
    if isinstance(value, Tensor):
        if value.dtype == torch.bool:
            return ~value
        return value * 1.01 + 1e-3 if value.is_floating_point() else value + 1
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value * 1.01 + 1e-3 if isinstance(value, float) else value + 1
    if isinstance(value, dict):
        return {name: _off(v) for name, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_off(v) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_off(v) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init]
        return dataclasses.replace(value, **{n: _off(getattr(value, n)) for n in fields})
    return value
