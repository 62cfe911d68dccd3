# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""torch.compile: of the network and the objective, each one graph, or of the module as a whole.

`self.loss.compile()` makes one graph of all terms, their weights and the softmax statistics. A
weight that a schedule moves is a tensor, so the graph stays; batches of another size compile once
more, with the size as a variable. A monitor that is due asks for more statistics than the terms do:
that is another graph, the same one for all monitors that ask for the same. torch keeps eight for a
function and then goes on without (or ends, under `fullgraph=True`), so let cadences divide each
other, as the defaults do.

`trainer.fit(torch.compile(module))` works as well. Its step is broken in two places, before and
after the loss, where steps are counted and values are logged, which no graph can hold. What would
break it elsewhere: `.item()` or `print` of a tensor in a loss of your own.

torch 2.13 compiles nothing, without a word, where `.compile()` is called on one of its own modules,
such as `nn.Sequential`; a class of your own around it, as here, is compiled.

python examples/recipes/compile.py
"""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import LogitHealthMonitor

#: Leave it out for "inductor", which makes the code fast; "eager" only finds the graphs, at once.
BACKEND: dict[str, Any] = {"backend": "eager"}
LOSS = {
    "ce": {"_target_": "lightning_losses.losses.CrossEntropy"},
    "z": {
        "_target_": "lightning_losses.losses.LogsumexpPenalty",
        "weight": {"start": 0.0, "end": 0.01, "steps": 4},
    },
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(x).relu())
        return logits


class Classifier(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Net()
        self.loss = build_objective(LOSS)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameter_groups(), lr=0.1)


def fit(module: Any) -> tuple[int, int]:
    """Train for six steps; how many graphs were compiled, and where they were broken."""
    torch._dynamo.reset()
    counters.clear()
    x = torch.randn(384, 20, generator=torch.Generator().manual_seed(0))
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[
            LogitHealthMonitor(every_n_steps=1),
            LogitHealthMonitor(every_n_steps=2, name="again"),  # asks for no more than the other
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(x, x[:, :10].argmax(1)), batch_size=64))
    return counters["stats"]["unique_graphs"], len(counters["graph_break"])


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    plain, parts, whole = Classifier(), Classifier(), Classifier()
    fit(plain)

    parts.net.compile(**BACKEND)
    parts.loss.compile(fullgraph=True, **BACKEND)
    assert fit(parts) == (2, 0)  # one graph each, and none broken

    graphs, breaks = fit(torch.compile(whole, **BACKEND))
    assert breaks == 2
    for module in (parts, whole):
        for one, other in zip(plain.parameters(), module.parameters(), strict=True):
            torch.testing.assert_close(one, other)
    print(f"parts: 2 graphs, no break; the whole module: {graphs} graphs, {breaks} breaks")


if __name__ == "__main__":
    main()
