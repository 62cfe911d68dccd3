# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen teacher: makes ``teacher_logits``, or hidden states and head, from the step's input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class FrozenTeacher(nn.Module):
    """Provides ``teacher_logits`` by running a trained model on ``input``, without gradient.

    The teacher is always in eval mode, follows the input's device, is neither trained nor saved,
    and adds nothing to parameters or ``state_dict``. Load its weights before handing it over.

    With a head, ``teacher_hidden`` instead: the model then stops at its last hidden states, and
    losses such as ``kd`` make its logits a few rows at a time. For large vocabularies, of which
    ``(N, V)`` logits would not fit.

    Args:
        model: input ``(B, ...)`` -> logits ``(B, ..., C)``; with a head, -> hidden states
            ``(B, ..., D)``. A mapping of tensors is passed as keyword arguments.
        head: ``nn.Linear(D, C)`` of the teacher.

    Raises:
        TypeError: the model is no module, or the head no plain ``nn.Linear``.
        ValueError: the step passed no input.

    Examples:
        >>> provider = FrozenTeacher(torch.nn.Linear(4, 3))
        >>> logits = provider({"input": torch.ones(8, 4)})
        >>> logits.shape, logits.requires_grad, len(provider.state_dict())
        (torch.Size([8, 3]), False, 0)
    """

    makes = "teacher_logits"
    reads = ("input",)

    def __init__(self, model: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        require_module(model)
        if head is not None and type(head) is not nn.Linear:
            raise TypeError(
                f"head must be a plain nn.Linear, of which weight and bias are all, got {head!r}: "
                "leave it out, and let the model give logits."
            )
        # In a tuple: no submodules.
        self._model = (model.eval().requires_grad_(False),)
        self._head: tuple[nn.Linear, ...] = ()
        if isinstance(head, nn.Linear):
            self.makes, self._head = "teacher_hidden", (head.requires_grad_(False),)

    def forward(self, tensors: Mapping[str, Any]) -> Tensor | dict[str, Tensor]:
        """``teacher_logits (N, C)``; or by name ``teacher_hidden (N, D)`` and the head's tensors.

        Raises:
            ValueError: the step passed no input.
        """
        x = input_of(tensors)
        device = next(iter(x.values())).device if isinstance(x, Mapping) else x.device
        (model,) = self._model
        # A module that holds the teacher as well has taken it along to train mode.
        if any(part.training for part in model.modules()):
            model.eval()
        out = run(model.to(device), x)
        made = {"teacher_hidden": out}
        for head in self._head:
            made["teacher_head_weight"] = head.to(device).weight
            if head.bias is not None:
                made["teacher_head_bias"] = head.bias
        return made if self._head else out


def require_module(model: Any) -> None:
    """Raise a TypeError unless this is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be an nn.Module, got {model!r}: in a config write model: {{_target_: "
            "my.load_teacher}, a function that returns one."
        )


def input_of(tensors: Mapping[str, Any]) -> Any:
    """What the step passed as input. Raises a ValueError if there is none."""
    x = tensors.get("input")
    if x is None:
        raise ValueError("The teacher needs the input: write self.compute_loss(..., input=x).")
    return x


@torch.no_grad()
def run(model: nn.Module, x: Any) -> Tensor:
    """The model's output ``(B, ..., K)`` as rows ``(N, K)``, without graph.

    Raises:
        TypeError: it is no tensor.
    """
    dtypes = {one.dtype for one in model.parameters() if one.is_floating_point()}

    def fit(one: Any) -> Any:
        """In the teacher's precision: under ``bf16-true`` the batch has the student's."""
        floats = isinstance(one, Tensor) and one.is_floating_point()
        return one.to(next(iter(dtypes))) if floats and len(dtypes) == 1 else one

    if isinstance(x, Mapping):
        out = model(**{name: fit(one) for name, one in x.items()})
    else:
        out = model(fit(x))
    if not isinstance(out, Tensor):
        raise TypeError(
            f"The teacher must return a tensor, got {type(out).__name__}: wrap it in a module that "
            "returns its logits (of a model of transformers, model(...).logits)."
        )
    return out.reshape(-1, out.shape[-1])
