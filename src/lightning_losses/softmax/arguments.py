# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the arguments of softmax statistics must be: shapes and dtypes, known without the device."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

#: What numbers may come in. Eight-bit floats are codes: without their scale they mean nothing.
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def require_tensor(name: str, value: Any, least: int = 0) -> None:
    """Raise a TypeError for a list, an array or a number, a ValueError for too few dimensions."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must be a tensor, got {type(value).__name__}: write torch.as_tensor({name})."
        )
    if value.is_nested or value.layout != torch.strided:
        kind = "nested" if value.is_nested else str(value.layout)
        fix = (
            "to_padded_tensor(0), with mask= for what it pads" if value.is_nested else "to_dense()"
        )
        raise ValueError(f"{name} must be a dense tensor, got {kind}: write {name}.{fix}.")
    if value.ndim < least:
        raise ValueError(
            f"{name} must have at least {least} dimension{'s' * (least > 1)}, got "
            f"{tuple(value.shape)}: write {name}[None] for a batch of one."
        )


def check(
    logits: Tensor | None,
    hidden: Tensor | None,
    head_weight: Tensor | None,
    head_bias: Tensor | None,
    target: Tensor | None,
    temperature: Tensor | None,
    softcap: float | None,
    logit_scale: float,
) -> None:
    """Raise a ValueError that says what to write; see `softmax_stats` for the arguments."""
    for name, tensor in (("hidden", hidden), ("head_weight", head_weight), ("logits", logits)):
        if hasattr(tensor, "full_tensor"):
            raise ValueError(_sharded(name))
    source = logits if logits is not None else hidden
    if source is None:
        raise ValueError("Give logits (N, V), or hidden (N, D) with head_weight (V, D).")
    numbers = {"logits": logits, "hidden": hidden, "head_weight": head_weight}
    for name, tensor in (numbers | {"head_bias": head_bias}).items():
        if tensor is not None and tensor.dtype not in FLOATS:
            raise ValueError(f"{name} must be {float_of(name, tensor)}.")
    classes = source.shape[1]
    if hidden is not None:
        if head_weight is None:
            raise ValueError("hidden was given without head_weight: pass head_weight (V, D).")
        if head_weight.ndim != 2 or head_weight.shape[1] != hidden.shape[1]:
            raise ValueError(
                f"head_weight must be (V, D) with D={hidden.shape[1]} as in hidden "
                f"{tuple(hidden.shape)}, got {tuple(head_weight.shape)}: nn.Linear(D, V).weight."
            )
        classes = head_weight.shape[0]
    if head_bias is not None and (logits is not None or head_bias.shape != (classes,)):
        raise ValueError(
            f"head_bias must be ({classes},) and go with hidden, got {tuple(head_bias.shape)}"
            + (" with logits: add it to the logits." if logits is not None else ".")
        )
    if target is not None and target.ndim == 1 and target.is_floating_point():
        raise ValueError(
            f"target must hold class indices (int64) or soft targets (N, {classes}), got "
            f"{target.dtype} {tuple(target.shape)}: a real-valued target needs a target_transform."
        )
    expected = (source.shape[0],) if target is None or target.ndim == 1 else (len(source), classes)
    if target is not None and tuple(target.shape) != expected:
        raise ValueError(f"target must be {expected}, got {tuple(target.shape)}.")
    if target is not None and target.requires_grad and torch.is_grad_enabled():
        raise ValueError("target gets no gradient here: write target.detach().")
    if isinstance(temperature, Tensor):
        if temperature.shape != (source.shape[0],):
            raise ValueError(
                f"temperature must be ({source.shape[0]},), got {tuple(temperature.shape)}."
            )
        if temperature.requires_grad:
            raise ValueError(
                "temperature gets no gradient here: detach it, or scale hidden (or logits) by it."
            )
    for name, number in (("softcap", softcap), ("logit_scale", logit_scale)):
        if isinstance(number, Tensor):
            raise ValueError(
                f"{name} must be a number, got a tensor, which would get no gradient here: "
                "multiply hidden (or logits) by it."
            )
        if number is not None and (isinstance(number, bool) or not isinstance(number, Real)):
            raise TypeError(f"{name} must be a number, got {number!r}.")
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"softcap must be positive or None, got {softcap}.")
    # isfinite breaks a graph of dynamic shapes
    if not -math.inf < logit_scale < math.inf or logit_scale == 0:
        raise ValueError(f"logit_scale must be finite and not 0, got {logit_scale}.")


def float_of(name: str, tensor: Tensor) -> str:
    """What to write where numbers were asked for and codes, or counts, were found."""
    coded = tensor.is_floating_point() or (name.startswith("head") and tensor.dtype != torch.bool)
    fix = f"write {name}.float()" + (" if its numbers are what is meant" if coded else "")
    if coded:
        fix = f"its codes lack their scale: dequantize it, or {fix}"
    return f"float, got {tensor.dtype}: {fix}"


def check_class_weight(weight: Tensor | None, classes: int) -> None:
    """Raise a ValueError unless these are numbers without gradient, one for each of the classes."""
    if weight is None:
        raise ValueError("weighted_log_prob was asked for, but no weights: pass class_weight=....")
    if weight.shape != (classes,) or weight.dtype not in FLOATS:
        raise ValueError(
            f"class_weight must be ({classes},) and floating point, got {weight.dtype} "
            f"{tuple(weight.shape)}."
        )
    if weight.requires_grad:
        raise ValueError("class_weight gets no gradient here: write class_weight.detach().")


def may_ask(tensor: Tensor) -> bool:
    """Whether Python may read this tensor's values: on a CPU that is free, elsewhere it would stall
    the step, and compiled code and torch.func have no values yet.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return tensor.device.type == "cpu"


