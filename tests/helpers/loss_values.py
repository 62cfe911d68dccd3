# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What tests of losses on classes share: a loss as a number or a row, and its parts by loops."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses import Objective, Term

# The row of logits and its label for which values are worked out by hand, and another row.
F1 = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
G1 = torch.tensor([[1.5, 0.5, -1.0]], dtype=torch.float64)
Y1 = torch.tensor([0])

Row = list[float]


def value(
    loss: nn.Module | Term, logits: Tensor = F1, target: Tensor | None = Y1, **named: Any
) -> float:
    return float(Objective({"x": loss})(logits, target, **named).total)


def rows(loss: nn.Module, logits: Tensor, target: Tensor, **named: Any) -> Row:
    return Objective({"x": loss}, reduction="none")(logits, target, **named).total.tolist()


def batch(seed: int, spread: float, n: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(n, classes, generator=g, dtype=torch.float64)
    return z, torch.randint(classes, (n,), generator=g)


def probabilities(row: Row) -> Row:
    e = [math.exp(z - max(row)) for z in row]
    return [v / sum(e) for v in e]


def kl(p: Row, q: Row) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)
