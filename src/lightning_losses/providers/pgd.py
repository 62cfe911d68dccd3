# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""PGD: logits of the worst input in a small ball, for adversarial losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from lightning_losses.softmax import may_ask

Attack = Literal["kl", "ce", "margin"]


class PGD(nn.Module):
    """Provides ``logits_adv``: projected gradient ascent within an L-infinity ball.

    Madry et al., arXiv 1706.06083; as TRADES uses it, with KL to the clean prediction. The step
    passes ``input=x`` and ``model=self.net`` (input -> logits) besides logits and target. Modules
    are in eval mode during the attack, whatever calls them, and back after it; no gradient reaches
    parameters by it; validation works too.

    Args:
        epsilon: radius of the ball, in units of the input.
        step_size: length of one step.
        steps: number of steps.
        noise: standard deviation of the random start.
        attack: ``kl`` ascends KL(p || p_adv), ``ce`` the cross-entropy of the target, ``margin``
            the length of the change of the target's margins, which `smooth_adversarial` bounds.
        low: smallest legal input value, or None.
        high: largest legal input value, or None. Inputs beyond the two are refused on a CPU;
            elsewhere they are where they are, and move within the ball at most.

    Raises:
        ValueError: an unknown attack, negative settings, or a low that is not below high.

    Examples:
        >>> attack = PGD(epsilon=0.1, step_size=0.05, steps=3, noise=0.0, attack="ce")
        >>> x, target = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> model = torch.nn.Identity()  # logits are the input
        >>> attack({"input": x, "model": model, "logits": model(x), "target": target})
        tensor([[0.4000, 0.6000]])
    """

    makes = "logits_adv"
    reads = ("input", "model", "logits", "target")

    def __init__(
        self,
        epsilon: float = 0.031,
        step_size: float = 0.003,
        steps: int = 10,
        noise: float = 0.001,
        attack: Attack = "kl",
        low: float | None = 0.0,
        high: float | None = 1.0,
    ) -> None:
        super().__init__()
        if attack not in get_args(Attack):
            raise ValueError(
                f"attack must be one of {', '.join(get_args(Attack))}, got {attack!r}."
            )
        if not (epsilon >= 0 and step_size >= 0 and steps >= 0 and noise >= 0):
            raise ValueError(
                "epsilon, step_size, steps and noise must be at least 0, got "
                f"{epsilon}, {step_size}, {steps} and {noise}."
            )
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}.")
        self.epsilon, self.step_size, self.steps, self.noise = epsilon, step_size, steps, noise
        self.attack, self.low, self.high = attack, low, high

    def forward(self, tensors: Mapping[str, Any]) -> Tensor:
        """``logits_adv (N, C)`` with graph to the parameters.

        Raises:
            ValueError: a tensor is missing; on a CPU, an input beyond ``low`` and ``high``.
        """
        needs_target = self.attack != "kl"
        for name in ("input", "model", "logits") + (("target",) if needs_target else ()):
            if tensors.get(name) is None:
                raise ValueError(
                    f"The pgd provider needs {name}: write self.compute_loss(..., input=x, "
                    "model=self.net), where model maps input to logits."
                )
        model: Callable[[Tensor], Tensor] = tensors["model"]
        # Validation may run in inference mode, whose tensors can never require gradients.
        with torch.inference_mode(False), torch.enable_grad(), _evaluating(model):
            x = tensors["input"].detach().clone()
            lowest, highest = self._bounds(x)
            clean = tensors["logits"].detach().clone()
            target = tensors["target"].clone() if needs_target else None
            x_adv = x + self.noise * torch.randn_like(x)
            for _ in range(self.steps):
                x_adv = self._step(model, x_adv, clean, target)
                x_adv = torch.minimum(torch.maximum(x_adv, lowest), highest)
            x_adv = torch.minimum(torch.maximum(x_adv.detach(), lowest), highest)
        logits: Tensor = model(x_adv)
        return logits.reshape(-1, logits.shape[-1])

    def _bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Ends of where each entry may move to: the ball, and what is legal."""
        lowest, highest = x - self.epsilon, x + self.epsilon
        if x.numel() and may_ask(x):
            found = [float(end) for end in x.aminmax()]
            below = self.low is not None and found[0] < self.low
            if below or (self.high is not None and found[1] > self.high):
                raise ValueError(
                    f"The pgd provider takes inputs from {self.low} to {self.high}, found "
                    f"{found[0]:.4g} to {found[1]:.4g}: for normalised inputs write low: null and "
                    "high: null (or their own bounds), and epsilon in their unit."
                )
        if self.low is not None:
            lowest = torch.maximum(lowest, x.clamp(max=self.low))
        if self.high is not None:
            highest = torch.minimum(highest, x.clamp(min=self.high))
        return lowest, highest

    def _step(
        self,
        model: Callable[[Tensor], Tensor],
        x_adv: Tensor,
        clean: Tensor,
        target: Tensor | None,
    ) -> Tensor:
        x_adv = x_adv.detach().requires_grad_()
        z = model(x_adv).reshape(clean.shape).float()
        if target is None:
            log_p = F.log_softmax(clean.float(), dim=1)
            loss = F.kl_div(F.log_softmax(z, dim=1), log_p, reduction="sum", log_target=True)
        elif self.attack == "ce":
            loss = F.cross_entropy(z, target, reduction="sum")
        else:
            moved = z - clean.float()
            moved = moved.gather(1, target[:, None]) - moved
            loss = torch.linalg.vector_norm(moved, dim=1).sum()
        (gradient,) = torch.autograd.grad(loss, x_adv)
        return x_adv.detach() + self.step_size * gradient.sign()


@contextmanager
def _evaluating(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Eval mode for the modules behind ``model``, each as it was before, after.

    Those of a module or of its method are known; those that a function calls show when they are
    called, for nothing says beforehand what is in a closure.
    """
    before: dict[nn.Module, bool] = {}

    def evaluate(module: nn.Module, *_: Any) -> None:
        before.setdefault(module, module.training)
        module.training = False

    owner = model if isinstance(model, nn.Module) else getattr(model, "__self__", None)
    for module in owner.modules() if isinstance(owner, nn.Module) else ():
        evaluate(module)
    hook = register_module_forward_pre_hook(evaluate)
    try:
        yield
    finally:
        hook.remove()
        for module, training in before.items():
            module.training = training
