# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What only building a key tells, written down, so that the command line answers without torch.

``facts.json`` beside this file is made by ``python -m lightning_losses.config.facts``; a test
builds every key and compares. Summaries and docstrings are not in it: they are read from where
they stand.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Collection
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_losses.config.catalogue import GROUPS, keys, target_class

if TYPE_CHECKING:
    from lightning_losses.term import Term

HERE = files("lightning_losses.config")


class Facts(NamedTuple):
    """What is known of a key; all but ``made`` only of losses."""

    made: str | None = None
    """Module and class that it instantiates; None for a kernel's name."""
    scope: str | None = None
    statistics: tuple[str, ...] = ()
    """Softmax statistics that it cannot do without; they come from one pass."""
    tensors: tuple[str, ...] = ()
    """Other named tensors that it cannot do without."""
    target: tuple[str, ...] = ()
    """What its target may be, as its contract says: ``class``, ``soft``, ``binary``, ..."""
    target_transform: str | None = None
    row_weighting: str | None = None
    aggregation: str | None = None
    by_chunks: bool = False
    """Whether hidden states and head will do for its logits, see `Contract`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """All that it cannot do without."""
        return self.statistics + self.tensors

    @property
    def family(self) -> str:
        """The sub-package of the class of a loss; presets share their idea's."""
        parts = (self.made or "").split(".")
        return parts[2] if parts[1] == "losses" else parts[1]


def facts() -> dict[str, Facts]:
    """The facts of every key, by ``group/key``: as written down, or built where a key is new."""
    written = json.loads((HERE / "facts.json").read_text(encoding="utf-8"))
    known: dict[str, Facts] = {}
    for name, one in written.items():
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}
        known[name] = Facts(**fields)
    new = {f"{group}/{key}" for group in GROUPS for key in keys(group)} - known.keys()
    return known | gather(new) if new else known


def gather(names: Collection[str] | None = None) -> dict[str, Facts]:
    """The facts of these keys, of all if None, from building them. Takes seconds."""
    from omegaconf import OmegaConf

    from lightning_losses.config.build import build_objective, compose_losses

    wanted = [
        (group, key)
        for group in GROUPS
        for key in keys(group)
        if names is None or f"{group}/{key}" in names
    ]
    losses = [key for group, key in wanted if group == "loss"]
    nodes = OmegaConf.to_container(compose_losses(losses), resolve=True) if losses else {}
    assert isinstance(nodes, dict)
    gathered = {}
    for group, key in wanted:
        if group != "loss":
            cls = target_class(group, key)
            gathered[f"{group}/{key}"] = Facts(None if cls is None else _name(cls))
            continue
        ((_, term),) = build_objective({key: nodes[key]}).named_terms()
        gathered[f"loss/{key}"] = Facts(
            _name(type(term.loss)),
            getattr(term.loss, "scope", "rows"),
            term.statistics,
            tuple(sorted(term.required - set(term.statistics))),
            _target(term),
            None if term.target_transform is None else _name(type(term.target_transform)),
            None if term.row_weighting is None else _name(type(term.row_weighting)),
            None if term.aggregation is None else _name(type(term.aggregation)),
            term.contract is not None and term.contract.by_chunks,
        )
    return gathered


def as_text(known: dict[str, Facts]) -> str:
    """A key a line, so that two branches that each add one merge."""
    lines = []
    for name, one in known.items():
        said = {k: v for k, v in one._asdict().items() if v not in (None, (), False)}
        lines.append(f"{json.dumps(name)}: {json.dumps(said)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def docstring(made: str) -> str:
    """The docstring of one of our classes, read from its file; empty for a class of others."""
    package, *folders, cls = made.split(".")
    if package != "lightning_losses":
        return ""
    path = files(package).joinpath(*folders[:-1], f"{folders[-1]}.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            return inspect.cleandoc(ast.get_docstring(node) or "")
    return ""


def _target(term: Term) -> tuple[str, ...]:
    first = term.loss if term.target_transform is None else term.target_transform
    contract = getattr(first, "contract", None)
    return () if contract is None else tuple(contract.target)


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


if __name__ == "__main__":
    from pathlib import Path

    Path(str(HERE / "facts.json")).write_text(as_text(gather()), encoding="utf-8")
