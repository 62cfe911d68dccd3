# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The controller of an entropy bonus against its rule by hand, resumed, and on two ranks."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from training import require_config_is_the_class, train

from lightning_losses import LossMixin, Objective, Term
from lightning_losses.callbacks.controllers.entropy_target import Coefficient, EntropyTarget
from lightning_losses.losses import CrossEntropy, EntropyBonus, EntropyMinimization
from lightning_losses.schedules import Linear

BATCH, CLASSES, STEPS = 8, 4, 12
#: Entropies of the runs below start near log 4 = 1.39 and fall; the target lies in between, so
#: that the coefficient stands, grows and (as the bonus works) shrinks again.
OPTIONS = {"target": 1.0, "delta": 0.7, "max_coefficient": 6.0}


class Policy(LossMixin, L.LightningModule):
    """Remembers, of every batch, the entropies of the rows that count and the bonus's weight."""

    def __init__(self, weight: Any = 0.01, lr: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net, self.lr = nn.Linear(3, CLASSES), lr
        terms = {"ce": CrossEntropy(), "entropy_bonus": Term(EntropyBonus(), weight)}
        self.loss = Objective(terms)
        self.entropies: list[Tensor] = []
        self.weights: list[float] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        z = self.net(x)
        h = torch.distributions.Categorical(logits=z.detach().double()).entropy()
        self.entropies.append(h[y != -100])
        total = self.compute_loss(logits=z, target=y)
        self.weights.append(float(self.loss_record.weights["entropy_bonus"]))
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def data() -> TensorDataset:
    g = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(STEPS * BATCH, 3, generator=g)
    y = (x @ torch.randn(3, CLASSES, generator=g)).argmax(1)
    y[torch.rand(len(y), generator=g) < torch.where(torch.arange(len(y)) % 2 == 0, 0.4, 0.1)] = -100
    return TensorDataset(x, y)


def loader(dataset: Any = None, size: int = BATCH) -> DataLoader[Any]:
    return DataLoader(data() if dataset is None else dataset, batch_size=size)


def by_hand(steps: list[Tensor], target: float, delta: float, high: float) -> list[list[float]]:
    """``[weight applied in the step, coefficient after it]`` from the entropies of each step."""
    out, c, last = [], 0.0, math.inf
    for rows in steps:
        applied = c if last < target else 0.0
        last = sum(rows.tolist()) / len(rows)
        c = min(c + delta, high) if last < target else max(c - delta, 0.0)
        out.append([applied, c])
    return out


def heard(run: Any, key: str) -> list[float]:
    return [line[f"entropy_target/{key}"] for line in run.logged if f"entropy_target/{key}" in line]


def fit(module: L.LightningModule, callback: L.Callback, **options: Any) -> Any:
    return train(lambda: module, [callback], **options)


class WithData(Policy):
    def train_dataloader(self) -> DataLoader[Any]:
        return loader()


# ------------------------------------------------------------------ the rule
def test_three_low_steps_and_a_high_one() -> None:
    c = Coefficient(0.2, 1e-4, 0.0, 0.0, 0.005)
    for _ in range(3):
        c.update(0.1)
    assert (c.value, c.applied) == (pytest.approx(3e-4), pytest.approx(3e-4))
    c.update(0.5)
    assert (c.value, c.applied) == (pytest.approx(2e-4), 0.0)
    c.update(math.nan)
    assert (c.value, c.applied) == (pytest.approx(2e-4), 0.0)


def test_the_coefficient_stays_within_its_limits() -> None:
    c = Coefficient(1.0, 1.0, 2.0, 1.5, 2.5)
    for entropy, expected in [(0.0, 2.5), (0.0, 2.5), (9.0, 1.5), (9.0, 1.5)]:
        c.update(entropy)
        assert c.value == expected


# ------------------------------------------------------------------ in training
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("weight", [0.01, Linear(0.5, 2.0, 5)])
def test_the_weight_is_the_rule_by_hand(weight: Any, accumulate: int) -> None:
    """Whatever the config's weight is, and over the whole window of an accumulated step."""
    module, callback = WithData(weight), EntropyTarget(**OPTIONS)
    run = fit(module, callback, max_epochs=2, accumulate_grad_batches=accumulate)
    windows = [
        torch.cat(module.entropies[i : i + accumulate])
        for i in range(0, len(module.entropies), accumulate)
    ]
    wanted = by_hand(windows, 1.0, 0.7, 6.0)
    assert len(wanted) == 2 * STEPS // accumulate
    applied = [row[0] for row in wanted for _ in range(accumulate)]
    assert module.weights == pytest.approx(applied, rel=1e-6)
    if accumulate == 1:
        assert heard(run, "coefficient") == pytest.approx([row[1] for row in wanted], rel=1e-6)
        means = [float(rows.mean()) for rows in windows]
        assert heard(run, "entropy") == pytest.approx(means, rel=1e-5)
        # A grid in which nothing happens would agree with anything.
        assert len({row[1] for row in wanted}) > 3
        assert any(b[1] < a[1] for a, b in pairwise(wanted))


def test_it_keeps_entropy_up() -> None:
    class Free(WithData):
        pass

    free, held = Free(), WithData()
    fit(free, EntropyTarget(target=1e-9), max_epochs=6)
    fit(held, EntropyTarget(target=1.0, delta=0.1, max_coefficient=9.0), max_epochs=6)
    last = [float(torch.cat(m.entropies[-STEPS:]).mean()) for m in (free, held)]
    assert last[0] < 0.6
    assert 0.8 < last[1] < 1.2


class Even(Policy):
    """Trained on labels at random, with a term that makes it sure: entropy alone stays high."""

    def __init__(self) -> None:
        super().__init__()
        terms = {
            "ce": CrossEntropy(),
            "entropy_bonus": Term(EntropyBonus(), 0.01),
            "entropy_min": Term(EntropyMinimization(), 1.0),
        }
        self.loss = Objective(terms)

    def train_dataloader(self) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(0)
        y = torch.randint(CLASSES, (STEPS * BATCH,), generator=g)
        return loader(TensorDataset(torch.randn(len(y), 3, generator=g), y))


def test_it_keeps_entropy_from_both_sides() -> None:
    """Entropy that would stay near log 4 = 1.39 comes between the bounds."""
    found = []
    for upper in (50.0, 1.0):
        module = Even()
        controller = EntropyTarget(0.5, delta=0.1, max_coefficient=9.0, upper=upper)
        fit(module, controller, max_epochs=6)
        found.append(float(torch.cat(module.entropies[-STEPS:]).mean()))
    assert found[0] > 1.2
    assert 0.5 < found[1] < 1.1


def test_two_coefficients_are_one_rule_turned_round() -> None:
    low = Coefficient(1.0, 0.1, 0.0, 0.0, 0.5)
    high = Coefficient(1.0, 0.1, 0.0, 0.0, 0.5, above=True)
    for entropy in (0.3, 1.2, 0.9, 1.7):
        low.update(entropy)
        high.update(2.0 - entropy)
        assert (low.value, low.applied) == (high.value, high.applied)
    with pytest.raises(ValueError, match="upper must be at least target"):
        EntropyTarget(1.0, upper=0.5)


def test_resuming_is_going_on(tmp_path: Path) -> None:
    straight = fit(WithData(), EntropyTarget(**OPTIONS), max_epochs=3)
    half = fit(WithData(), EntropyTarget(**OPTIONS), max_epochs=2)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    rest = fit(WithData(), EntropyTarget(**OPTIONS), max_epochs=3, ckpt_path=tmp_path / "half.ckpt")
    for key in ("coefficient", "entropy"):
        assert heard(half, key) + heard(rest, key) == heard(straight, key)
    for name, value in straight.module.state_dict().items():
        assert torch.equal(value, rest.module.state_dict()[name])
    assert len(set(heard(rest, "coefficient"))) > 1


def test_a_step_without_rows_changes_nothing() -> None:
    x, y = (t.clone() for t in data().tensors)
    y[3 * BATCH : 5 * BATCH] = -100
    module = Policy()
    module.train_dataloader = lambda: loader(TensorDataset(x, y))  # type: ignore[method-assign]
    run = fit(module, EntropyTarget(**OPTIONS | {"target": 5.0}))
    found = heard(run, "coefficient")
    assert found[2] == found[3] == found[4] == pytest.approx(2.1)
    assert found[5] == pytest.approx(2.8)
    assert len(set(heard(run, "entropy")[2:5])) == 1


def test_the_term_gets_its_own_weight_back() -> None:
    module = WithData()
    fit(module, EntropyTarget(**OPTIONS | {"target": 5.0}))
    assert module.weights[-1] > 1
    assert module.loss.terms["entropy_bonus"].scale == 1.0


def test_and_after_a_run_that_is_cut_off() -> None:
    class Stop(L.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 5:
                raise KeyboardInterrupt

    module = WithData()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(lambda: module, [EntropyTarget(**OPTIONS | {"target": 5.0}), Stop()])
    assert module.weights[-1] > 1
    assert module.loss.terms["entropy_bonus"].scale == 1.0
    assert module.loss._watched == {}


def test_another_training_begins_anew() -> None:
    used = EntropyTarget(**OPTIONS | {"target": 5.0})
    first = fit(WithData(), used)
    assert heard(fit(WithData(), used), "coefficient") == heard(first, "coefficient")


def test_complaints() -> None:
    with pytest.raises(ValueError, match="the objective has ce, entropy_bonus"):
        fit(WithData(), EntropyTarget(term="bonus"))
    with pytest.raises(ValueError, match=r"loss\.entropy_bonus\.weight=1"):
        fit(WithData(0.0), EntropyTarget())
    for options in ({"target": 0.0}, {"delta": -1.0}):
        with pytest.raises(ValueError, match="target and delta"):
            EntropyTarget(**options)
    for options in ({"initial_coefficient": 1.0}, {"min_coefficient": -1.0}):
        with pytest.raises(ValueError, match="0 <= min_coefficient"):
            EntropyTarget(**options)


def test_without_classes_it_says_so_once() -> None:
    class Real(WithData):
        def __init__(self) -> None:
            super().__init__()
            mse = Term(nn.MSELoss(reduction="none"), inputs={"input": "logits"})
            self.loss = Objective({"entropy_bonus": mse})

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return self.compute_loss(logits=self.net(x)[:, 0], target=y.clamp(min=0).float())

    with pytest.warns(UserWarning, match="no class logits") as caught:
        fit(Real(), EntropyTarget())
    assert len([w for w in caught if "no class logits" in str(w.message)]) == 1


def test_the_config_is_the_class() -> None:
    require_config_is_the_class("entropy_target", EntropyTarget)


# ------------------------------------------------------------------ two ranks
def worker(rank: int) -> Any:
    own = Subset(data(), range(rank, STEPS * BATCH, 2))
    return observed(loader(own, BATCH // 2), devices=2, strategy="ddp")


def observed(batches: Any, **options: Any) -> dict[str, Any]:
    module = Policy()
    module.train_dataloader = lambda: batches  # type: ignore[method-assign]
    run = fit(module, EntropyTarget(**OPTIONS), max_epochs=2, use_distributed_sampler=False,
              **options)  # fmt: skip
    return {k: heard(run, k) for k in ("coefficient", "entropy")} | {"weights": module.weights}


@pytest.mark.slow
def test_two_ranks_take_the_same_coefficient(tmp_path: Path) -> None:
    zero, one = on_ranks(worker, tmp_path)
    assert zero == one
    single = observed(loader())
    for key, values in single.items():
        assert zero[key] == pytest.approx(values, rel=1e-4), key
