# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Fabric: the same module in a loop of your own, its scheduled weights told the step.

python examples/recipes/fabric.py
"""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor, nn

from lightning_losses import LossMixin, build_objective

LOSS = {
    "ce": {"_target_": "lightning_losses.losses.CrossEntropy"},
    "z": {
        "_target_": "lightning_losses.losses.LogsumexpPenalty",
        "weight": {"start": 0.0, "end": 0.01, "steps": 50},
    },
}


class Classifier(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(20, 10)
        self.loss = build_objective(LOSS)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)


def main() -> None:
    fabric = L.Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(0, verbose=False)
    plain = Classifier()
    model, optimizer = fabric.setup(plain, torch.optim.AdamW(plain.parameter_groups(), lr=0.1))
    values = []
    for step in range(100):
        x = torch.randn(64, 20)
        plain.loss.set_step(step)  # the Trainer does this; it moves scheduled weights
        total = model.training_step((x, x[:, :10].argmax(1)), step)
        fabric.backward(total)
        optimizer.step()
        optimizer.zero_grad()
        values.append(float(total.detach()))
    record = plain.loss_record  # terms, weights and statistics of the last step
    assert record is not None
    assert abs(float(record.weights["z"]) - 0.01) < 1e-9
    assert values[-1] < 0.5 * values[0]
    terms = {name: round(float(value), 3) for name, value in record.terms.items()}
    print(f"loss {values[0]:.3f} -> {values[-1]:.3f}; the last step's terms {terms}")


if __name__ == "__main__":
    main()
