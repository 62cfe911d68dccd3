# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""LoRA on the head: hand over the merged weight, and the adapter trains as it would in the logits.

Adapters of layers within the network need nothing. A head with an adapter is more than its weight:
`head_weight=base.weight + scaling * B @ A`. The merged weight is as large as the weight, once; the
logits, which are much larger, are still not held.

python examples/recipes/lora.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses import build_objective

WIDTH, CLASSES, RANK = 16, 50, 4


class Adapted(nn.Module):
    """A frozen linear head and what is learned on top of it (Hu et al., arXiv 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float = 8.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) / rank)
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scaling = alpha / rank

    @property
    def weight(self) -> Tensor:
        return self.base.weight + self.scaling * self.b @ self.a

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.base(hidden)
        return logits + self.scaling * (hidden @ self.a.T) @ self.b.T


def main() -> None:
    torch.manual_seed(0)
    head = Adapted(nn.Linear(WIDTH, CLASSES, bias=False), RANK)
    hidden, target = torch.randn(200, WIDTH), torch.randint(CLASSES, (200,))
    objective = build_objective("ce")
    optimizer = torch.optim.AdamW([head.a, head.b], lr=0.05)
    losses = []
    for _ in range(40):
        total = objective(hidden=hidden, head_weight=head.weight, target=target).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    merged = torch.autograd.grad(
        objective(hidden=hidden, head_weight=head.weight, target=target).total, [head.a, head.b]
    )
    inline = torch.autograd.grad(
        objective(logits=head(hidden), target=target).total, [head.a, head.b]
    )
    off = max(float((x - y).abs().max()) for x, y in zip(merged, inline, strict=True))
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f}; gradients differ by {off:.1e} from logits'")
    assert off < 1e-6
    assert losses[-1] < losses[0] - 0.3


if __name__ == "__main__":
    main()
