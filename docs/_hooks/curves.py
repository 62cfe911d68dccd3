# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A small picture of a loss between two classes: its value and its slope over the margin, as SVG.

Drawn for losses of rows that read logits and target alone and see only differences of logits; the
numbers are the loss's own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from lightning_losses.config.build import build_objective, compose_losses
from lightning_losses.config.facts import Facts
from lightning_losses.objective import Objective

sys.path.append(str(Path(__file__).parent))  # mkdocs loads a hook by its file alone
from drawing import ORANGE, Line, Tick, svg

REACH, POINTS = 5.0, 81
#: One score a row and yes or no, instead of a column a class.
ONE_SCORE = ("bce", "binary_focal")


def drawable(key: str, one: Facts) -> bool:
    """Whether two classes and a margin say all there is to say of this loss."""
    return (
        one.scope == "rows"
        and not (one.target_transform or one.row_weighting or one.aggregation)
        and one.family in ("classification", "robust")
        and set(one.tensors) <= {"logits", "target"}
        and key != "spherical_z"  # standardised logits of two classes are 1 and -1
    )


def curves(names: Sequence[str]) -> dict[str, str]:
    """SVG of each of these losses that sees only the margin, as its YAML has it and of weight 1."""
    nodes = OmegaConf.to_container(compose_losses(list(names)), resolve=True)
    assert isinstance(nodes, dict)
    margin = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    out = {}
    for key in names:
        objective = build_objective({key: nodes[key] | {"weight": 1.0}}, reduction="none")
        value, slope = along(objective, margin, 0.0, key in ONE_SCORE)
        if torch.allclose(value, along(objective, margin, 1.0, key in ONE_SCORE)[0]):
            out[key] = drawing(margin.tolist(), value.tolist(), slope.tolist())
    return out


def along(
    objective: Objective, margin: Tensor, other: float, one_score: bool
) -> tuple[Tensor, Tensor]:
    """Value and slope in the margin, where the logit of the other class is this."""
    margin = margin.clone().requires_grad_()
    if one_score:
        logits, target = margin, torch.ones_like(margin)
    else:
        logits = torch.stack([margin + other, torch.full_like(margin, other)], 1)
        target = torch.zeros(len(margin), dtype=torch.long)
    value = objective(logits, target.detach()).total
    (slope,) = torch.autograd.grad(value.sum(), margin)
    return value.detach(), slope


def drawing(margin: list[float], value: list[float], slope: list[float]) -> str:
    """Value and slope over the margin, with the probability it means below."""
    lines = [
        Line("value, nats or the loss's own unit", list(zip(margin, value, strict=True))),
        Line("slope (dashed)", list(zip(margin, slope, strict=True)), ORANGE, dashed=True),
    ]
    across = [Tick(m, f"{m}", f"p {1 / (1 + math.exp(-m)):.2g}") for m in range(-4, 5, 2)]
    return svg(lines, across, "logit of the target minus that of the other class", zero=True)
