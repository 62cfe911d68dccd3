# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive learning on digits: two shifted, noisy views of an image belong together.

Labels are not read under `nt_xent`; under `supcon` images of one digit belong together as well.
Judged by the digit of the nearest neighbour among such views, before and after.

python examples/contrastive.py
python examples/contrastive.py --loss supcon
"""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
import torch
from data import Digits
from models import DigitsNet
from small_run import arguments, train
from torch import Tensor, nn

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import RepresentationEntropyMonitor

Batch = tuple[Tensor, Tensor]


class Contrastive(LossMixin, L.LightningModule):
    """Features for later use, and a small projection of them that the loss compares."""

    def __init__(self, loss: str = "nt_xent", lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = DigitsNet()
        self.net.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))  # type: ignore[assignment]
        self.loss, self.lr = build_objective(loss), lr
        self.judge = build_objective("supcon")  # of single images, whose features monitors read

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        views = torch.stack([self.net(view(x)), self.net(view(x))], 1)  # (B, 2, D)
        return self.compute_loss(features=views, target=y)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        x, y = batch
        self.compute_loss(features=self.net(view(x)), target=y, objective=self.judge)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


def view(x: Tensor) -> Tensor:
    """Images moved by up to two pixels, with noise."""
    moves = torch.randint(-2, 3, (len(x), 2))
    moved = [one.roll((int(a), int(b)), (1, 2)) for one, (a, b) in zip(x, moves, strict=True)]
    return torch.stack(moved) + 0.2 * torch.randn_like(x)


@torch.no_grad()
def neighbours(model: Contrastive, data: Digits) -> float:
    """Share of test images whose nearest training image, both moved, shows the same digit."""
    model.eval()
    (x, y), (tx, ty) = (data.splits[name].tensors for name in ("train", "test"))
    train, test = (nn.functional.normalize(model.net.features(view(part))) for part in (x, tx))
    return float((y[(test @ train.T).argmax(1)] == ty).float().mean())


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    parser = arguments("contrastive", 400, __doc__)
    parser.add_argument("--loss", default="nt_xent", choices=["nt_xent", "supcon"])
    args = parser.parse_args(words)
    L.seed_everything(args.seed, verbose=False)
    data = Digits(batch_size=128)
    data.setup()
    model = Contrastive(args.loss)
    before = neighbours(model, data)
    monitors = [RepresentationEntropyMonitor()]
    loaders = data.train_dataloader(), data.val_dataloader()
    logged = train(model, *loaders, monitors, args.steps, args.out)
    logged |= {"before": before, "after": neighbours(model, data)}
    print(f"nearest neighbour of the same digit: {before:.3f} before, {logged['after']:.3f} after")
    return logged


if __name__ == "__main__":
    main()
