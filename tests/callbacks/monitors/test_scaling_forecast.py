# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""ScalingForecast: planted laws come back, intervals hold what they say, refusals, resuming."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import lr_scheduler as s
from torch.utils.data import DataLoader, TensorDataset
from training import require_equal, train, train_twice

from lightning_losses import LossMixin, Objective
from lightning_losses.callbacks.monitors.scaling_forecast import ScalingForecast
from lightning_losses.callbacks.reading.loss_curve import MOST, LossCurve
from lightning_losses.callbacks.reading.training_plan import Unplanned, planned_rates
from lightning_losses.metrics.training_curve.annealing import (
    AnnealingSums,
    annealing_law,
    learning_rate_sums,
    without_warmup,
)
from lightning_losses.metrics.training_curve.lr_sensitivity import lr_sensitivity
from lightning_losses.metrics.training_curve.scaling_law import Forecast, forecast

# --------------------------------------------------------------------------------- the functions
rates_of = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), min_size=1, max_size=12)


@given(rates_of, st.sampled_from([0.5, 0.999, 1.0]))
def test_sums_by_the_double_sum(rates: list[float], decay: float) -> None:
    s1, s2 = learning_rate_sums(rates, decay)
    for i in range(len(rates)):
        fallen = sum(
            (rates[k - 1] - rates[k]) * decay ** (j - k)
            for j in range(i + 1)
            for k in range(1, j + 1)
        )
        assert s1[i] == pytest.approx(sum(rates[: i + 1]), abs=1e-12)
        assert s2[i] == pytest.approx(fallen, abs=1e-12)


@given(rates_of)
def test_sums_a_step_at_a_time_know_of_the_warmup(rates: list[float]) -> None:
    sums = AnnealingSums()
    for i, rate in enumerate(rates):
        sums.add(rate)
        s1, s2 = learning_rate_sums(without_warmup(rates[: i + 1]))
        assert sums.progress == pytest.approx(float(s1[-1]), abs=1e-12)
        assert sums.annealing == pytest.approx(float(s2[-1]), abs=1e-12)


def test_warmup_is_the_first_rise_only() -> None:
    assert without_warmup([0.0, 0.5, 1.0, 1.0, 0.5, 2.0]) == [1.0, 1.0, 1.0, 1.0, 0.5, 2.0]
    assert without_warmup([]) == []
    with pytest.raises(ValueError, match="must be in"):
        learning_rate_sums([1.0], 1.5)


def curve(
    seed: int, noise: float, at: int, exponent: float, cosine: bool, steps: int = 100
) -> tuple[Forecast, float, float]:
    """Forecast from the first ``at`` of some points, the law's end, and one noisy point there."""
    rates = [1.0] * steps
    if cosine:
        rates = [0.5 + 0.5 * math.cos(math.pi * i / steps) for i in range(steps)]
    s1, s2 = learning_rate_sums(rates)
    full = annealing_law(s1 / s1[-1], s2 / max(float(s2[-1]), 1e-9), 1.5, 0.8, exponent, 0.5)
    g = torch.Generator().manual_seed(seed)
    seen = full * (1 + noise * torch.randn(steps, generator=g).double())
    found = forecast(
        s1[:at].tolist(), seen[:at].tolist(), float(s1[-1]), s2[:at].tolist(), float(s2[-1])
    )
    return found, float(full[-1]), float(seen[-1])


# The corners: an exponent of published size and a large one, before and after half of the way.
@pytest.mark.parametrize("exponent", [0.3, 1.0])
@pytest.mark.parametrize("cosine", [False, True], ids=["power", "annealing"])
def test_without_noise_the_law_comes_back(cosine: bool, exponent: float) -> None:
    found, truth, _ = curve(0, 0.0, 40, exponent, cosine)
    assert not found.problem
    assert found.loss == pytest.approx(truth, rel=1e-4)
    assert found.exponent == pytest.approx(exponent, rel=2e-3)
    assert found.floor == pytest.approx(1.5, rel=2e-3)
    assert (found.gain > 0) == cosine
    assert found.points <= 40


