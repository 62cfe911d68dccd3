# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From what the step passed to rows: flatten, align, and settle once which rows count.

Rows that do not count may hold anything, NaN as well. `zero_ignored_rows` is what makes them
harmless: the target here, what losses read in `provide`, values in the reduction of `terms`.
Kernels get logits and hidden states as they were passed, together with ``valid``, and clean them
chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_losses.distributed import is_on_mesh
from lightning_losses.evaluation.meshes import to_local
from lightning_losses.evaluation.validation import ONE_OR_MANY, require_tensors
from lightning_losses.named_tensors import NAMED_TENSORS
from lightning_losses.softmax import (
    STATISTICS,
    Problem,
    make_problem,
    may_ask,
    shift_left,
    zero_ignored_rows,
)


class Rows(NamedTuple):
    """The named tensors of one call, flattened to N rows, and which of the rows count."""

    tensors: dict[str, Any]
    valid: Tensor | None  # (N,) bool; None if every row counts, known without asking the device
    weight: Tensor | None  # (N,) float, 0 where not valid
    num_valid: Tensor  # 0-dim int64, number of valid rows
    num_rows: int  # N
    device: torch.device
    group: Any = None  # of ranks with other rows, where DTensors tell it; see `distributed.over`

    @property
    def all_logits(self) -> Tensor | None:
        """The logits, unless they are those of some classes; of others a softmax is taken."""
        return None if "class_range" in self.tensors else self.tensors.get("logits")

    def problem(self, target: Tensor | None) -> Problem:
        """What a softmax kernel is given."""
        t = self.tensors
        hidden = None if "logits" in t else t.get("hidden")
        return make_problem(
            logits=t.get("logits"),
            hidden=hidden,
            head_weight=None if hidden is None else t.get("head_weight"),
            head_bias=None if hidden is None else t.get("head_bias"),
            target=target,
            valid=self.valid,
            temperature=t.get("temperature"),
            softcap=t.get("softcap"),
            logit_scale=t.get("logit_scale", 1.0),
            class_range=t.get("class_range"),
            max_valid=t.get("max_valid"),
        )


