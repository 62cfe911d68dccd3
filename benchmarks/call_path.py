# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How often one `compute_loss` enters each file of the package: is the path of a call straight?

    python benchmarks/call_path.py

An entry is a call of a function whose nearest caller within the package is in another file. Printed
for three calls, after one that warms up, files in the order in which the call first gets there.
Code that runs inside torch's backward pass is not part of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch

import lightning_losses
from lightning_losses import LossMixin, build_objective

ROOT = Path(lightning_losses.__file__).parent
#: `kernels` may be a link into the package, or a folder beside the sources.
ROOTS = (ROOT, ROOT.parents[1])

ROWS, DIM, CLASSES = 8, 4, 5
WATCHED = ("entropy", "confidence", "prediction")


class Module(LossMixin, L.LightningModule):
    """A module with nothing but an objective."""

    def __init__(self, *keys: str) -> None:
        super().__init__()
        self.loss = build_objective(list(keys))


def calls() -> dict[str, Callable[[], Any]]:
    """The three calls by name, ready to run."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=g).requires_grad_()
    hidden = torch.randn(ROWS, DIM, generator=g).requires_grad_()
    head = torch.randn(CLASSES, DIM, generator=g).requires_grad_()
    target = torch.arange(ROWS) % CLASSES
    plain, both, watched = Module("ce"), Module("ce", "opl"), Module("ce")
    watched.loss.watch("monitor", *WATCHED)
    return {
        "ce on logits": lambda: plain.compute_loss(logits=logits, target=target),
        "ce + opl": lambda: both.compute_loss(logits=logits, target=target, features=hidden),
        "ce from hidden, with monitors": lambda: watched.compute_loss(
            hidden=hidden, head_weight=head, target=target
        ),
    }


def place(frame: FrameType) -> str | None:
    """The file of a frame below the package, such as ``evaluation/rows.py``; None for others."""
    return name_of(frame.f_code.co_filename)


@cache
def name_of(file: str) -> str | None:
    """The same of a file; ``<string>`` is where namedtuples and dataclasses are made."""
    path = Path(file).resolve()
    for root in ROOTS:
        if not file.startswith("<") and path.is_relative_to(root):
            name = path.relative_to(root).as_posix()
            return None if name.startswith((".", "benchmarks")) else name
    return None


def entries(call: Callable[[], Any]) -> dict[str, int]:
    """How often a call enters each file."""
    found: dict[str, int] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        here = place(frame) if event == "call" else None
        if here is None:
            return
        caller = frame.f_back
        while caller is not None and place(caller) is None:
            caller = caller.f_back
        if caller is None or place(caller) != here:
            found[here] = found.get(here, 0) + 1

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def main() -> None:
    for name, call in calls().items():
        call()
        found = entries(call)
        print(f"\n{name}: {sum(found.values())} entries into {len(found)} files")
        for path, count in found.items():
            print(f"  {count:3} {path}")


if __name__ == "__main__":
    main()