# 1 % is what windows of ten steps of a small network scatter by.
@pytest.mark.parametrize(
    ("cosine", "at", "noise"), [(False, 40, 0.01), (True, 70, 0.01)], ids=["power", "annealing"]
)
def test_the_interval_holds_nine_ends_in_ten(cosine: bool, at: int, noise: float) -> None:
    seeds, inside, errors = 30, 0, []
    for seed in range(seeds):
        found, truth, end = curve(seed, noise, at, 0.5, cosine)
        assert not found.problem
        assert found.low <= found.loss <= found.high
        assert found.high < 1.15 * found.low
        assert found.residual == pytest.approx(noise, rel=0.5)
        inside += found.low <= end <= found.high
        errors.append(found.loss / truth - 1)
    # Of 30 at 90 %, fewer than 23 are less likely than 1 %, and all 30 are 4 %: too wide.
    assert 23 <= inside < 30
    assert abs(sum(errors) / seeds) < 0.01


def test_a_spike_is_an_outlier() -> None:
    x = [float(i) for i in range(1, 101)]
    y = [1.5 + 2 * v**-0.5 for v in x]
    clean = forecast(x, y, 200.0)
    for i in (40, 41, 80):
        y[i] *= 5
    spiked = forecast(x, y, 200.0)
    assert spiked.loss == pytest.approx(clean.loss, rel=5e-3)


def test_units_do_not_matter() -> None:
    x = [float(i) for i in range(1, 61)]
    y = [1.5 + 2 * v**-0.5 for v in x]
    a, b = forecast(x, y, 200.0), forecast([1e-6 * v for v in x], [1e3 * v for v in y], 200e-6)
    assert b.loss == pytest.approx(1e3 * a.loss, rel=1e-6)
    assert b.scale == pytest.approx(1e3 * 2 * 1e-6**0.5, rel=1e-3)


X = [float(i) for i in range(1, 61)]
LAW = [1.5 + 2 * x**-0.5 for x in X]
REFUSED: dict[str, tuple[Any, str]] = {
    "none": (([], [], 9.0), "0 points"),
    "few": ((X[:19], LAW[:19], 30.0), "19 points"),
    "short": (([x + 200 for x in X], LAW, 300.0), "window is too short"),
    "far": ((X, LAW, 601.0), "end is too far"),
    "no_end": ((X, LAW, math.inf), "end is too far"),
    "nan": ((X, [math.nan] * 10 + LAW[10:], 90.0), "8 of 58 losses are not"),
    "negative": ((X, [-y for y in LAW], 90.0), "0 points"),
    "rising": ((X, [1 + 0.1 * x for x in X], 90.0), "does not fall"),
    "exponential": ((X, [1 + 1e3 * x**-6 for x in X], 90.0), "faster than a power law"),
    "straight": ((X, [9 - 0.1 * x for x in X], 80.0), "do not follow"),
    "logarithm": ((X, [5 - 0.05 * math.log(x) for x in X], 80.0), "no exponent"),
    "waves": ((X, [1.5 + 2 * x**-0.5 + 0.1 * math.sin(x / 4) for x in X], 90.0), "do not follow"),
    "not_annealed": ((X, LAW, 90.0, [0.0] * 60, 3.0), "has not fallen yet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_with_a_reason(case: str) -> None:
    arguments, reason = REFUSED[case]
    found = forecast(*arguments)
    assert reason in found.problem
    assert all(math.isnan(v) for v in found[:8])


def test_noise_alone_is_too_uncertain() -> None:
    assert "uncertain" in curve(0, 0.03, 40, 0.5, cosine=True)[0].problem


def test_wrong_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="as many"):
        forecast([1.0], [], 2.0)


def test_lr_sensitivity_of_equal_runs_is_nothing() -> None:
    assert lr_sensitivity([2.0, 2.0], 5.0) == 0
    assert lr_sensitivity([2.0, math.nan], 5.0) == 1.5  # as good as untrained
    assert lr_sensitivity([2.0, 9.0, 3.0], 5.0, [1e-3, 1e-2, 1.0]) == pytest.approx(
        (1 * 3.0 / 2 + 2 * 4.0 / 2) / 3
    )
    with pytest.raises(ValueError, match="ended in a number"):
        lr_sensitivity([math.nan], 5.0)
    with pytest.raises(ValueError, match="increasing"):
        lr_sensitivity([1.0, 2.0], 5.0, [1.0, 0.5])


# -------------------------------------------------------------------------------------- the curve
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40))
def test_points_are_means_over_equal_windows(window: int, steps: int) -> None:
    kept = LossCurve(window)
    for i in range(steps):
        kept.add_loss(torch.tensor(float(i)))
        kept.add_step(1.0)
        state = kept.state_dict()
        kept = LossCurve(9)
        kept.load_state_dict(copy.deepcopy(state))
    points = kept.read()
    assert len(points) == steps // window
    for k, point in enumerate(points):
        own = range(k * window, (k + 1) * window)
        assert point.begin == own[0]
        assert point.loss == pytest.approx(sum(own) / window)
        assert point.step == point.progress == pytest.approx(sum(own) / window + 1)


