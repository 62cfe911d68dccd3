# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A mean teacher: makes ``teacher_logits`` by a moving average of the model's own weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.providers.teacher import input_of, require_module, run
from lightning_losses.wide_buffers import WideBuffers


class EMATeacher(WideBuffers):
    """Provides ``teacher_logits`` by a copy of a model that follows it slowly, without gradient.

    Tarvainen and Valpola, arXiv 1703.01780; as RMT uses it (arXiv 2211.13081). After each optimizer
    step ``teacher <- momentum * teacher + (1 - momentum) * model``; buffers, such as the statistics
    of batch norm, are taken as they are. The teacher is in eval mode and not trained; unlike
    `FrozenTeacher` it is part of the ``state_dict``, so that a resumed run goes on with it. Ranks
    hold equal models, so they hold equal teachers. Under ``bf16-true`` it stays in float32, where a
    thousandth of the way is not rounded away.

    Args:
        model: input ``(B, ...)`` -> logits ``(B, ..., C)``; the one that is trained. Without it, as
            in a config, the step passes ``model=self.net`` with its input, and the first call
            makes the copy.
        momentum: in [0, 1]; 0.999 in the papers.

    Raises:
        ValueError: a momentum out of range, or no model.
        TypeError: a model that is no module.

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
    reads = ("input", "model")

    def __init__(self, model: nn.Module | None = None, momentum: float = 0.999) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}; write 0.999.")
        self.momentum = momentum
        self.teacher: nn.Module | None = None
        self._model: tuple[nn.Module, ...] = ()  # in a tuple: no submodule
        self._loaded: dict[str, Any] = {}  # of a checkpoint, until there is a teacher
        self._step: int | None = None  # of the last batch; saved, for the next one follows
        self._owed = False  # a move, of a teacher that has not been made again yet
        if model is not None:
            self._begin(model)

    def _begin(self, model: nn.Module) -> None:
        """Start as a copy of the model, or where a checkpoint says."""
        require_module(model)
        if any(part is self for part in model.modules()):
            raise ValueError(
                "The teacher would be a copy of the module that holds the loss, and so the teacher "
                "itself: pass the network alone, model=self.net."
            )
        self._model = (model,)
        # Validation may come first, in inference mode, whose tensors could not be moved later.
        with torch.inference_mode(False):
            teacher = copy.deepcopy(model).eval().requires_grad_(False)
            # In half precision a thousandth of the way would round to none.
            halves = (torch.float16, torch.bfloat16)
            for part in (*teacher.parameters(), *teacher.buffers()):
                part.data = part.float() if part.dtype in halves else part
            self.teacher = teacher
            if self._loaded:
                self.teacher.load_state_dict(self._loaded)
                self._loaded = {}
        if self._owed:
            self._owed = False
            self.follow()

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({f"{prefix}teacher.{name}": x for name, x in self._loaded.items()})
        destination[f"{prefix}step"] = torch.tensor(-1 if self._step is None else self._step)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:
        """Keep what was saved for a teacher that comes with the first step."""
        own = dict(state_dict)
        step = int(own.pop(f"{prefix}step", -1))  # older checkpoints have none
        self._step, self._owed = step if step >= 0 else None, False
        if self.teacher is None:
            start = f"{prefix}teacher."
            self._loaded = {
                name.removeprefix(start): value
                for name, value in own.items()
                if name.startswith(start)
            }
        else:
            super()._load_from_state_dict(own, prefix, *others)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> EMATeacher:
        """The teacher stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def set_step(self, step: int) -> None:
        """At the first batch of another optimizer step follow the model."""
        if self._step is not None and step != self._step:
            self.follow()
        self._step = step

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the model once; nothing before the first call."""
        if self.teacher is None:
            self._owed = bool(self._loaded)
            return
        (model,) = self._model
        for slow, fast in zip(self.teacher.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast.detach().to(slow), 1 - self.momentum)
        for kept, new in zip(self.teacher.buffers(), model.buffers(), strict=True):
            kept.copy_(new)

    def forward(self, tensors: Mapping[str, Any]) -> Tensor:
        """``teacher_logits (N, C)``. Raises ValueError if the step passed no input."""
        x = input_of(tensors)
        if self.teacher is None:
            model = tensors.get("model")
            if model is None:
                raise ValueError(
                    "The EMA teacher needs the network that is trained: write "
                    "self.compute_loss(..., input=x, model=self.net)."
                )
            self._begin(model)
        assert self.teacher is not None
        return run(self.teacher, x)
