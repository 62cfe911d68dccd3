# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every key of conf/loss, as a sweep composes it, trains a network on digits for a few steps."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import pytest
import torch
from factory import DIM, LOSSES, MULTI_HOT, ONE_SCORE, ORDINAL, PARTLY_LABELLED, REAL_TARGET, inputs
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, Objective, build_objective

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CLASSES, STEPS, BATCH, WIDTH = 10, 4, 30, 16

Batch = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> DataLoader[Any]:
    """Images ``(B, 64)`` in [0, 1], labels, and the index of each sample."""
    x, y = load_digits(return_X_y=True)
    n = STEPS * BATCH
    images, labels = torch.tensor(x[:n] / 16, dtype=torch.float32), torch.tensor(y[:n])
    return DataLoader(TensorDataset(images, labels, torch.arange(n)), batch_size=BATCH)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Composes a user's primary config with the overrides of one job of a sweep.

    The smallest that holds a loss: composing is what most of this file's time goes to.
    """
    folder = tmp_path_factory.mktemp("conf")
    (folder / "train.yaml").write_text("defaults:\n  - loss: [ce]\n  - kernel: auto\n  - _self_\n")
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        yield lambda *overrides: hydra.compose("train", overrides=list(overrides))


def settings_of_the_data(key: str, node: DictConfig) -> list[str]:
    """What only the user knows, as it would be written on the command line."""
    made = []
    if "class_counts" in node:
        made.append(f"loss.{key}.class_counts=[{','.join(str(10 + c) for c in range(CLASSES))}]")
    if "num_classes" in node:
        made.append(f"loss.{key}.num_classes={CLASSES}")
    if "in_features" in node:
        made.append(f"loss.{key}.in_features={DIM}")
    if "num_samples" in node:
        made.append(f"loss.{key}.num_samples={STEPS * BATCH}")
    if "num_bins" in (node.get("target_transform") or {}):
        made.append(f"loss.{key}.target_transform.num_bins={CLASSES}")
    if key == "local_entropy":  # in the first steps nothing is sure
        made.append(f"loss.{key}.threshold=0")
    return made


def from_digits(key: str, batch: Batch) -> dict[str, Any]:
    """What is known of a batch of digits, by the name under which some loss asks for it."""
    x, y, index = batch
    pixels = x.reshape(-1, 8, 8)
    position = torch.arange(len(y))
    bag = position // 5
    member = (bag[:, None] == bag).float()
    member = member / member.sum(1, keepdim=True)
    one_hot = torch.eye(CLASSES)[y]
    ink = x.mean(1)
    known: dict[str, Any] = {
        "target": y,
        "sample_index": index,
        "teacher_logits": 4 * one_hot + x[:, 20:30],
        "class_similarity": one_hot + x[:, 20:30],
        "reference": x[:, 20:23],
        "ref_features": torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(0)),
        "reward": y / 9,
        "profit": y.float(),
        "list_id": position // 6,
        "group_id": y % 2,
        "bag_id": bag,
        "bag_target": member @ y.float(),
        "bag_proportion": member @ one_hot,
        "sensitive": torch.stack([(ink - ink.mean()) / ink.std(), 1.0 * (y % 2)], 1),
        "inverse_propensity": 1 / (0.2 + 0.8 * ink),
    }
    if key in REAL_TARGET:
        known["target"] = y / 9 - 0.5
    elif key in ("tri_bce", *ONE_SCORE):
        known["target"] = y % 2
    elif key in PARTLY_LABELLED:
        known["target"] = torch.where(index % 3 == 0, -1, y)
    elif key in MULTI_HOT:  # the digit, and its neighbour
        known["target"] = one_hot + one_hot.roll(1, 1)
    for name in ("label_map", "skeleton_map"):  # strokes, and their darkest pixels
        known[name] = (pixels > (0.4 if name == "label_map" else 0.8)).long()
    inside = torch.eye(CLASSES)[known["label_map"]].movedim(-1, 1)
    known["region_map"] = 1 - 2 * inside
    known["old_class_map"] = pixels * (pixels < 0.4)
    return known


class DigitsModule(LossMixin, L.LightningModule):
    """A network with one linear head for each tensor that the objective wants a network to make."""

    def __init__(self, key: str, loss: Objective) -> None:
        super().__init__()
        self.key, self.loss = key, loss
        self.body = nn.Sequential(nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.values: list[Tensor] = []
        self.had_gradient: set[str] = set()
        # The shapes are those of the factory, of which those with gradient come from a network.
        columns = CLASSES - (key in ORDINAL)
        wanted = inputs(loss, rows=BATCH, classes=columns, dtype=torch.float32)
        self.given = {n: v for n, v in wanted.items() if n not in loss.providers and n != "module"}
        for name, value in self.given.items():
            if "_map" in name:  # of the size of the images
                self.given[name] = torch.zeros(*value.shape[:-2], 8, 8).requires_grad_(
                    value.requires_grad
                )
        made = {n: v for n, v in self.given.items() if isinstance(v, Tensor) and v.requires_grad}
        self.shapes = {name: value.shape[1:] for name, value in made.items()}
        self.heads = nn.ModuleDict(
            {f"{name}_head": nn.Linear(WIDTH, shape.numel()) for name, shape in self.shapes.items()}
        )

    def make(self, name: str, x: Tensor) -> Tensor:
        z: Tensor = self.heads[f"{name}_head"](self.body(x)).reshape(-1, *self.shapes[name])
        if name == "variance":
            return z.exp()
        return z.softmax(-1) if name == "attention" else z

    def training_step(self, batch: Batch, _: int) -> Tensor:
        x = batch[0]
        known = self.given | from_digits(self.key, batch)
        named = {name: known[name] for name in self.given}
        named |= {name: self.make(name, x) for name in self.shapes}
        if self.loss.providers:
            named |= {"input": x, "model": lambda inner: self.make("logits", inner)}
        total = self.compute_loss(**named)
        self.values.append(total.detach())
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for name, p in self.named_parameters():
            if p.grad is not None:
                assert p.grad.isfinite().all(), name
                if p.grad.abs().max() > 0:
                    self.had_gradient.add(name)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameter_groups(), lr=1e-2)


def trainer(**options: Any) -> L.Trainer:
    quiet = {
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(accelerator="cpu", devices=1, logger=False, **quiet, **options)


@pytest.mark.parametrize("key", LOSSES)
def test_every_loss_trains(key: str, sweep: Any, digits: DataLoader[Any]) -> None:
    config = sweep(f"loss={key}")
    if data := settings_of_the_data(key, config.loss[key]):
        config = sweep(f"loss={key}", *data)
    torch.manual_seed(0)
    module = DigitsModule(key, build_objective(config.loss, kernel=config.kernel))
    if key == "elastic":  # an earlier task, whose parameters were 1 larger
        held = {name: p.detach() + 1 for name, p in module.named_parameters()}
        importance = {name: torch.ones_like(p) for name, p in held.items()}
        module.loss.terms[key].loss.remember(module, importance)
        module.loss.terms[key].loss.memory = {n: (importance[n], held[n]) for n in held}
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The '?train_dataloader'?.* does not have many workers")
        trainer(max_steps=STEPS).fit(module, digits)
    assert len(module.values) == STEPS
    assert all(value.isfinite() for value in module.values), module.values
    assert module.had_gradient, "nothing to learn"
    for name, p in module.named_parameters():
        assert p.isfinite().all(), name
        assert torch.equal(p, before[name]) == (name not in module.had_gradient), name


def test_a_real_sweep_on_the_command_line(tmp_path: Path) -> None:
    """Two jobs of `-m`, of one batch each; the second composes two losses and weighs one."""
    command = [
        sys.executable,
        str(EXAMPLES / "train.py"),
        "-m",
        "loss=[ce],[focal,margin_control]",
        "callbacks=[]",
        "logger=[]",
        "trainer.fast_dev_run=true",
        "trainer.enable_progress_bar=false",
        "threads=1",
        f"hydra.sweep.dir={tmp_path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["0", "1"]
    assert done.stdout.count("test/loss ") == 2
    assert "MarginControl" in done.stdout