def test_neighbours_are_joined_where_points_are_many() -> None:
    kept = LossCurve(1)
    for i in range(5 * MOST):
        kept.add_loss(torch.tensor(float(i)))
        kept.add_step(1.0)
    points = kept.read()
    assert MOST // 2 <= len(points) < MOST
    assert [p.begin for p in points] == list(range(0, kept.window * len(points), kept.window))
    for p in points:
        assert p.loss == p.begin + (kept.window - 1) / 2


# ------------------------------------------------------------------------------------- schedulers
class First(nn.Module):
    """The loss that the step asks for."""

    scope = "rows"

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, 0]


BATCHES, EPOCHS = 24, 8


class Planted(LossMixin, L.LightningModule):
    """Has the loss of the annealing law at the rates that it was trained at, with 1 % of noise."""

    noise = 0.01

    def __init__(self, make: Any = None, rate: float = 0.5, **options: Any) -> None:
        super().__init__()
        self.make, self.rate, self.options = make, rate, options
        self.p = nn.Parameter(torch.zeros(()))
        self.loss = Objective({"planted": First()})
        self.rates: list[float] = []
        self.truth = math.nan

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rate = self.optimizers().param_groups[0]["lr"]
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.rates.append(rate)
        s1, s2 = learning_rate_sums(without_warmup(self.rates))
        law = annealing_law(s1, s2, 1.5, 3.0, 0.5, 3e-3)
        self.truth = float(law[-1])
        g = torch.Generator().manual_seed(len(self.rates))
        value = law[-1] * (1 + self.noise * torch.randn((), generator=g).double())
        return self.compute_loss(logits=(value + 0 * self.p).expand(4, 1))

    def on_save_checkpoint(self, checkpoint: Any) -> None:
        checkpoint["rates"] = list(self.rates)

    def on_load_checkpoint(self, checkpoint: Any) -> None:
        self.rates = list(checkpoint["rates"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([self.p], lr=self.rate)
        if self.make is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make(self, optimizer), **self.options},
        }

    def factor(self, step: int) -> float:
        return 1 / (1 + step / 50)

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.zeros(BATCHES, 1)), batch_size=1)


def warm_cosine(module: Any, optimizer: Any) -> Any:
    rise = s.LinearLR(optimizer, 0.01, 1.0, total_iters=20)
    fall = s.CosineAnnealingLR(optimizer, T_max=BATCHES * EPOCHS - 20)
    return s.SequentialLR(optimizer, [rise, fall], milestones=[20])


