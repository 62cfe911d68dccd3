# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every custom op keeps the contract of `torch.library`: schema, fake tensors, what it mutates.

Under Triton's interpreter where there is no CUDA device. Whether the numbers are right is
`test_triton.py`'s question; here it is whether compiled code may believe what an op says of itself.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from lightning_losses.kernels.problem import MAX_AND_SUM, STATISTICS
from lightning_losses.kernels.triton import tiles
from lightning_losses.kernels.triton.lean_backward_op import lean_gradient
from lightning_losses.kernels.triton.lean_forward_op import lean_statistics
from lightning_losses.kernels.triton.row_ops import row_gradient, row_statistics

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TESTS = ("test_schema", "test_autograd_registration", "test_faketensor")
NAMES = (*MAX_AND_SUM, *STATISTICS)
FOLDER = Path(tiles.__file__).parent

# Sizes are no multiple of any block; one row of 5 does not count.
N, D, V = 5, 8, 35


def draw(*shape: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=g).to(DEVICE)


def rows() -> dict[str, Any]:
    """What ops are given of each row, and the options of the logits."""
    valid = torch.tensor([True, True, False, True, True], device=DEVICE)
    return {
        "temperature": draw(N).abs() + 0.5,
        "target": torch.arange(N, device=DEVICE),
        "valid": valid,
        "scale": 1.3,
        "softcap": 2.0,
    }


def coefficients(bare: bool) -> dict[str, Any]:
    """One number a row for each coefficient, or those of plain cross-entropy alone."""
    given = "ad" if bare else "abcdefg"
    column = draw(N, 1)
    return {name: column if name in given else None for name in "abcdefg"}


def without_options(arguments: dict[str, Any]) -> dict[str, Any]:
    absent = {"bias": None, "temperature": None, "valid": None, "num_valid": None, "softcap": None}
    absent |= {"scale": 1.0, "class_weight": None}
    return {name: absent.get(name, value) for name, value in arguments.items()}


def arguments_of(op: str, bare: bool) -> dict[str, Any]:
    given = rows() | {"bias": draw(V)}
    if op.startswith("row"):
        given |= {"soft": None, "lift": True, "class_weight": draw(V)}
    else:
        given |= {"hidden": draw(N, D), "num_valid": given["valid"].sum(dtype=torch.int32)}
    if op == "row_statistics":
        given |= {"z": draw(N, V), "names": " ".join(MAX_AND_SUM if bare else NAMES)}
    if op == "lean_statistics":
        names = [name for name in NAMES if name != "weighted_log_prob"]
        given |= {"head": draw(V, D), "names": " ".join(MAX_AND_SUM if bare else names)}
    if op.endswith("gradient"):
        prediction = None if bare else torch.zeros(N, dtype=torch.int64, device=DEVICE)
        given |= {"max_logit": draw(N), "prediction": prediction, **coefficients(bare)}
    if op == "row_gradient":
        given |= {"z": draw(N, V), "out": torch.empty(N, V, device=DEVICE)}
    if op == "lean_gradient":
        needs = {"need_hidden": True, "need_weight": not bare, "need_bias": not bare}
        given |= {"weight": draw(V, D), **needs}
        del given["g"]  # of class weights, which mode lean does not know
    return without_options(given) if bare else given


OPS = {
    "row_statistics": row_statistics,
    "row_gradient": row_gradient,
    "lean_statistics": lean_statistics,
    "lean_gradient": lean_gradient,
}


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "all options"])
@pytest.mark.parametrize("name", OPS)
def test_opcheck(name: str, bare: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = tiles.Tile(rows=16, classes=16, depth=32, warps=4, stages=2)
    monkeypatch.setattr(tiles, "forward_tile", lambda *_: tile)
    monkeypatch.setattr(tiles, "backward_tile", lambda *_: tile)
    schema = getattr(torch.ops.lightning_losses, name).default._schema
    given = arguments_of(name, bare)
    assert given.keys() == {argument.name for argument in schema.arguments}
    # In the schema's order, as the product calls them.
    ordered = tuple(given[argument.name] for argument in schema.arguments)
    torch.library.opcheck(OPS[name], ordered, test_utils=TESTS)


def test_every_op_is_checked() -> None:
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.library.custom_op":
                found.add(ast.literal_eval(node.args[0]).split("::")[1])
    assert found == OPS.keys()