def require_classes(target: Tensor | None, classes: int) -> None:
    """Stop a device that would read past the head; on a CPU the kernels' own indexing says so."""
    if target is None or target.ndim == 2 or target.device.type == "cpu":
        return
    if torch._C._are_functorch_transforms_active():
        return
    inside = (target >= 0) & (target < classes)
    # The answer is not waited for: it stops the device, not this line.
    torch._assert_async(inside.all(), "target must be in [0, classes) or ignore_index")


def _sharded(name: str) -> str:
    return (
        f"{name} is a DTensor, sharded over ranks. With fully_shard (FSDP2) compute the loss in "
        "the forward of the wrapped module, where parameters are whole, or write head.unshard() "
        "before and pass head.weight then; with tensor parallelism pass head_weight.to_local() "
        "and class_range=ClassRange.across(V_r, group)."
    )


def shift_left(target: Tensor, shift: int, fill: float) -> Tensor:
    """``target[..., shift:]`` padded to its own length, so that logits need no copy."""
    check_shift(shift, tuple(target.shape))
    return torch.cat([target[..., shift:], target.new_full(target[..., :shift].shape, fill)], -1)


def check_shift(shift: int, lead: tuple[int, ...]) -> None:
    """Raise a ValueError for a shift backwards, or of what has no positions.

    One as long as the sequences or longer leaves nothing that counts, which is an empty batch.
    """
    if isinstance(shift, bool) or not isinstance(shift, int) or shift < 0 or not lead:
        raise ValueError(
            f"shift is a number of positions along the last of {lead}, got {shift!r}; write 0 for "
            "targets that are aligned already, 1 for next-token prediction."
        )


def in_autocast_dtype(hidden: Tensor) -> Tensor:
    """Hidden states as a plain head under autocast would take them; else as they are.

    The kernels run with autocast off. This keeps their matrix products in the precision that the
    user chose, while the head's gradient stays unrounded.
    """
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return hidden
    return hidden.to(torch.get_autocast_dtype(device))
