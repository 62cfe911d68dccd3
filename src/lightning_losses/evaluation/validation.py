# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What an objective refuses to compute, because the number would not be what was meant.

In the order in which a call meets it: names that nobody reads, tensors that are missing, options
and targets that a term would misunderstand; and, once something went wrong or a total is NaN, which
tensor is to blame. Every error says what was asked, what was found and what to write.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.named_tensors import NAMED_TENSORS, describe
from lightning_losses.softmax import STATISTICS
from lightning_losses.term import Term

#: What torch's losses take where it is called, and where it belongs here.
ELSEWHERE = {
    "ignore_index": "build_objective(..., ignore_index=...)",
    "reduction": "build_objective(..., reduction=...)",
    "kernel": "build_objective(..., kernel=...)",
    "weight": "loss.NAME.class_weight=[...], or sample_weight= (N,) in the call",
    "label_smoothing": "loss.NAME.label_smoothing=...",
}
#: Named tensors that nobody misses if they are misspelt.
OPTIONAL = (
    "mask",
    "sample_weight",
    "softcap",
    "logit_scale",
    "temperature",
    "shift",
    "head_bias",
    "max_valid",
    "class_range",
)  # fmt: skip

Terms = Mapping[str, Term]


def refuse_unread(terms: Terms, named: Mapping[str, Any], others: Collection[str]) -> None:
    """Complain of an option that belongs elsewhere, and of a misspelt one, which nobody reads.

    Any other name may be passed in vain: for a provider or a callback of the user's own. With
    providers, `others`, nothing is known of what is read.
    """
    unknown = [n for n, value in named.items() if value is not None and n not in NAMED_TENSORS]
    if not unknown:
        return
    asked = [a for term in terms.values() for a in term.arguments + term.weighting_arguments]
    read = {argument.tensor for argument in asked}
    for name in unknown:
        if name in read:
            continue
        if name in ELSEWHERE:
            raise ValueError(f"No term reads {name}=: write {ELSEWHERE[name]} instead.")
        close = difflib.get_close_matches(name, OPTIONAL, 1, 0.8)
        if close and not others:
            raise ValueError(f"No term reads {name}=: write {close[0]}=.")


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


def refuse_options_with_raw_logits(terms: Terms, tensors: Mapping[str, Any]) -> None:
    """Statistics know a soft-cap and the like; a loss that reads logits gets them as passed."""
    options = [name for name in ("softcap", "logit_scale", "temperature") if name in tensors]
    if not options or "logits" not in tensors:
        return
    for name, term in terms.items():
        if "logits" in term.read:
            raise ValueError(
                f"{options[0]} was passed, but term {name!r} reads the logits themselves, which it "
                f"does not change: pass finished logits and leave {options[0]} out."
            )


def refuse_target(term: str, loss: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Complain where log p of a target is wanted and the target names no class."""
    target = tensors.get("target")
    if target is None:
        raise missing_tensor(term, loss, "target", tensors)
    if target.ndim == 1 and target.is_floating_point():
        raise ValueError(
            f"Term {term!r} ({type(loss).__name__}) needs class indices (int64) or soft targets "
            f"(N, C), got {target.dtype} {tuple(target.shape)}: write target.long(), or for real "
            "values +target@loss.NAME.target_transform=hl_gauss."
        )


def refuse_soft_target(name: str, term: Term, tensors: Mapping[str, Any]) -> None:
    """Complain of soft targets, given or transformed, where log p of one class is meant."""
    target = tensors.get("target")
    if "log_prob" not in term.statistics or target is None or target.ndim == 1:
        return
    if not getattr(term.loss, "soft_target", False):
        raise ValueError(
            f"Term {name!r} ({type(term.loss).__name__}) needs class indices (N,), got soft "
            f"targets {tuple(target.shape)}: use ce, or pass target.argmax(-1)."
        )


def explain(
    named: Mapping[str, Any], ignore_index: int, class_target: bool = True
) -> ValueError | None:
    """The error that names the offending tensor, or None if the tensors look sound.

    `class_target`: whether an integer target is a column of the logits.
    """
    error = _not_a_number(named) or _temperature(named)
    return error or (_target_range(named, ignore_index) if class_target else None)


def _temperature(named: Mapping[str, Any]) -> ValueError | None:
    value = named.get("temperature")
    if not isinstance(value, Tensor) or bool((value > 0).all()):
        return None
    return ValueError(f"temperature must be positive, found {float(value.min())}.")


def _target_range(named: Mapping[str, Any], ignore_index: int) -> ValueError | None:
    target = named.get("target")
    logits, head = named.get("logits"), named.get("head_weight")
    if not isinstance(target, Tensor) or target.is_floating_point():
        return None
    if isinstance(logits, Tensor) and logits.ndim > 1:
        classes = logits.shape[-1]
    elif isinstance(head, Tensor):
        held = named.get("class_range")
        classes = head.shape[0] if held is None else held.num_classes
    else:
        return None
    used = target[target != ignore_index]
    wrong = used[(used < 0) | (used >= classes)]
    if not wrong.numel():
        return None
    return ValueError(
        f"target must be in [0, {classes}) or ignore_index={ignore_index}; found "
        f"{int(wrong[0])} and {wrong.numel() - 1} more out of range. For a padding label p write "
        f"Objective(..., ignore_index=p); for labels from 1 write target - 1."
    )


def _not_a_number(named: Mapping[str, Any]) -> ValueError | None:
    for name, value in named.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        bad = torch.isnan(value) | (value == torch.inf)  # -inf is a masked class
        if bool(bad.any()):
            rows = bad.reshape(bad.shape[0], -1).any(1) if bad.ndim else bad.reshape(1)
            return ValueError(
                f"{name} {tuple(value.shape)} holds NaN or +inf in {int(rows.sum())} of "
                f"{len(rows)} rows, first in row {int(rows.nonzero()[0])}. Look at what made it (a "
                "learning rate too high, 0/0, log of 0); Trainer(detect_anomaly=True) finds the "
                "operation."
            )
    return None
