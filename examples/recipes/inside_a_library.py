# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""In a LightningModule of another library, which has a loss of its own under `self.loss`.

Two ways. Where you can subclass it, override its step and hold the objective under another name:
monitors, schedules and sums over an epoch are as everywhere. Where it takes any criterion, give it
one that asks an objective: numbers are right, and nothing else is.

python examples/recipes/inside_a_library.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, Objective, build_objective
from lightning_losses.callbacks import EntropyMonitor

Batch = tuple[Tensor, Tensor]


class TheirModule(L.LightningModule):
    """As pytorch-forecasting, chemprop and others have it: a criterion, called in the step."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.loss = nn.Linear(20, 10), loss

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        total = self.loss(self(batch[0]), batch[1])
        self.log("train_loss", total)
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Ours(LossMixin, TheirModule):
    """The first way."""

    objective_name = "objective"  # theirs stays under self.loss

    def __init__(self) -> None:
        super().__init__(nn.CrossEntropyLoss())
        self.objective = build_objective(["ce", "logsumexp_penalty"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.compute_loss(logits=self(batch[0]), target=batch[1])


class Criterion(nn.Module):
    """The second way."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.objective(logits=logits, target=target).total


def main() -> None:
    x = torch.randn(400, 20, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x[:, :10].argmax(1)), 50)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    first = L.Trainer(max_epochs=3, callbacks=[EntropyMonitor(every_n_steps=1)], **quiet)
    first.fit(Ours(), loader)
    second = L.Trainer(max_epochs=3, **quiet)
    second.fit(TheirModule(Criterion(build_objective(["ce", "logsumexp_penalty"]))), loader)
    logged = first.callback_metrics
    one, other = float(logged["train/loss"]), float(second.callback_metrics["train_loss"])
    print(f"loss {one:.4f} and {other:.4f}; entropy {float(logged['entropy/mean']):.2f} nats")
    assert abs(one - other) < 1e-5
    assert "entropy/mean" in logged


if __name__ == "__main__":
    main()
