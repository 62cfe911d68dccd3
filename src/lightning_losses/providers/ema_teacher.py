# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A mean teacher: makes ``teacher_logits`` by a moving average of the model's own weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class EMATeacher(nn.Module):
    """Provides ``teacher_logits`` by a copy of a model that follows it slowly, without gradient.

    Tarvainen and Valpola, arXiv 1703.01780; as RMT uses it (arXiv 2211.13081). After each optimizer
    step ``teacher <- momentum * teacher + (1 - momentum) * model``; buffers, such as the statistics
    of batch norm, are taken as they are. The teacher is in eval mode and not trained; unlike
    `FrozenTeacher` it is part of the ``state_dict``, so that a resumed run goes on with it. Ranks
    hold equal models, so they hold equal teachers.

    Args:
        model: input ``(B, ...)`` -> logits ``(B, ..., C)``; the one that is trained.
        momentum: in [0, 1]; 0.999 in the papers.

    Raises:
        ValueError: a momentum out of range.

    Examples:
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> model.weight.data = torch.ones(1, 1)
        >>> provider = EMATeacher(model, momentum=0.9)
        >>> model.weight.data = torch.zeros(1, 1)  # a step
        >>> provider.follow()
        >>> provider({"input": torch.ones(1, 1)})
        tensor([[0.9000]])
    """

    makes = "teacher_logits"
    reads = ("input",)

    def __init__(self, model: nn.Module, momentum: float = 0.999) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}; write 0.999.")
        self.momentum = momentum
        self._model = (model,)  # in a tuple: no submodule
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self._step: int | None = None

    def train(self, mode: bool = True) -> EMATeacher:
        """The teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def set_step(self, step: int) -> None:
        """At the first batch of another optimizer step follow the model."""
        if self._step is not None and step != self._step:
            self.follow()
        self._step = step

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the model once."""
        (model,) = self._model
        for slow, fast in zip(self.teacher.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast.detach().to(slow), 1 - self.momentum)
        for kept, new in zip(self.teacher.buffers(), model.buffers(), strict=True):
            kept.copy_(new)

    def forward(self, tensors: Mapping[str, Any]) -> Tensor:
        """``teacher_logits (N, C)``. Raises ValueError if the step passed no input."""
        x = tensors.get("input")
        if x is None:
            raise ValueError("The teacher needs the input: write self.compute_loss(..., input=x).")
        with torch.no_grad():
            logits: Tensor = self.teacher(x)
        return logits.reshape(-1, logits.shape[-1])
