# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The catalogue in words: what `lightning-losses list`, `show` and `names` print."""

from __future__ import annotations

import inspect
import textwrap

from torch import nn

from lightning_losses.config.build import build_objective
from lightning_losses.config.catalogue import GROUPS, find, keys, summary, target_class, yaml_text
from lightning_losses.named_tensors import NAMED_TENSORS, describe
from lightning_losses.softmax import STATISTICS, describe_kernel
from lightning_losses.term import Term


def listing() -> str:
    """A line for every key: name, scope, needs, and the YAML's first comment."""
    lines: list[str] = []
    rows = [(_family(key), key) for key in keys("loss")]
    for family in sorted({family for family, _ in rows}):
        lines.append(f"\nloss ({family})")
        for _, key in sorted(row for row in rows if row[0] == family):
            term = _term(key)
            scope = getattr(term.loss, "scope", "rows")
            lines.append(f"  {key:22} {scope:11} {_needs(term):34} {summary('loss', key)}")
    for group in GROUPS[1:]:
        lines.append(f"\n{group}")
        lines += [f"  {key:22} {summary(group, key)}" for key in keys(group)]
    return "\n".join(lines).strip()


def details(key: str) -> str:
    """Everything about one key. Raises ValueError if there is none of that name."""
    group, name = find(key)
    lines = [f"{group}/{name}: {summary(group, name)}", ""]
    cls = target_class(group, name)
    if cls is not None:
        lines += [inspect.getdoc(cls) or "", ""]
    if group == "loss":
        term = _term(name)
        lines.append("needs:")
        lines += [f"  {describe(tensor)}" for tensor in sorted(term.required)]
        lines.append(f"scope: {getattr(term.loss, 'scope', 'rows')}")
        for what, part in (
            ("target transform", term.target_transform),
            ("row weighting", term.row_weighting),
        ):
            if part is not None:
                about = textwrap.indent(inspect.getdoc(type(part)) or "", "  ")
                lines.append(f"{what}: {type(part).__name__}\n{about}")
        if term.statistics:
            lines.append(f"kernel: {describe_kernel()}")
        elif "logits" in term.required:
            lines.append("kernel: none; it needs whole rows of logits")
        lines.append("")
    lines += [f"defaults (conf/{group}/{name}.yaml):", "", yaml_text(group, name).rstrip()]
    return "\n".join(lines)


def vocabulary() -> str:
    """A line for every named tensor; names of the user's own work as well."""
    width = max(len(word.shape) for word in NAMED_TENSORS.values())
    lines = [f"{name:18} {w.shape:{width}} {w.meaning}" for name, w in NAMED_TENSORS.items()]
    end = "Any other name reaches the loss whose forward has a parameter of it, as it was passed."
    return "\n".join([*lines, "", end])


def _term(key: str) -> Term:
    ((_, term),) = build_objective(key).named_terms()
    return term


def _needs(term: Term) -> str:
    """Statistics together, as they come from one pass; then the rest."""
    names = [name for name in STATISTICS if name in term.required]
    return " ".join(names + sorted(term.required - set(names)))


def _family(key: str) -> str:
    """The family of a loss: the sub-package of its class; presets share their idea's."""
    loss: nn.Module = _term(key).loss
    parts = type(loss).__module__.split(".")
    return parts[2] if parts[1] == "losses" else parts[1]