# A scheduler of each kind that keeps its state in a place of its own, each way to step it.
SCHEDULES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "warm_cosine": (warm_cosine, {"interval": "step"}, {}),
    "one_cycle": (
        lambda m, o: s.OneCycleLR(o, 1.0, total_steps=BATCHES * EPOCHS),
        {"interval": "step"},
        {},
    ),
    "bound_method": (lambda m, o: s.LambdaLR(o, m.factor), {"interval": "step"}, {}),
    "every_fifth": (lambda m, o: s.ExponentialLR(o, 0.9), {"interval": "step", "frequency": 5}, {}),
    "epochs": (lambda m, o: s.StepLR(o, 2, 0.5), {"interval": "epoch"}, {}),
    "third_epochs": (lambda m, o: s.ExponentialLR(o, 0.5), {"frequency": 3}, {}),
    "accumulated": (
        lambda m, o: s.CosineAnnealingLR(o, T_max=50),
        {"interval": "step"},
        {"accumulate_grad_batches": 5},
    ),
    "none": (None, {}, {}),
}  # fmt: skip


class Planner(L.Callback):
    """Plans from within and from the end of an epoch."""

    def __init__(self) -> None:
        self.plans: list[tuple[int, list[float]]] = []

    def on_train_batch_end(self, trainer: Any, module: Any, o: Any, b: Any, i: int) -> None:
        if trainer.global_step and (i == 14 or i == BATCHES - 1):
            before = copy.deepcopy([c.scheduler.state_dict() for c in trainer.lr_scheduler_configs])
            left = trainer.estimated_stepping_batches - trainer.global_step
            plan = planned_rates(trainer, trainer.current_epoch, i + 1, left)
            self.plans.append((trainer.global_step, plan))
            after = [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs]
            assert str(before) == str(after)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_planned_rates_are_those_that_come(name: str) -> None:
    make, options, trainer = SCHEDULES[name]
    planner = Planner()
    run = train(lambda: Planted(make, **options), [planner], max_epochs=4, **trainer)
    rates = run.module.rates
    assert len(planner.plans) == 8
    for step, plan in planner.plans:
        assert plan == pytest.approx(rates[step:], rel=1e-12)


# -------------------------------------------------------------------------------------- callbacks
def keys(metrics: Any) -> set[str]:
    return {key for key in metrics if key.startswith("forecast/")}


EVERY = {f"forecast/{key}" for key in ("loss", "low", "high", "residual")}