def weighted_rows(values: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor:
    """``(N,)`` values with those that do not count at 0, times ``sample_weight``."""
    values = zero_ignored_rows(values, valid)
    return values if weight is None else values * weight


def flatten(named: Mapping[str, Any], ignore_index: int) -> Rows:
    """Flatten every named tensor as the vocabulary says, and find the rows that count.

    Raises:
        ValueError: if there is nothing with rows, or shapes do not go together.
    """
    given = {name: value for name, value in named.items() if value is not None}
    head = _use_head(given)
    require_tensors(given)
    if "class_range" in given and "logits" in given:
        raise ValueError(
            "class_range goes with hidden and head_weight: a loss that reads logits would take "
            "this rank's classes for all. Write softmax_stats(logits, class_range=...) for the "
            "statistics of such logits."
        )
    given, group = to_local(given, ignore_index, head)
    lead = _lead(given)
    _spread_numbers(given, lead)
    _shift(given, lead, ignore_index)
    tensors = {name: _flatten(name, value, lead) for name, value in given.items()}
    _same_classes(tensors)
    target = tensors.get("target")
    if target is not None and not target.is_floating_point() and target.dtype != torch.bool:
        target = tensors["target"] = target.long()  # torch's cross-entropy takes no int32
    n, device = prod(lead), _device(tensors)
    valid = _valid(tensors.pop("mask", None), target, ignore_index)
    weight = tensors.pop("sample_weight", None)
    if weight is not None:
        # The sum of 70,000 float16 ones is inf, and float64 losses are exact.
        weight = weight.to(torch.promote_types(weight.dtype, _dtype(tensors)))
        weight = zero_ignored_rows(weight, valid)
        if not weight.requires_grad:
            # A row of weight 0 does not count: 0 times its infinite loss would be NaN.
            valid = weight != 0 if valid is None else valid & (weight != 0)
    num_valid = torch.full((), n, device=device) if valid is None else valid.sum()
    # Asking is free on a CPU; elsewhere it would stall, so there the mask is always applied.
    if valid is not None and may_ask(valid):
        valid = None if int(num_valid) == n else valid
    if target is not None:
        tensors["target"] = zero_ignored_rows(target, valid)
    return Rows(tensors, valid, weight, num_valid, n, device, group)


def _valid(mask: Tensor | None, target: Tensor | None, ignore_index: int) -> Tensor | None:
    """Which rows count by mask and ignore_index ``(N,)``; None if neither says anything."""
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool, got {mask.dtype}: write mask.bool().")
    if target is None or target.ndim != 1 or target.is_floating_point():
        return mask
    if target.dtype == torch.bool:
        return mask  # yes or no, of which none is a padding label
    labelled = target != ignore_index
    return labelled if mask is None else mask & labelled


def _use_head(given: dict[str, Any]) -> nn.Module | None:
    """Take ``head_weight`` and ``head_bias`` out of a linear ``head``, which is returned.

    Any other module is more than its weight: an adapter (LoRA), a scale, a norm. Its weight alone
    would train nothing of the rest, in silence.
    """
    head = given.pop("head", None)
    if head is None:
        return None
    if "hidden" not in given or "head_weight" in given or "logits" in given:
        raise ValueError(
            "head goes with hidden, instead of head_weight, head_bias and logits; got "
            f"{', '.join(sorted(given))}: write compute_loss(hidden=h, head=self.lm_head, ...)."
        )
    name = type(head).__name__
    plain = isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward
    # FSDP2 and tensor parallelism act by hooks; what those do is done in `meshes`.
    hooks = bool(head._forward_hooks or head._forward_pre_hooks) and not is_on_mesh(head.weight)
    if not plain or hooks or "forward" in vars(head):
        raise ValueError(
            f"head must be a plain nn.Linear, of which weight and bias are all, got {name}"
            f"{' with hooks' if plain else ''}. Write logits=head(hidden); or, to keep the logits "
            "from being held, merge what it adds (LoRA: head_weight=base.weight + scaling * B @ A)."
        )
    given["head_weight"] = head.weight
    if head.bias is not None:
        given["head_bias"] = head.bias
    return head  # type: ignore[no-any-return]


def _spread_numbers(given: dict[str, Any], lead: tuple[int, ...]) -> None:
    """One temperature or sample weight for all rows, as one a row."""
    for name in ONE_OR_MANY:
        value = given.get(name)
        if isinstance(value, Tensor):
            given[name] = value.expand(lead) if value.ndim == 0 else value
        elif value is not None:
            dtype, device = _dtype(given), _device(given)
            given[name] = torch.full(lead, float(value), dtype=dtype, device=device)


def _dtype(tensors: Mapping[str, Any]) -> torch.dtype:
    """float64 if anything of the batch is, else float32."""
    dtypes = {value.dtype for value in tensors.values() if isinstance(value, Tensor)}
    return torch.float64 if torch.float64 in dtypes else torch.float32


def _shift(given: dict[str, Any], lead: tuple[int, ...], ignore_index: int) -> None:
    """Take out ``shift`` and align what it moves: row t is scored against target t + shift."""
    shift = given.pop("shift", 0)
    if not shift:
        return
    target = given.get("target")
    if target is not None and target.ndim > len(lead):
        raise ValueError(
            f"shift={shift} goes with class indices, got soft targets {tuple(target.shape)}: "
            "align them with the logits and leave shift out."
        )
    if target is None:  # then nothing else says that the last positions do not count
        given.setdefault("mask", torch.ones(lead, dtype=torch.bool, device=_device(given)))
    for name, fill in (("target", ignore_index), ("mask", False), ("sample_weight", 0.0)):
        if name in given:
            given[name] = shift_left(given[name], shift, fill)


def _lead(given: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of the rows: of logits or hidden without their last dimension, else of target.

    Without any of these, of another tensor of rows, or the images, or pixels, that a mask is of.
    """
    for name in ("logits", "hidden"):
        if name in given:
            shape = tuple(given[name].shape)
            return shape if len(shape) == 1 else shape[:-1]  # (N,) logits are binary scores
    if "target" in given:
        return tuple(given["target"].shape)
    tensors = {n: v for n, v in given.items() if isinstance(v, Tensor) and v.ndim}
    labels, mask = tensors.get("label_map"), tensors.get("mask")
    if labels is not None and mask is not None and mask.ndim > 1:
        return tuple(mask.shape)
    for name in (n for n in tensors if n in STATISTICS):
        return tuple(tensors[name].shape)
    for value in tensors.values():
        return (value.shape[0],)
    return (0,)


def _flatten(name: str, value: Any, lead: tuple[int, ...]) -> Any:
    word = NAMED_TENSORS.get(name)
    if word is None or word.layout in ("whole", "option") or not isinstance(value, Tensor):
        return value
    shape = tuple(value.shape)
    rows_only = shape == lead
    if name == "target" and shape == (*lead, 1) and not value.is_floating_point():
        raise _mismatch(name, shape, f"{lead}")
    if word.layout == "vectors" or name == "target":
        if shape[:-1] == lead and not (name == "target" and rows_only):
            return value if value.ndim == 2 else value.reshape(-1, shape[-1])
        if name != "target" and not (rows_only and len(lead) == 1):
            raise _mismatch(name, shape, f"{lead} + (classes,)")
    if not rows_only:
        raise _mismatch(name, shape, f"{lead}")
    return value if value.ndim == 1 else value.reshape(-1)


def _same_classes(tensors: dict[str, Any]) -> None:
    """Refuse one column beside many, which would be broadcast in silence.

    A teacher may have another vocabulary; that is between it and the loss.
    """
    logits = None if "class_range" in tensors else tensors.get("logits")
    for name in ("teacher_logits", "logits_adv"):
        other = tensors.get(name)
        if logits is None or other is None or other.shape == logits.shape:
            continue
        if name == "logits_adv" or other.ndim != logits.ndim or 1 in other.shape[1:]:
            raise _mismatch(name, tuple(other.shape), f"{tuple(logits.shape)}")


def _mismatch(name: str, shape: tuple[int, ...], expected: str) -> ValueError:
    hint = ""
    if name == "target" and len(shape) == 2 and shape[1] == 1:
        hint = " Write target.squeeze(1)."
    return ValueError(
        f"{name} must have shape {expected}, as the rows of logits or hidden have, got {shape}."
        f" Classes come last, as in (N, C); for (N, C, H, W) write movedim(1, -1).{hint}"
    )


def _device(tensors: dict[str, Any]) -> torch.device:
    """Where the batch is: the device of its first tensor."""
    for value in tensors.values():
        if isinstance(value, Tensor):
            return value.device
    return torch.device("cpu")
