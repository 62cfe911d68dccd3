# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Time of a Lightning step with the mixin, without and with monitors, against one by hand.

    python benchmarks/step_overhead.py

By hand is `F.cross_entropy` and one `self.log`. The variants take turns within one process, a
short run each, several rounds, in processor seconds on one thread: on a shared machine the wall
clock differs by a tenth from run to run, which is more than what is measured. The best round of
each counts, because others only add. Prints a JSON line a variant and a table of ratios.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import CalibrationMonitor, EntropyMonitor, StepRadiusMonitor

BATCH = 64


class ByHand(L.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.marks: list[float] = []

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_train_batch_start(self, *_: Any) -> None:
        self.marks.append(time.process_time())

    def on_train_end(self) -> None:
        self.marks.append(time.process_time())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class WithMixin(LossMixin, ByHand):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.loss = build_objective("ce")

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)


def mlp() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), (64,)


def cnn() -> tuple[nn.Module, tuple[int, ...]]:
    def block(i: int, o: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

    body = [*block(3, 16, 1), *block(16, 32, 2), *block(32, 32, 1), *block(32, 64, 2)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)), (
        3,
        32,
        32,
    )


def no_monitors() -> list[L.Callback]:
    return []


def monitors() -> list[L.Callback]:
    return [EntropyMonitor(), CalibrationMonitor(), StepRadiusMonitor()]


VARIANTS: dict[str, tuple[type[ByHand], Callable[[], list[L.Callback]]]] = {
    "by hand": (ByHand, no_monitors),
    "mixin, ce": (WithMixin, no_monitors),
    "mixin, ce, three monitors": (WithMixin, monitors),
}


def seconds_per_step(
    variant: str, make: Callable[[], tuple[nn.Module, tuple[int, ...]]], steps: int
) -> float:
    """Mean seconds of a step over ``steps`` after as many as a monitor's cadence for warming up."""
    torch.manual_seed(0)
    module_class, callbacks = VARIANTS[variant]
    net, shape = make()
    data = TensorDataset(torch.randn(BATCH * 8, *shape), torch.randint(10, (BATCH * 8,)))
    module = module_class(net)
    warm = 10
    trainer = L.Trainer(
        max_steps=warm + steps,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks(),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, BATCH))
    return (module.marks[-1] - module.marks[warm]) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    # Twice the slowest monitor's cadence, so that its cost is counted in full.
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, batch {BATCH}")
    for name, make in {"MLP 64-64-10": mlp, "CNN 32 x 32": cnn}.items():
        best: dict[str, float] = {}
        for _ in range(options.rounds):
            for variant in VARIANTS:
                found = seconds_per_step(variant, make, options.steps)
                best[variant] = min(found, best.get(variant, found))
        base = best["by hand"]
        print(f"\n{name:30} {'ms a step':>10} {'ratio':>6}")
        for variant, value in best.items():
            print(f"  {variant:28} {value * 1e3:10.3f} {value / base:6.3f}")
            row = {"net": name, "variant": variant, "ms": value * 1e3, "ratio": value / base}
            print(json.dumps(row))


if __name__ == "__main__":
    main()