@pytest.mark.parametrize("name", ["warm_cosine", "bound_method", "none"])
def test_forecasts_the_end_of_a_planned_training(name: str) -> None:
    make, options, _ = SCHEDULES[name]
    told: list[Forecast] = []

    class Listen(L.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            told.append(monitor.forecast)
            assert (keys(trainer.callback_metrics) == EVERY) == any(not f.problem for f in told)

    monitor = ScalingForecast(every_n_steps=3)
    factory = lambda: Planted(make, **options)  # noqa: E731
    if name == "warm_cosine":
        own = "forecast/"
        run = train_twice(factory, [monitor, Listen()], own=own, max_epochs=EPOCHS)
    else:
        run = train(factory, [monitor, Listen()], max_epochs=EPOCHS)
    end = run.module.truth
    assert told[0].problem  # 8 points
    given = [f for f in told if not f.problem]
    assert len(given) >= 4
    # 90 % each, and neighbours agree; none far off.
    assert sum(f.low <= end <= f.high for f in given) >= len(given) - 1
    assert given[-1].loss == pytest.approx(end, rel=0.01)
    assert run.trainer.callback_metrics["forecast/loss"] == pytest.approx(monitor.forecast.loss)


def test_a_resumed_forecast_is_the_same(tmp_path: Path) -> None:
    make, options, _ = SCHEDULES["warm_cosine"]
    factory, path = lambda: Planted(make, **options), tmp_path / "x.ckpt"

    class Save(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 5 * BATCHES + 7:  # within a window, within an epoch
                trainer.save_checkpoint(path)

    whole, again = ScalingForecast(every_n_steps=3), ScalingForecast(every_n_steps=3)
    train(factory, [whole, Save()], max_epochs=7)
    train(factory, [again], max_epochs=7, ckpt_path=path)
    assert not whole.problem
    require_equal("state", whole.state_dict(), again.state_dict())


def said(recwarn: pytest.WarningsRecorder) -> list[str]:
    return [str(w.message) for w in recwarn if "ScalingForecast" in str(w.message)]


@pytest.mark.parametrize(
    ("make", "options", "reason"),
    [
        (lambda m, o: s.ReduceLROnPlateau(o), {"monitor": "train/loss"}, "ReduceLROnPlateau waits"),
        (lambda m, o: Odd(o), {"interval": "step"}, "cannot be copied"),
    ],
    ids=["plateau", "odd"],
)
def test_an_unknown_plan_is_a_power_law(
    make: Any, options: Any, reason: str, recwarn: pytest.WarningsRecorder
) -> None:
    monitor = ScalingForecast(every_n_steps=3)
    run = train(lambda: Planted(make, **options), [monitor], max_epochs=7)
    assert len(said(recwarn)) == 1
    assert reason in said(recwarn)[0]
    assert monitor.forecast.loss == pytest.approx(run.module.truth, rel=0.02)


class Odd(s.LRScheduler):
    """Keeps a generator, which cannot be copied."""

    def __init__(self, optimizer: Any) -> None:
        self.odd = (i for i in range(9))
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


def test_rates_that_change_without_a_scheduler(recwarn: pytest.WarningsRecorder) -> None:
    class Fall(L.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.optimizers[0].param_groups[0]["lr"] *= 0.9

    train(Planted, [ScalingForecast(every_n_steps=3), Fall()], max_epochs=4)
    assert "changes without a scheduler" in said(recwarn)[0]


def test_one_that_comes_late_says_so(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    train(Planted, max_epochs=1).trainer.save_checkpoint(tmp_path / "x.ckpt")
    monitor = ScalingForecast(every_n_steps=3)
    run = train(Planted, [monitor], max_epochs=6, ckpt_path=tmp_path / "x.ckpt")
    assert "before step 24 are not known" in said(recwarn)[0]
    assert monitor.forecast.loss == pytest.approx(run.module.truth, rel=0.02)


def test_without_a_forecast_the_end_says_why(recwarn: pytest.WarningsRecorder) -> None:
    run = train(Planted, [ScalingForecast()], max_epochs=2)
    assert not keys(run.trainer.callback_metrics)
    (text,) = said(recwarn)
    assert "4 points after the warm-up; it takes 20" in text


def test_without_an_end_there_is_none(recwarn: pytest.WarningsRecorder) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.should_stop = trainer.current_epoch >= 5

    train(Planted, [ScalingForecast(every_n_steps=3), Stop()], max_epochs=-1)
    assert "plans no end" in said(recwarn)[0]


def test_validation_tells_too() -> None:
    class Validated(Planted):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def val_dataloader(self) -> Any:
            return self.train_dataloader()

    monitor, asked = ScalingForecast(every_n_steps=1), []

    class Listen(L.Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            asked.append((trainer.global_step, keys(trainer.callback_metrics)))

    train(
        Validated, [monitor, Listen()], max_epochs=2, val_check_interval=12, num_sanity_val_steps=1
    )
    assert [step for step, _ in asked] == [0, 12, 24, 36, 48]
    assert asked[1][1] == set()
    assert asked[-1][1] == EVERY


def test_manual_optimisation_counts_batches(recwarn: pytest.WarningsRecorder) -> None:
    class Manual(Planted):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss)
            if batch_idx % 2:
                self.optimizers().step()

    for options in ({"max_epochs": 6}, {"max_epochs": 99, "max_steps": 72}):
        monitor = ScalingForecast(every_n_steps=3)
        run = train(Manual, [monitor], **options)
        assert run.trainer.global_step == 72
        assert monitor.curve.sums.steps == 144
        assert not monitor.problem
        assert monitor.forecast.loss == pytest.approx(run.module.truth, rel=0.02)
    assert not said(recwarn)


def test_arguments_are_checked_and_names_live_together() -> None:
    with pytest.raises(ValueError, match="every_n_steps"):
        ScalingForecast(every_n_steps=0)
    with pytest.raises(ValueError, match="decay"):
        ScalingForecast(decay=0.0)
    assert ScalingForecast().state_key != ScalingForecast(name="other").state_key
    assert issubclass(Unplanned, Exception)
