# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every line of the tables in ``docs/migrate.md``, run as written against the other library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_losses import build_objective
from lightning_losses.metrics import StreamingCalibration, top_label

PAGE = (Path(__file__).parents[2] / "docs" / "migrate.md").read_text()
#: Section -> the modules whose names its lines use.
PEERS = {
    "PyTorch": (),
    "MONAI": ("monai.losses",),
    "pytorch-metric-learning": ("pytorch_metric_learning",),
    "torchmetrics": ("torchmetrics.classification",),
}
#: Data; the other tensors are a network's, and their gradients are compared too.
GIVEN = ("labels", "soft", "teacher", "weight")


class Line(NamedTuple):
    section: str
    theirs: str
    ours: str
    given: str


def lines() -> list[Line]:
    out = []
    for section in PEERS:
        for row in re.findall(r"^\| (`.*)\|$", body(section), re.MULTILINE):
            theirs, ours, given = (cell.strip().strip("`") for cell in row.split("|"))
            out.append(Line(section, theirs, ours, given))
    return out


def body(section: str) -> str:
    return PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]


def names(section: str) -> dict[str, Any]:
    """What the lines of a section may use, its tensors in float64 and with gradient."""
    space: dict[str, Any] = {
        "torch": torch,
        "F": F,
        "StreamingCalibration": StreamingCalibration,
        "top_label": top_label,
    }
    for name in PEERS[section]:
        module = pytest.importorskip(name)
        space |= {key: getattr(module, key) for key in dir(module) if key[0] != "_"}
    if section == "pytorch-metric-learning":
        for key in ("losses", "miners"):
            space[key] = pytest.importorskip(f"pytorch_metric_learning.{key}")
    (code,) = re.findall(r"```python\n(.*?)```", body(section), re.DOTALL)
    torch.manual_seed(0)
    exec(code, space)
    for key, value in space.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            space[key] = value.double().requires_grad_(key not in GIVEN)
    return space


def evaluate(line: Line, space: dict[str, Any]) -> Any:
    if not line.ours.startswith("loss="):
        return eval(line.ours, space)
    key, *options = line.ours.split()
    overrides = [f"+loss=[{key.removeprefix('loss=')}]", *options]
    with hydra.initialize_config_module("lightning_losses.conf", version_base="1.3"):
        loss = hydra.compose(overrides=overrides).loss
    return build_objective(loss)(**eval(f"dict({line.given})", space)).total


def test_the_page_has_tables() -> None:
    assert {line.section for line in lines()} == set(PEERS)
    assert len(lines()) > 30


@pytest.mark.parametrize("line", lines(), ids=lambda line: f"{line.section}: {line.theirs}")
def test_equal_numbers(line: Line) -> None:
    space = names(line.section)
    theirs, ours = eval(line.theirs, space), evaluate(line, space)
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-6, atol=1e-7)
    if not theirs.requires_grad:
        return
    leaves = [v for v in space.values() if isinstance(v, Tensor) and v.requires_grad and v.is_leaf]
    grads = [torch.autograd.grad(t, leaves, allow_unused=True) for t in (theirs, ours)]
    compared = 0
    for theirs_grad, ours_grad in zip(*grads, strict=True):
        if theirs_grad is not None and theirs_grad.any():
            torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-5, atol=1e-7)
            compared += 1
    assert compared
