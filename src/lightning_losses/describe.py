# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the catalogue says of itself, as text: `lightning-losses list`, `show`, `names`.

From what is written down: importing torch and building every loss takes seconds.
"""

from __future__ import annotations

import textwrap

from lightning_losses.config.catalogue import GROUPS, find, keys, summary, yaml_text
from lightning_losses.config.facts import docstring, facts
from lightning_losses.named_tensors import NAMED_TENSORS, describe


def listing() -> str:
    """A line for every key: name, scope, needs, and the YAML's first comment."""
    known = facts()
    lines: list[str] = []
    rows = [(known[f"loss/{key}"].family, key) for key in keys("loss")]
    for family in sorted({family for family, _ in rows}):
        lines.append(f"\nloss ({family})")
        for _, key in sorted(row for row in rows if row[0] == family):
            one = known[f"loss/{key}"]
            needs = " ".join(one.needs)
            lines.append(f"  {key:22} {one.scope:11} {needs:34} {summary('loss', key)}")
    for group in GROUPS[1:]:
        lines.append(f"\n{group}")
        lines += [f"  {key:22} {summary(group, key)}" for key in keys(group)]
    return "\n".join(lines).strip()


#: Of a loss whose contract says so; also on its page.
BY_CHUNKS = (
    "whole rows of logits are made a few at a time of teacher_hidden= and teacher_head_weight= "
    "instead of teacher_logits=, and of hidden= and head_weight= instead of logits="
)


def details(key: str) -> str:
    """Everything about one key. Raises ValueError if there is none of that name."""
    group, name = find(key)
    one = facts()[f"{group}/{name}"]
    lines = [f"{group}/{name}: {summary(group, name)}", ""]
    if one.made is not None:
        lines += [docstring(one.made) or f"class: {one.made}", ""]
    if group == "loss":
        lines.append("needs:")
        lines += [f"  {describe(tensor)}" for tensor in sorted(one.needs)]
        lines.append(f"scope: {one.scope}")
        for what, part in (
            ("target transform", one.target_transform),
            ("row weighting", one.row_weighting),
            ("aggregation", one.aggregation),
        ):
            if part is not None:
                about = textwrap.indent(docstring(part), "  ")
                lines.append(f"{what}: {part.rpartition('.')[2]}\n{about}")
        if one.statistics:
            lines.append("kernel: any; `lightning-losses doctor` says which one is taken here")
        elif one.by_chunks:
            lines.append(f"kernel: none; {BY_CHUNKS}")
        elif "logits" in one.tensors:
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
