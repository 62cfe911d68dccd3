# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`rows_along`: the rows as a linear model would have them after an update, by forward AD."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lightning_losses.callbacks.replay.probe import Named, Probe
from lightning_losses.distributed import is_on_mesh

T = TypeVar("T")

# torch leaves these without types.
_make_dual: Callable[[Tensor, Tensor], Tensor] = forward_ad.make_dual
_unpack_dual: Callable[[Tensor], forward_ad.UnpackedDualTensor] = forward_ad.unpack_dual


class NoDerivative(Exception):
    """The derivative along the update is not to be had; says why."""


def rows_along(probe: Probe[T], kept: list[tuple[Tensor, Tensor]], read: Callable[[Named], T]) -> T:
    """What ``read`` makes of the step's tensors, with logits ``z + dz`` instead of ``z``.

    ``z`` are the logits before the update and ``dz`` their derivative along it. Parameters are
    replaced by dual numbers in the modules that hold them, for one re-run of the step.

    Args:
        probe: of the step; buffers, random numbers and attributes are its concern.
        kept: each parameter as it is after the update, and a copy of it before.
        read: what to make of the named tensors.

    Raises:
        NoDerivative: DTensors, a soft-cap, or parameters that the modules do not hold or do not use
            as such.
        Exception: whatever an operation without forward AD raises.
    """
    if any(is_on_mesh(new) for new, _ in kept):
        raise NoDerivative("parameters are DTensors, which carry no dual numbers")
    shown, probe.read = probe.read, lambda named: read(_linear(named))
    try:
        with forward_ad.dual_level():
            return probe.run(_dual(probe.module, kept))
    finally:
        probe.read = shown


@contextlib.contextmanager
def _dual(module: nn.Module, kept: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """The module with dual numbers for parameters: the values before, and what was added."""
    duals = {id(new): _make_dual(old.clone(), new.detach() - old) for new, old in kept}
    held = [
        (part._parameters, name, p)
        for part in module.modules()
        for name, p in part._parameters.items()
        if p is not None and id(p) in duals
    ]
    if {id(p) for _, _, p in held} != set(duals):
        raise NoDerivative("an optimizer moves tensors that are no parameters of the module")
    try:
        for place, name, p in held:
            place[name] = duals[id(p)]  # type: ignore[assignment]
        yield
    finally:
        for place, name, p in held:
            place[name] = p


def _linear(named: Named) -> Named:
    """The named tensors with the change of the logits added to them, without dual numbers."""
    parts = {k: _unpack_dual(v) for k, v in named.items() if isinstance(v, Tensor)}
    value = {k: part.primal for k, part in parts.items()}
    change = {k: part.tangent for k, part in parts.items() if part.tangent is not None}
    if named.get("softcap") is not None or change.keys() & {"temperature", "logit_scale"}:
        raise NoDerivative("a soft-cap, or a scale that is trained, has logits that are not linear")
    plain = {**named, **value}
    if "logits" in change:
        return plain | {"logits": value["logits"] + change["logits"]}
    if not change.keys() & {"hidden", "head_weight", "head_bias"}:
        raise NoDerivative("the logits do not depend on the parameters where forward AD looks")
    # (h + dh) W + h dW: as one product, so that the logits need not be held.
    hidden, weight = value["hidden"], value["head_weight"]
    moved = change["hidden"] + hidden if "hidden" in change else hidden
    turned = change.get("head_weight", torch.zeros_like(weight))
    plain["hidden"] = torch.cat([moved, hidden], -1)
    plain["head_weight"] = torch.cat([weight, turned], -1)
    if "head_bias" in change:
        plain["head_bias"] = value["head_bias"] + change["head_bias"]
    return plain
