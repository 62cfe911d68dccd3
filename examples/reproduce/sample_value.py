# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do scores of training samples find wrong labels?

python examples/reproduce/sample_value.py

10 % of the training labels are moved to another class. `SampleValueMonitor` follows every sample
through its presentations; the hundred most suspect ones by each score are looked up: how many have
a wrong label? By chance one in ten has. The baseline that anybody has without a history: the
hundred of largest loss when training ends.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import lightning.pytorch as L
import torch
from label_noise import wrong_labels
from study import Claim, Digits, Options, Scores, digits, loss_config, mlp, options, write
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import SampleValueMonitor

NOISE, FIRST = 0.1, 100
PRECISION, EARLY = "wrong labels in the first 100", "the same, after a tenth of the epochs"
LOSS = "loss at the end"
PAPERS = {"aum": "2001.10528", "el2n": "2107.07075", "forgotten": "1812.05159"}


class Watched(LossMixin, L.LightningModule):
    """A net that tells which samples it sees."""

    def __init__(self, net: nn.Module, lr: float) -> None:
        super().__init__()
        self.net, self.lr, self.loss = net, lr, build_objective(loss_config("ce"))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        x, y, index = batch
        return self.compute_loss(logits=self.net(x), target=y, sample_index=index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), lr=self.lr)


class Precision(L.Callback):
    """Of the first hundred by each score, the share of wrong labels, after every epoch."""

    def __init__(self, data: Digits, noisy: Tensor, seed: int, monitor: SampleValueMonitor) -> None:
        self.data, self.noisy, self.seed, self.monitor = data, noisy, seed, monitor
        self.curves: dict[str, list[float]] = {name: [] for name in (*PAPERS, LOSS)}

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        table = self.monitor.history.table()
        # A sample that was never right was forgotten at each of its presentations.
        forgotten = torch.where(table["learned"] > 0, table["forgotten"], table["presentations"])
        assert isinstance(pl_module, Watched)
        loss = cross_entropy(pl_module.net(self.data.x), self.noisy, reduction="none")
        scores = {"aum": -table["aum"], "el2n": table["el2n"], "forgotten": forgotten, LOSS: loss}
        # Counts tie: the order of equals is drawn.
        # Another seed than that of the wrong labels, whose order would be the answer.
        order = torch.Generator().manual_seed(self.seed + 10_000)
        draw = torch.randperm(len(loss), generator=order)
        wrong = self.noisy != self.data.y
        for name, score in scores.items():
            first = draw[score[draw].argsort(descending=True, stable=True)[:FIRST]]
            self.curves[name].append(float(wrong[first].double().mean()))


def run(data: Digits, seed: int, ran: Options) -> dict[str, list[float]]:
    """Precision of each score after every epoch."""
    noisy = wrong_labels(data.y, NOISE, seed)
    monitor = SampleValueMonitor()
    precision = Precision(data, noisy, seed, monitor)
    rows = TensorDataset(data.x, noisy, torch.arange(len(noisy)))
    order = torch.Generator().manual_seed(seed)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers and log folders
        trainer = L.Trainer(
            max_epochs=ran.epochs,
            accelerator="cpu",
            callbacks=[monitor, precision],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches = DataLoader(rows, 128, shuffle=True, generator=order)
        trainer.fit(Watched(mlp(64, 128, 128, 10, seed=seed), ran.lr), batches)
    return precision.curves


def main(argv: Sequence[str] | None = None) -> None:
    from report import lines

    ran = options("sample_value", seeds=4, epochs=30, argv=argv)
    data = digits()
    scores: Scores = {name: {EARLY: [], PRECISION: []} for name in (*PAPERS, LOSS)}
    curves = []
    for seed in range(ran.seeds):
        for name, curve in run(data, seed, ran).items():
            scores[name][EARLY].append(curve[max(ran.epochs // 10, 1) - 1])
            scores[name][PRECISION].append(curve[-1])
            curves += [
                {"method": name, "epoch": epoch, PRECISION: value}
                for epoch, value in enumerate(curve, start=1)
            ]
    claimed = []
    for name, paper in PAPERS.items():
        claimed += [
            Claim(f"{name} ({paper}) finds more than chance", name, NOISE, PRECISION),
            Claim(f"{name} finds more than the loss at the end", name, LOSS, PRECISION),
        ]
    claimed.append(
        Claim("el2n is of the first epochs", "el2n", "el2n", EARLY, baseline_column=PRECISION)
    )
    claimed.append(Claim("aum is of more than those", "aum", "aum", PRECISION, 1, 0.0, EARLY))
    title = {
        "text": "10 % wrong labels: how many are among the 100 most suspect",
        "subtitle": f"digits, mean of {ran.seeds} seeds; chance is 0.1",
    }
    chart = lines(curves, "epoch", PRECISION, title, low=0.0)
    write("sample_value", scores, claimed, chart, ran)


if __name__ == "__main__":
    main()
