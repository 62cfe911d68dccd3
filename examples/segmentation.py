# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Segmentation: focal of pixels and Dice of maps in one objective, and are the pixels calibrated?

Images are noise with discs and squares in it, drawn as they are asked for; the three classes are
background, disc and square. A temperature is fitted to the pixels after every validation.

python examples/segmentation.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning as L
import torch
from small_run import arguments, train
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import (
    CalibrationMonitor,
    EntropyMonitor,
    PostHocCalibration,
    TermBalanceMonitor,
)

Batch = tuple[Tensor, Tensor]
SIZE, IMAGES, CLASSES = 32, 8, 3


class Segmenter(LossMixin, L.LightningModule):
    """Convolutions, the middle ones at half the size; classes second, as convolutions have them."""

    def __init__(self, loss: Sequence[str] = ("focal", "dice_ce"), lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()

        def block(ins: int, outs: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU()
            )

        self.first, self.down = block(1, 12), nn.MaxPool2d(2)
        self.middle = nn.Sequential(block(12, 24), block(24, 24), nn.Upsample(scale_factor=2))
        self.last = nn.Sequential(block(36, 12), nn.Conv2d(12, CLASSES, 1))
        self.loss, self.lr = build_objective(list(loss)), lr

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image)
        logits: Tensor = self.last(torch.cat([first, self.middle(self.down(first))], 1))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        image, label = batch
        z = self(image)
        if not self.training:
            self.log("val/iou", overlap(z.argmax(1), label), batch_size=len(label))
        # Losses of pixels read rows of logits, losses of maps read maps.
        return self.compute_loss(
            logits=z.movedim(1, -1), target=label, logit_map=z, label_map=label
        )

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


def overlap(predicted: Tensor, label: Tensor) -> Tensor:
    """Mean intersection over union of discs and squares."""
    shares = [
        ((predicted == c) & (label == c)).sum() / ((predicted == c) | (label == c)).sum().clamp(1)
        for c in range(1, CLASSES)
    ]
    return torch.stack(shares).mean()


class Shapes(IterableDataset[Batch]):
    """Images (IMAGES, 1, SIZE, SIZE) and label maps (IMAGES, SIZE, SIZE), from a seed."""

    def __init__(self, seed: int, batches: int) -> None:
        self.seed, self.batches = seed, batches

    def __iter__(self) -> Iterator[Batch]:
        g = torch.Generator().manual_seed(self.seed)
        across, down = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy")
        for _ in range(self.batches):
            label = torch.zeros(IMAGES, SIZE, SIZE, dtype=torch.long)
            for image in range(IMAGES):
                for shape in (1, 2):
                    x, y = (torch.randint(6, SIZE - 6, (2,), generator=g)).tolist()
                    size = int(torch.randint(3, 6, (), generator=g))
                    disc = (across - x) ** 2 + (down - y) ** 2 <= size**2
                    square = ((across - x).abs() <= size) & ((down - y).abs() <= size)
                    label[image][disc if shape == 1 else square] = shape
            noise = torch.randn(label.shape, generator=g)
            yield ((label > 0) + 0.7 * noise)[:, None], label


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    args = arguments("segmentation", 400, __doc__).parse_args(words)
    L.seed_everything(args.seed, verbose=False)
    model = Segmenter()
    loaders = [
        DataLoader(Shapes(seed, batches), batch_size=None)
        for seed, batches in ((args.seed, args.steps), (args.seed + 1, 8))
    ]
    monitors = [EntropyMonitor(), TermBalanceMonitor(), CalibrationMonitor(), PostHocCalibration()]
    logged = train(model, *loaders, monitors, args.steps, args.out)
    print(f"intersection over union {logged['val/iou']:.2f}")
    print(f"calibration error of a pixel {logged['calibration/val/ece']:.3f}", end=", ")
    print(f"{logged['post_hoc/val/ece_after']:.3f} with a temperature")
    return logged


if __name__ == "__main__":
    main()
