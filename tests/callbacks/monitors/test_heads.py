# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the logits are is known: monitors of sigmoids, and of logits that are no probabilities."""

from __future__ import annotations

import math
import warnings
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import (
    CalibrationMonitor,
    DriftMonitor,
    EntropyMonitor,
    LogitHealthMonitor,
    StepRadiusController,
    StepRadiusMonitor,
)
from lightning_losses.callbacks.reading.events import event_entropy, read_events

#: Ways to write the same yes-or-no training: one column, none, and two classes by softmax.
FLAT, COLUMN, TWO = "flat", "column", "two"


class Detector(LossMixin, L.LightningModule):
    """A linear detector of L labels; keeps the logits of its steps, and lr of SGD as given."""

    def __init__(self, way: str = FLAT, labels: int = 1, lr: float = 0.5, loss: str = "bce"):
        super().__init__()
        torch.manual_seed(5)
        self.net, self.way, self.lr = nn.Linear(3, labels), way, lr
        self.loss = build_objective("ce" if way == TWO else loss)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        z = self.net(x)
        self.seen.append((z.detach(), y))
        if self.way == FLAT:
            return self.compute_loss(logits=z[:, 0], target=y[:, 0])
        if self.way == TWO:
            both = torch.cat([torch.zeros_like(z), z], 1)
            return self.compute_loss(logits=both, target=y[:, 0].long())
        return self.compute_loss(logits=z, target=y)

    def validation_step(self, batch: Any, i: int) -> None:
        self.training_step(batch, i)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def loader(labels: int = 1, rows: int = 48, batch_size: int = 12) -> DataLoader[Any]:
    g = torch.Generator().manual_seed(9)
    x = torch.randn(rows, 3, generator=g)
    y = x @ torch.randn(3, labels, generator=g) + torch.randn(rows, labels, generator=g) > 0.2
    return DataLoader(TensorDataset(x, y.float()), batch_size=batch_size)


