# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What `linear_ce.py` compares: losses from hidden states and a head, ours, torch's and peers'."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses import Objective, Term
from lightning_losses.kernels.eager.chunked import chunk_logits, chunk_rows, chunks
from lightning_losses.kernels.eager.gradients import Gradients
from lightning_losses.kernels.problem import Problem
from lightning_losses.losses import CrossEntropy, EntropyBonus, Focal, LogsumexpPenalty

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
SMOOTHING, FOCAL, PENALTY, BONUS, CAP = 0.1, 0.5, 1e-4, 0.01, 30.0
MONITORS = ("entropy", "confidence", "prediction")
FLOOR = "the three products alone"


def naive(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head), target)


class ProductsAlone(torch.autograd.Function):
    """The three matrix products of a dense loss, in our chunks, and nothing between them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor) -> Tensor:
        problem = Problem(hidden=hidden, head_weight=head)
        into = Gradients(problem, (False, True, True, False))
        z = None
        for chunk in chunks(problem, chunk_rows(problem)):
            z = chunk_logits(chunk, z)
            into.add(chunk, z)
        ctx.gradients = into.result()[1:3]
        return hidden.new_zeros(())

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return ctx.gradients


def products_alone(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """The floor: no loss, and gradients that mean nothing."""
    return ProductsAlone.apply(hidden, head)


def torch_chunked(**options: int) -> Loss:
    def loss(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        chunking = nn.LinearCrossEntropyOptions(**options)
        return F.linear_cross_entropy(hidden, head, target, options=chunking)

    return loss


def composed_naive(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """The five-part objective as one would write it by hand on logits, sharing what can be."""
    valid = target >= 0
    z = F.linear(hidden, head)
    log_p = F.log_softmax(z.float(), dim=1)
    p = log_p.exp()
    log_py = log_p.gather(1, target.clamp(min=0)[:, None]).squeeze(1)
    ce = (1 - SMOOTHING) * -log_py - SMOOTHING * log_p.mean(1)
    focal = -((1 - log_py.exp()) ** 2) * log_py
    entropy = -(p * log_p).sum(1)
    penalty = torch.logsumexp(z.float(), dim=1).square()
    rows = ce + FOCAL * focal + PENALTY * penalty - BONUS * entropy
    return torch.where(valid, rows, 0).sum() / valid.sum().clamp(min=1)


def ours(
    terms: dict[str, Term | nn.Module],
    kernel: str,
    watch: tuple[str, ...] = (),
    max_valid: int | None = None,
) -> Loss:
    objective = Objective(terms, kernel=kernel)
    objective.watch("monitors", *watch)

    def loss(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        named = {"hidden": hidden, "head_weight": head, "target": target}
        return objective(**named, max_valid=max_valid).total

    return loss


def composed() -> dict[str, Term | nn.Module]:
    """The five-part objective as terms."""
    return {
        "ce": CrossEntropy(label_smoothing=SMOOTHING),
        "focal": Term(Focal(), FOCAL),
        "logsumexp_penalty": Term(LogsumexpPenalty(), PENALTY),
        "entropy_bonus": Term(EntropyBonus(), BONUS),
    }


def options_naive(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """Options that leave the objective one term: bias, soft-cap, smoothing, z-loss."""
    z = CAP * torch.tanh((F.linear(hidden, head) + bias_of(head)) / CAP)
    ce = F.cross_entropy(z, target, label_smoothing=SMOOTHING)
    return ce + PENALTY * torch.logsumexp(z, dim=1).square().mean()


def bias_of(head: Tensor) -> Tensor:
    """Some bias: what it is does not matter, that it is added does."""
    return head.detach()[:, 0].contiguous()


def with_options(kernel: str) -> Loss:
    objective = Objective(
        {
            "ce": CrossEntropy(label_smoothing=SMOOTHING),
            "logsumexp_penalty": Term(LogsumexpPenalty(), PENALTY),
        },
        kernel=kernel,
    )

    def loss(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        named = {"hidden": hidden, "head_weight": head, "head_bias": bias_of(head)}
        return objective(**named, target=target, softcap=CAP).total

    return loss


def methods() -> dict[str, dict[str, Loss]]:
    """Groups of methods of equal result; the first of each is what the others are compared to."""
    ce: dict[str, Term | nn.Module] = {"ce": CrossEntropy()}
    plain: dict[str, Loss] = {"F.cross_entropy(F.linear)": naive, **by_torch()}
    plain["ours"] = ours(ce, "auto")
    plain["ours, monitors on"] = ours(ce, "auto", MONITORS)
    plain[FLOOR] = products_alone
    return {
        "cross-entropy": plain,
        "ce + focal + logsumexp_penalty + entropy_bonus": {
            "by hand on logits": composed_naive,
            "ours": ours(composed(), "auto"),
            "ours, monitors on": ours(composed(), "auto", MONITORS),
        },
        "bias + soft-cap + smoothing + z-loss": {
            "by hand on logits": options_naive,
            "ours": with_options("auto"),
        },
    }


def by_torch() -> dict[str, Loss]:
    """What torch itself offers beside the plain product."""
    if not hasattr(F, "linear_cross_entropy"):
        return {}
    return {
        "F.linear_cross_entropy, defaults": torch_chunked(),
        "F.linear_cross_entropy, 512 rows": torch_chunked(batch_chunk_size=512),
    }


def cuda_methods(counting: int) -> tuple[dict[str, dict[str, Loss]], dict[str, Loss]]:
    """Groups for a GPU, with every mode of ours and the peers that are installed; and, a group,
    the method that is right in float64. `counting`: how many rows have a target.
    """
    ce: dict[str, Term | nn.Module] = {"ce": CrossEntropy()}
    plain: dict[str, Loss] = {"F.cross_entropy(F.linear)": naive, **by_torch(), **peers()}
    if hasattr(F, "linear_cross_entropy"):
        plain["F.linear_cross_entropy, 1024 rows"] = torch_chunked(batch_chunk_size=1024)
    five: dict[str, Loss] = {"by hand on logits": composed_naive}
    for kernel in ("triton", "triton_keep", "triton_lean", "chunked"):
        plain[f"ours, {kernel}"] = ours(ce, kernel)
        five[f"ours, {kernel}"] = ours(composed(), kernel, MONITORS)
    for kernel in ("triton", "triton_lean"):
        plain[f"ours, {kernel}, max_valid"] = ours(ce, kernel, (), counting)
        five[f"ours, {kernel}, max_valid"] = ours(composed(), kernel, MONITORS, counting)
    name = "ce + focal + logsumexp_penalty + entropy_bonus, monitors on"
    groups = {"cross-entropy": plain, name: five}
    return groups, {"cross-entropy": ours(ce, "chunked"), name: ours(composed(), "chunked")}


def peers() -> dict[str, Loss]:
    """Liger-Kernel and Apple's cut cross-entropy, where they can be imported."""
    found: dict[str, Loss] = {}
    with contextlib.suppress(ImportError):
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        found["Liger fused linear CE"] = lambda h, w, t: liger_fused_linear_cross_entropy(h, w, t)
    with contextlib.suppress(ImportError):
        from cut_cross_entropy import linear_cross_entropy

        found["cut cross-entropy"] = lambda h, w, t: linear_cross_entropy(h, w, t)
    return found


def step(loss: Loss, hidden: Tensor, head: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward: the loss, and the gradient of the head."""
    hidden, head = hidden.detach().requires_grad_(), head.detach().requires_grad_()
    total = loss(hidden, head, target)
    total.backward()
    assert head.grad is not None
    return total.detach(), head.grad
