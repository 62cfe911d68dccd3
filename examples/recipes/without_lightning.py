# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Without Lightning: an objective is an ordinary criterion that returns a record.

python examples/recipes/without_lightning.py
"""

from __future__ import annotations

import torch
from torch import nn

from lightning_losses import build_objective


def main() -> None:
    torch.manual_seed(0)
    body, head = nn.Linear(20, 16), nn.Linear(16, 1000)
    objective = build_objective(["ce", "entropy_bonus", "logsumexp_penalty"])
    # Losses may own parameters, such as class centres: give them to the optimizer too.
    parameters = [*body.parameters(), *head.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    first = None
    for step in range(100):
        x = torch.randn(64, 20)
        hidden = body(x).relu()
        objective.set_step(step)  # only where a weight has a schedule
        # Hidden states and the head instead of logits: (64, 1000) is never held.
        record = objective(
            hidden=hidden, head_weight=head.weight, head_bias=head.bias, target=x[:, :10].argmax(1)
        )
        record.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        first = first or float(record.total.detach())
    last = float(record.total.detach())
    assert last < 0.5 * first
    print(f"loss {first:.3f} -> {last:.3f}")
    for name, value in record.terms.items():
        print(f"  {name:18} {float(value):8.4f} * {float(record.weights[name]):g}")


if __name__ == "__main__":
    main()
