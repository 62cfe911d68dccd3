# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""PGD: logits of the worst input in a small ball, for adversarial losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PGD(nn.Module):
    """Provides ``logits_adv``: projected gradient ascent within an L-infinity ball.

    Madry et al., arXiv 1706.06083; as TRADES uses it, with KL to the clean prediction. The step
    passes ``input=x`` and ``model=self.net`` (input -> logits) besides logits and target. Modules
    are put in eval mode for the attack and back; no gradient reaches parameters by it; validation
    works too.

    Args:
        epsilon: radius of the ball, in units of the input.
        step_size: length of one step.
        steps: number of steps.
        noise: standard deviation of the random start.
        attack: ``kl`` ascends KL(p || p_adv), ``ce`` the cross-entropy of the target.
        low: smallest legal input value, or None.
        high: largest legal input value, or None.
    """

    def __init__(
        self,
        epsilon: float = 0.031,
        step_size: float = 0.003,
        steps: int = 10,
        noise: float = 0.001,
        attack: Literal["kl", "ce"] = "kl",
        low: float | None = 0.0,
        high: float | None = 1.0,
    ) -> None:
        super().__init__()
        if attack not in ("kl", "ce"):
            raise ValueError(f"attack must be 'kl' or 'ce', got {attack!r}.")
        self.epsilon, self.step_size, self.steps, self.noise = epsilon, step_size, steps, noise
        self.attack, self.low, self.high = attack, low, high

    def forward(self, tensors: Mapping[str, Any]) -> Tensor:
        """``logits_adv (N, C)`` with graph to the parameters; ValueError if a tensor is missing."""
        for name in ("input", "model", "logits") + (("target",) if self.attack == "ce" else ()):
            if tensors.get(name) is None:
                raise ValueError(
                    f"The pgd provider needs {name}: write self.compute_loss(..., input=x, "
                    "model=self.net), where model maps input to logits."
                )
        model: Callable[[Tensor], Tensor] = tensors["model"]
        # Validation may run in inference mode, whose tensors can never require gradients.
        with torch.inference_mode(False), torch.enable_grad(), _evaluating(model):
            x = tensors["input"].detach().clone()
            clean = tensors["logits"].detach().clone()
            target = tensors["target"].clone() if self.attack == "ce" else None
            x_adv = x + self.noise * torch.randn_like(x)
            for _ in range(self.steps):
                x_adv = self._step(model, x, x_adv, clean, target)
        logits: Tensor = model(x_adv)
        return logits.reshape(-1, logits.shape[-1])

    def _step(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        x_adv: Tensor,
        clean: Tensor,
        target: Tensor | None,
    ) -> Tensor:
        x_adv = x_adv.detach().requires_grad_()
        z = model(x_adv).reshape(clean.shape).float()
        if target is None:
            log_p = F.log_softmax(clean.float(), dim=1)
            loss = F.kl_div(F.log_softmax(z, dim=1), log_p, reduction="sum", log_target=True)
        else:
            loss = F.cross_entropy(z, target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        moved = x_adv.detach() + self.step_size * gradient.sign()
        return torch.clamp(
            torch.minimum(torch.maximum(moved, x - self.epsilon), x + self.epsilon),
            self.low,
            self.high,
        )


@contextmanager
def _evaluating(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Eval mode for the module behind ``model``, module by module as it was before, after."""
    owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training
