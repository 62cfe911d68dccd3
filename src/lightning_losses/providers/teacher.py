# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen teacher: makes ``teacher_logits`` from the step's input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class FrozenTeacher(nn.Module):
    """Provides ``teacher_logits`` by running a trained model on ``input``, without gradient.

    The teacher is always in eval mode, follows the input's device, is neither trained nor saved,
    and adds nothing to parameters or ``state_dict``. Load its weights before handing it over.

    Args:
        model: input ``(B, ...)`` -> logits ``(B, ..., C)``.

    Raises:
        ValueError: the step passed no input.

    Examples:
        >>> provider = FrozenTeacher(torch.nn.Linear(4, 3))
        >>> logits = provider({"input": torch.ones(8, 4)})
        >>> logits.shape, logits.requires_grad, len(provider.state_dict())
        (torch.Size([8, 3]), False, 0)
    """

    makes = "teacher_logits"
    reads = ("input",)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._teacher = (model.eval().requires_grad_(False),)  # in a tuple: no submodule

    def forward(self, tensors: Mapping[str, Any]) -> Tensor:
        """``teacher_logits (N, C)``. Raises ValueError if the step passed no input."""
        x = tensors.get("input")
        if x is None:
            raise ValueError("The teacher needs the input: write self.compute_loss(..., input=x).")
        (teacher,) = self._teacher
        teacher.to(x.device)
        with torch.no_grad():
            logits: Tensor = teacher(x)
        return logits.reshape(-1, logits.shape[-1])
