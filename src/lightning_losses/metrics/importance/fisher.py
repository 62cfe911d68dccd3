# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`fisher_diagonal`: how much each parameter's value matters to what a model says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["true", "sampled", "empirical", "predicted"]
KINDS = ("true", "sampled", "empirical", "predicted")

#: A forward pass of one sample: log-probabilities ``(R, C)`` of its rows, with graph, and their
#: classes ``(R,)``, which only ``empirical`` reads.
Sample = tuple[Tensor, "Tensor | None"]


def fisher_diagonal(
    parameters: Mapping[str, Tensor], samples: Iterable[Sample], kind: Kind = "true"
) -> tuple[dict[str, Tensor], int]:
    """Sum over samples of squared gradients of the sample's log-likelihood, and their number.

    Of each *sample* alone: squaring the gradient of a batch's mean gives about 1 / B of it. Divide
    the sum by the number; on several ranks divide the sum of sums by the sum of numbers.
    Kunstner et al., arXiv 1905.12558, say what the empirical one is not.

    Args:
        parameters: tensors of any shape by name, which the sums have too; those that a sample does
            not reach get 0 of it.
        samples: forward passes one after another, such as a generator makes; in evaluation mode.
        kind: whose labels. ``true`` the expectation over the model's own, by a backward pass a
            class, for samples of one row; ``sampled`` one drawn from it; ``empirical`` the data's;
            ``predicted`` the most likely one. A converged model has small gradients of the labels
            it knows, so the empirical Fisher is smaller than the true one.

    Raises:
        ValueError: another kind, ``true`` of a sample of several rows, ``empirical`` without
            classes.

    Examples:
        >>> logits = torch.zeros(2, requires_grad=True)
        >>> samples = ((logits[None].log_softmax(1), None) for _ in range(10))
        >>> total, count = fisher_diagonal({"logits": logits}, samples)
        >>> total["logits"] / count  # p (1 - p)
        tensor([0.2500, 0.2500])
    """
    check_kind(kind)
    total = {
        name: torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
        for name, p in parameters.items()
    }
    count = 0

    def add(value: Tensor, weight: Tensor | float, last: bool) -> None:
        grads = torch.autograd.grad(
            value, list(parameters.values()), retain_graph=not last, allow_unused=True
        )
        for name, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                total[name] += weight * grad.to(total[name].dtype).square()

    for log_p, target in samples:
        count += 1
        if kind == "true":
            if len(log_p) != 1:
                raise ValueError(
                    f"kind='true' takes the expectation over the classes of one row, and a sample "
                    f"has {len(log_p)}: write kind='sampled'."
                )
            classes = log_p.shape[1]
            for label in range(classes):
                weight = log_p[0, label].detach().exp()
                add(log_p[0, label], weight, label == classes - 1)
            continue
        add(log_p.gather(1, _labels(log_p, target, kind)[:, None]).sum(), 1.0, True)
    return total, count


def check_kind(kind: str) -> None:
    """Raises ValueError for a kind that there is not."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; write one of {', '.join(KINDS)}.")


def _labels(log_p: Tensor, target: Tensor | None, kind: Kind) -> Tensor:
    choose: Callable[[], Tensor] = {
        "sampled": lambda: torch.multinomial(log_p.detach().exp(), 1)[:, 0],
        "predicted": lambda: log_p.argmax(1),
    }.get(kind, lambda: _given(target))
    return choose()


def _given(target: Tensor | None) -> Tensor:
    if target is None:
        raise ValueError("kind='empirical' needs the classes of the samples: pass target.")
    return target