class Kept(L.Callback):
    """What was logged in each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.steps.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def fit(module: Detector, *callbacks: L.Callback, labels: int = 1, epochs: int = 2) -> Any:
    kept = Kept()
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[*callbacks, kept],
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader(labels), loader(labels))
    return trainer, kept.steps


def entropy_by_hand(z: float) -> float:
    p = 1 / (1 + math.exp(-z))
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@pytest.mark.parametrize(("way", "labels"), [(FLAT, 1), (COLUMN, 1), (COLUMN, 4)])
def test_entropy_of_sigmoids_is_the_mean_of_each_label(way: str, labels: int) -> None:
    module = Detector(way, labels)
    _, steps = fit(module, EntropyMonitor(every_n_steps=1), labels=labels, epochs=1)
    z, y = module.seen[2]
    rows = [sum(map(entropy_by_hand, row)) / labels for row in z.tolist()]
    assert steps[2]["entropy/mean"] == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    expected = nn.functional.binary_cross_entropy_with_logits(z, y) - sum(rows) / len(rows)
    assert steps[2]["entropy/nll_gap"] == pytest.approx(float(expected), abs=1e-5)
    assert "entropy/marginal" not in steps[2]


def test_binary_entropy_keeps_its_digits_where_yes_is_certain() -> None:
    z = torch.tensor([-200.0, -40.0, 0.0, 40.0], dtype=torch.float64)
    p = torch.tensor([40.0], dtype=torch.float64).neg().exp()
    want = torch.cat([p.new_zeros(1), p * 41, p.new_tensor([math.log(2)]), p * 41])
    torch.testing.assert_close(event_entropy(z), want, rtol=1e-12, atol=1e-80)


def test_one_column_is_the_same_as_none_and_as_two_classes() -> None:
    logged = []
    for way in (FLAT, COLUMN, TWO):
        monitors = [EntropyMonitor(every_n_steps=1), StepRadiusMonitor(every_n_steps=1),
                    CalibrationMonitor(), DriftMonitor()]  # fmt: skip
        trainer, steps = fit(Detector(way), *monitors)
        logged.append((steps, trainer.callback_metrics))
    flat, column, two = logged
    assert [s.keys() for s in flat[0]] == [s.keys() for s in column[0]]
    for a, b in zip(flat[0], column[0], strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6, nan_ok=True)
    assert {"calibration/val/ece", "calibration/val/auroc"} <= flat[1].keys()
    assert "calibration/val/accuracy" not in flat[1]
    same = ("entropy/mean", "entropy/nll_gap", "step_radius/r", "step_radius/rho_dom",
            "step_radius/descent", "step_radius/update_norm")  # fmt: skip
    for a, b in zip(flat[0][1:], two[0][1:], strict=True):  # nll_gap of classes comes a step later
        want = {key: b[key] for key in same}
        assert {key: a[key] for key in same} == pytest.approx(want, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("way", "labels"), [(FLAT, 1), (COLUMN, 1), (COLUMN, 3)])
def test_nobody_cries_softmax_collapse_on_sigmoids(way: str, labels: int) -> None:
    module = Detector(way, labels)
    monitors = [LogitHealthMonitor(every_n_steps=1), EntropyMonitor(every_n_steps=1)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, steps = fit(module, *monitors, labels=labels, epochs=4)
    assert not [w for w in caught if "Monitor" in str(w.message)]
    assert "logit_health/softmax_collapse" not in steps[-1]
    z, _ = module.seen[1]
    assert steps[1]["logit_health/max_logit"] == pytest.approx(float(z.abs().max()), rel=1e-6)


def test_calibration_counts_every_known_label_as_an_event() -> None:
    z = torch.tensor([[2.0, -1.0, 0.3], [0.5, 4.0, -2.0]])
    t = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]])  # one answer is not known
    module = Detector(COLUMN, 3)
    module.loss = build_objective({"bce": {"ignore_index": -1}})

    class Given(type(module)):  # type: ignore[misc]
        def validation_step(self, batch: Any, _: int) -> None:
            self.compute_loss(logits=z, target=t)

    module.__class__ = Given
    trainer = L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[CalibrationMonitor()],
    )  # fmt: skip
    trainer.validate(module, DataLoader(TensorDataset(torch.zeros(1))), verbose=False)
    pairs = [(a, b) for a, b in zip(z.flatten().tolist(), t.flatten().tolist(), strict=True)
             if b != -1]  # fmt: skip
    p = [(1 / (1 + math.exp(-a)), b) for a, b in pairs]
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert logged["calibration/val/event_rate"] == pytest.approx(3 / 5)
    mean = sum(a for a, _ in p) / 5
    assert logged["calibration/val/gap"] == pytest.approx(mean - 3 / 5, abs=1e-6)
    assert logged["calibration/val/brier"] == pytest.approx(sum((a - b) ** 2 for a, b in p) / 5)
    happened, other = [a for a, b in p if b], [a for a, b in p if not b]
    wins = sum(a > b for a in happened for b in other) / len(happened) / len(other)
    assert logged["calibration/val/auroc"] == pytest.approx(wins)


@pytest.mark.parametrize(
    ("losses", "shape", "head"),
    [
        ("ce", (4, 3), "softmax"),
        ("bce", (4,), "sigmoid"),
        ("bce", (4, 1), "sigmoid"),
        ("bce", (4, 3), "sigmoid"),
        ("multiclass_hinge", (4, 3), "none"),
        ("corn", (4, 2), "sigmoid"),
        (["ce", "multiclass_hinge"], (4, 3), "softmax"),  # one of them makes probabilities
        (["bce", "multiclass_hinge"], (4, 3), "sigmoid"),
        ("dice", (4, 1), "sigmoid"),  # one column has no softmax
    ],
)
def test_the_objective_says_what_the_logits_are(losses: Any, shape: Any, head: str) -> None:
    assert build_objective(losses).head(torch.zeros(shape)) == head


def test_a_number_of_a_loss_that_says_nothing_is_no_probability() -> None:
    term = {"_target_": "torch.nn.MSELoss", "reduction": "none", "inputs": {"input": "logits"}}
    objective = build_objective({"mse": term})
    assert [objective.head(torch.zeros(4, *c)) for c in ((), (1,), (3,))] == [
        "none", "none", "softmax"]  # fmt: skip


def test_a_hinge_has_no_entropy_but_a_size() -> None:
    class Hinge(Detector):
        def training_step(self, batch: Any, _: int) -> Tensor:
            return self.compute_loss(logits=self.net(batch[0]), target=batch[1].argmax(1))

    monitors = [LogitHealthMonitor(every_n_steps=1), EntropyMonitor(every_n_steps=1)]
    with pytest.warns(UserWarning, match="makes no probabilities of the logits"):
        _, steps = fit(Hinge(COLUMN, 3, loss="multiclass_hinge"), *monitors, labels=3, epochs=1)
    assert "entropy/mean" not in steps[-1]
    assert steps[-1]["logit_health/max_logit"] > 0


def test_targets_that_name_no_event_are_none() -> None:
    z = torch.zeros(3, 2)
    levels = torch.tensor([0.0, 2.0, 1.0])  # a number a row says nothing of two columns
    assert read_events(z, levels, None).target is None
    classes = read_events(z, torch.tensor([0, 1, 1]), torch.tensor([True, True, False]))
    assert classes.target.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert classes.known.tolist() == [[True] * 2, [True] * 2, [False] * 2]
    assert read_events(z[:0, 0], z[:0, 0], None).z.shape == (0, 1)


def test_r_of_sigmoids_is_the_largest_change_over_pi() -> None:
    module = Detector(COLUMN, labels=3, lr=8.0)
    _, steps = fit(module, StepRadiusMonitor(every_n_steps=1), labels=3, epochs=1)
    torch.manual_seed(5)
    first, (x, y) = nn.Linear(3, 3), next(iter(loader(3)))
    nn.functional.binary_cross_entropy_with_logits(first(x), y).backward()
    with torch.no_grad():
        change = 8.0 * (x @ first.weight.grad.T + first.bias.grad)
    assert steps[0]["step_radius/r"] == pytest.approx(float(change.abs().max()) / math.pi, rel=1e-4)
    assert steps[0]["step_radius/rows"] == 12 * 3


def test_the_controller_acts_on_one_column_as_on_none() -> None:
    sizes, steps = [], []
    for way in (FLAT, COLUMN):
        module, controller = Detector(way, lr=60.0), StepRadiusController(target=0.4)
        _, kept = fit(module, controller)
        assert controller.interventions > 0
        sizes.append(module.net.weight.detach())
        steps.append(kept)
    torch.testing.assert_close(*sizes)
    assert max(step["step_radius_controller/applied_r"] for step in steps[1]) <= 0.4
    free = Detector(COLUMN, lr=60.0)
    fit(free)
    assert float(free.net.weight.detach().norm()) > 3 * float(sizes[0].norm())
