# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The fit of reward to entropy, and the callback that makes it in training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from training import require_config_is_the_class, train, train_twice

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks.monitors.entropy_law import EntropyLaw
from lightning_losses.metrics.training_curve.entropy_law import entropy_law


def law_of(a: float, b: float, entropies: list[float]) -> list[float]:
    return [b - a * math.exp(h) for h in entropies]


def test_exact_data_gives_its_law() -> None:
    h = [1.2, 0.9, 0.5, 0.1]
    found = entropy_law(h, law_of(0.2, 0.7, h))
    assert found[:5] == pytest.approx((0.2, 0.7, 0.5, 1.0, 4))
    assert not found.problem


def test_noisy_data_is_fitted_as_numpy_does() -> None:
    g = np.random.default_rng(0)
    h = g.uniform(0.1, 2, 30)
    r = 0.8 - 0.1 * np.exp(h) + 0.02 * g.normal(size=30)
    slope, intercept = np.polyfit(np.exp(h), r, 1)
    found = entropy_law(h.tolist(), r.tolist())
    assert found[:3] == pytest.approx((-slope, intercept, intercept + slope))
    assert found.r2 == pytest.approx(np.corrcoef(np.exp(h), r)[0, 1] ** 2)


@pytest.mark.parametrize(
    ("h", "r", "problem"),
    [
        ([], [], "0 points"),
        ([1.0, 0.5], [0.1, 0.2], "2 points"),
        ([1.0, 0.5, math.nan, 900.0], [0.1, 0.2, 0.3, 0.4], "2 points"),
        ([0.5, 0.5, 0.5], [0.1, 0.2, 0.3], "has not changed"),
        ([1.0, 0.7, 0.5], [0.3, 0.2, 0.1], "does not rise"),
        ([1.0, 0.7, 0.5], [0.3, 0.3, 0.3], "does not rise"),
    ],
)
def test_what_is_no_law_says_why(h: list[float], r: list[float], problem: str) -> None:
    assert problem in entropy_law(h, r).problem


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        entropy_law([1.0], [1.0, 2.0])


class Actor(LossMixin, L.LightningModule):
    """Entropy falls by cross-entropy; the reward is made of it by a law, or is not."""

    def __init__(self, a: float = 0.2, name: str = "train/reward") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.loss = torch.nn.Linear(3, 4), build_objective("ce")
        self.a, self.name = a, name

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        z = self.net(x)
        h = torch.distributions.Categorical(logits=z.detach()).entropy().mean()
        self.log(self.name, 0.9 - self.a * h.exp())
        return self.compute_loss(logits=z, target=y)

    def train_dataloader(self) -> DataLoader[Any]:
        x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x.argmax(1)), batch_size=8)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def heard(run: Any, key: str) -> list[float]:
    return [line[f"entropy/{key}"] for line in run.logged if f"entropy/{key}" in line]


def test_the_law_of_a_training() -> None:
    """12 steps, a pair at every second; the first two pairs are too few. No bit changes."""
    callback = EntropyLaw(every_n_steps=2)
    run = train_twice(Actor, [callback], own="entropy/")
    assert len(callback.pairs) == 6
    for key, value in {"law_a": 0.2, "law_b": 0.9, "ceiling": 0.7, "law_r2": 1.0}.items():
        assert heard(run, key)[0] == pytest.approx(value, rel=1e-3)
        assert len(heard(run, key)) == 12 - 4  # the logbook looks after each batch


def test_resuming_is_going_on(tmp_path: Path) -> None:
    straight, half, rest = (EntropyLaw(every_n_steps=2) for _ in range(3))
    train(Actor, [straight], max_epochs=2)
    train(Actor, [half]).trainer.save_checkpoint(tmp_path / "half.ckpt")
    train(Actor, [rest], max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    assert rest.state_dict() == straight.state_dict()
    assert len(rest.pairs) == 12


def test_an_exhausted_policy_is_told_of_once() -> None:
    """The reward's scale is such that the end of training is near the ceiling."""
    with pytest.warns(UserWarning, match="with no entropy left") as caught:
        train(lambda: Actor(1e-3), [EntropyLaw(every_n_steps=1, action="warn")], max_epochs=2)
    assert len([w for w in caught if "with no entropy left" in str(w.message)]) == 1


@pytest.mark.parametrize(
    ("module", "message"),
    [(lambda: Actor(-0.2), "not applicable: reward does not rise"),
     (lambda: Actor(name="train/score"), r"no metric 'train/reward'")],
)  # fmt: skip
def test_what_is_not_applicable_logs_nothing_and_says_so(module: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=message) as caught:
        run = train(module, [EntropyLaw(every_n_steps=1)], max_epochs=2)
    assert len([w for w in caught if "EntropyLaw" in str(w.message)]) == 1
    assert not heard(run, "ceiling")


def test_the_config_is_the_class() -> None:
    require_config_is_the_class("entropy_law", EntropyLaw)
