# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Elastic weight consolidation: parameters that earlier tasks needed stay near where they were."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract

#: Of each parameter: importance, and the value that it is held at.
Memory = dict[str, tuple[Tensor, Tensor]]


class Elastic(nn.Module):
    """``1/2 sum over tasks and parameters of F (theta - theta_task)^2``.

    Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", arXiv 1612.00796.
    The weight of the term is its strength, with the half as part of the penalty (codes without it
    have half our strength). `ElasticMemory` measures the importance F at the end of each task, the
    diagonal of the Fisher information (`metrics.fisher_diagonal`); a loop of your own calls
    `remember`. Before the first task is remembered the penalty is 0.

    All tasks together are kept in the memory of one: a sum of squares around several anchors is
    the sum of F times the square around their mean weighted by F, and a constant. With ``gamma``
    the penalty is the online variant (Schwarz et al., arXiv 1805.06370): the importance of earlier
    tasks fades by gamma, is held at the newest values only, and is multiplied by gamma in the
    penalty as well.

    The memory is in checkpoints, float32 at least. Rows that a head has gained since a task was
    remembered, and parameters that came later, are free; buffers (running statistics) are not held.
    Weight decay pulls towards 0 meanwhile, not towards the anchor. Under gradient accumulation the
    penalty counts once a batch, at the same mean as the other terms.

    Args:
        pattern: regular expression that a parameter's name must contain.
        gamma: None keeps every task; a number in [0, 1] is the online variant.

    Shapes: reads ``module.named_parameters()``; one number.

    Raises:
        ValueError: a gamma outside [0, 1]; no parameter matches, in `forward`.

    Examples:
        >>> model, penalty = torch.nn.Linear(1, 1, bias=False), Elastic()
        >>> model.weight.data = torch.zeros(1, 1)
        >>> penalty.remember(model, {"weight": torch.tensor([[3.0]])})  # importance
        >>> model.weight.data = torch.full((1, 1), 2.0)
        >>> penalty(model).item()  # 3 (2 - 0)^2 / 2
        6.0
    """

    scope = "parameters"
    contract = Contract(target=("none",), head="none")

    def __init__(self, pattern: str = "", gamma: float | None = None) -> None:
        super().__init__()
        if gamma is not None and not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be None or in [0, 1], got {gamma}.")
        self.pattern, self.gamma = pattern, gamma
        self.tasks = 0
        self.constant = 0.0  # what the squares around several anchors have in common
        self.memory: Memory = {}

    def named(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters that are held. Raises ValueError if there are none."""
        found = {
            name: parameter
            for name, parameter in module.named_parameters()
            if parameter.requires_grad and re.search(self.pattern, name)
        }
        if not found:
            raise ValueError(
                f"elastic found no trained parameter matching {self.pattern!r} in "
                f"{type(module).__name__}: write loss.elastic.pattern=<part of a name>."
            )
        return found

    def forward(self, module: nn.Module) -> Tensor:
        """The penalty, 0-dim, connected to every parameter that is held."""
        parts = [self._penalty(name, parameter) for name, parameter in self.named(module).items()]
        total = torch.stack([part.to(parts[0].device) for part in parts]).sum()
        return total + self.constant

    def _penalty(self, name: str, parameter: Tensor) -> Tensor:
        wide = torch.promote_types(parameter.dtype, torch.float32)
        if name not in self.memory:
            return 0.0 * parameter.to(wide).sum()
        importance, anchor = (x.to(parameter.device) for x in self.memory[name])
        self.memory[name] = importance, anchor  # moved once, at the first call on a device
        rows = parameter
        if parameter.shape != anchor.shape:
            rows = self._common(name, parameter, anchor)
        gamma = 1.0 if self.gamma is None else self.gamma
        squares = importance.to(wide) * (rows.to(wide) - anchor.to(wide)).square()
        return 0.5 * gamma * squares.sum()

    def _common(self, name: str, parameter: Tensor, anchor: Tensor) -> Tensor:
        """What a head that has grown had before: the first rows."""
        if parameter.shape[1:] != anchor.shape[1:] or len(parameter) < len(anchor):
            raise ValueError(
                f"{name} was {tuple(anchor.shape)} when it was remembered and is "
                f"{tuple(parameter.shape)} now: only rows may have been added."
            )
        return parameter[: len(anchor)]

    @torch.no_grad()
    def remember(self, module: nn.Module, fisher: Mapping[str, Tensor]) -> None:
        """Hold the parameters where they are, by their importance in the task that has ended.

        Args:
            module: whose parameters `forward` will read.
            fisher: importance by the parameter's name, shaped as it, not negative; parameters that
                are not named are not held by this task.

        Raises:
            ValueError: an importance that is negative or not finite, or of another shape.
        """
        for name, parameter in self.named(module).items():
            if name not in fisher:
                continue
            wide = torch.promote_types(parameter.dtype, torch.float32)
            new, here = fisher[name].detach().to(wide), parameter.detach().to(wide)
            if new.shape != here.shape or not bool(((new >= 0) & new.isfinite()).all()):
                raise ValueError(
                    f"The importance of {name} must be {tuple(here.shape)}, finite and at least 0."
                )
            before = self.memory.get(name)
            if before is None:
                self.memory[name] = new.clone(), here.clone()
                continue
            earlier, anchor = (_grown(x.to(new), here) for x in before)
            if self.gamma is not None:
                self.memory[name] = self.gamma * earlier + new, here.clone()
                continue
            both = earlier + new
            share = new / torch.where(both > 0, both, 1.0)
            gap = here - anchor
            self.constant += 0.5 * float((earlier * share * gap.square()).sum())
            self.memory[name] = both, anchor + share * gap
        self.tasks += 1

    def get_extra_state(self) -> dict[str, Any]:
        """For checkpoints: the memory, whose names the module itself does not know."""
        memory = {name: list(pair) for name, pair in self.memory.items()}
        return {"tasks": self.tasks, "constant": self.constant, "memory": memory}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the memory of a checkpoint."""
        self.tasks, self.constant = state["tasks"], state["constant"]
        self.memory = {name: (pair[0], pair[1]) for name, pair in state["memory"].items()}


def _grown(value: Tensor, like: Tensor) -> Tensor:
    """The memory of a head that has grown: nothing is known of the new rows."""
    if value.shape == like.shape:
        return value
    grown = torch.zeros_like(like)
    grown[: len(value)] = value
    return grown
