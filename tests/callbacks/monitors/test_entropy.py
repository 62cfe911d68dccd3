# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The entropy monitor against entropies by hand, its alerts, and both monitors on two ranks."""

from __future__ import annotations

import csv
import math
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from training import require_config_is_the_class

from lightning_losses import LossMixin, LossRecord, SoftmaxStats, build_objective
from lightning_losses.callbacks import CalibrationMonitor, EntropyMonitor
from lightning_losses.callbacks.entropy_parts.statistics import merge, sketch
from lightning_losses.callbacks.monitors.calibration import LOGGED
from lightning_losses.callbacks.reading import mean_prediction as marginal_file
from lightning_losses.callbacks.reading.mean_prediction import prediction_sums, spread
from lightning_losses.metrics.entropy.token_covariance import (
    moments,
    pooled_covariance,
    pooled_difference,
)

IGNORED = -100
BATCH, CLASSES, WIDTH = 16, 5, 6


class Classifier(LossMixin, L.LightningModule):
    """A linear classifier that remembers the logits of every training step."""

    def __init__(self, route: str = "logits", lr: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(4, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.loss = build_objective("ce")
        self.route, self.lr = route, lr
        self.steps: list[tuple[Tensor, Tensor]] = []

    def compute(self, batch: Any) -> Tensor:
        x, y = batch
        hidden = self.body(x)
        if self.training:
            self.steps.append((self.head(hidden).detach(), y))
        if self.route == "logits":
            return self.compute_loss(logits=self.head(hidden), target=y)
        return self.compute_loss(
            hidden=hidden, head_weight=self.head.weight, head_bias=self.head.bias, target=y
        )

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.compute(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.compute(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Heard(EntropyMonitor):
    """Keeps what it publishes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heard: list[tuple[int, dict[str, float]]] = []

    def publish(self, trainer: L.Trainer, values: Mapping[str, Tensor | float]) -> None:
        numbers = {key: float(value) for key, value in values.items()}
        self.heard.append((self._measured_step, numbers))
        if isinstance(trainer, L.Trainer):
            super().publish(trainer, values)


def data(n: int = 4 * BATCH, seed: int = 0) -> TensorDataset:
    """Something to learn; a quarter is ignored, unevenly over batches and (even, odd) ranks."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g) * 2
    y = (x @ torch.randn(4, CLASSES, generator=g)).argmax(1)
    y[torch.rand(n, generator=g) < torch.where(torch.arange(n) % 2 == 0, 0.4, 0.1)] = IGNORED
    return TensorDataset(x, y)


def loader(dataset: Any = None, batch_size: int = BATCH) -> DataLoader[Any]:
    return DataLoader(data() if dataset is None else dataset, batch_size=batch_size)


def trainer(*callbacks: L.Callback, **kwargs: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
    }
    return L.Trainer(callbacks=list(callbacks), **(quiet | kwargs))


# ------------------------------------------------------------------ the slow, obvious reference
def row_entropy(z: list[float]) -> float:
    total = sum(math.exp(v) for v in z)
    return -sum(math.exp(v) / total * math.log(math.exp(v) / total) for v in z)


def by_hand(logits: Tensor, target: Tensor, name: str = "entropy") -> dict[str, float]:
    rows = zip(logits.double().tolist(), target.tolist(), strict=True)
    h = [row_entropy(z) for z, y in rows if y != IGNORED]
    # Quantile q: the smallest value with at least a fraction q of the rows at or below it.
    ordered = sorted(h)
    out = {f"p{q}": next(v for i, v in enumerate(ordered) if 100 * (i + 1) >= q * len(h))
           for q in (10, 50, 90)}  # fmt: skip
    out |= {"mean": sum(h) / len(h), "effective_classes": sum(math.exp(v) for v in h) / len(h)}
    return {f"{name}/{key}": value for key, value in (out | {"rows": len(h)}).items()}


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=2e-5, abs=1e-6)


# ------------------------------------------------------------------ training runs
@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_logs_what_the_logits_say_at_due_steps(route: str) -> None:
    # 8 steps, of which 0, 3, 6 are due; baseline: the mean at 0, or the median of those at 3 and 6.
    monitor = Heard(every_n_steps=3, warmup_steps=1, baseline_measurements=2)
    module = Classifier(route)
    trainer(monitor).fit(module, loader())
    assert [step for step, _ in monitor.heard] == [0, 3, 6]
    for step, numbers in monitor.heard:
        agree(numbers, by_hand(*module.steps[step]))
        assert numbers["entropy/alert"] == 0
    assert ["entropy/ratio" in numbers for _, numbers in monitor.heard] == [False, False, True]
    first, *means = [by_hand(*module.steps[step])["entropy/mean"] for step in (0, 3, 6)]
    assert monitor.heard[-1][1]["entropy/ratio"] == pytest.approx(
        means[1] / max(first, statistics.median(means)), rel=2e-5
    )


def test_values_reach_the_logger(tmp_path: Path) -> None:
    monitor = Heard(every_n_steps=2)
    run = trainer(monitor, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    run.fit(Classifier(), loader())
    with open(Path(run.log_dir) / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["entropy/mean"]]
    written = {int(row["step"]): float(row["entropy/mean"]) for row in rows}
    assert all(written[step] == pytest.approx(v["entropy/mean"]) for step, v in monitor.heard)


def test_the_first_batch_of_an_accumulated_step_is_measured() -> None:
    monitor = Heard(every_n_steps=1)
    module = Classifier()
    trainer(monitor, accumulate_grad_batches=2).fit(module, loader())
    assert [step for step, _ in monitor.heard] == [0, 1, 2, 3]
    for (_, numbers), batch in zip(monitor.heard, module.steps[::2], strict=True):
        agree(numbers, by_hand(*batch))


@pytest.mark.parametrize("first", [True, False])
def test_a_batch_without_rows_that_count(first: bool) -> None:
    x, y = (t.clone() for t in data().tensors)
    y[:BATCH] = IGNORED if first else y[:BATCH]
    y[BATCH : 2 * BATCH] = y[BATCH : 2 * BATCH] if first else IGNORED
    monitor = Heard(every_n_steps=1, warmup_steps=0, baseline_measurements=2, mode="policy")
    module = Classifier()
    trainer(monitor, max_epochs=1).fit(module, loader(TensorDataset(x, y)))
    empty, before = (0, None) if first else (1, 0)
    numbers = monitor.heard[empty][1]
    assert all(math.isfinite(value) for _, heard in monitor.heard for value in heard.values())
    assert numbers["entropy/rows"] == 0
    for key in ("mean", "p10", "p50", "p90", "effective_classes"):
        last = 0 if before is None else monitor.heard[before][1][f"entropy/{key}"]
        assert numbers[f"entropy/{key}"] == last
    # The baseline waits for a second measurement with rows: the third of four.
    assert ["entropy/ratio" in heard for _, heard in monitor.heard] == [False, False, True, True]


# Stopped at step 8 of 12 with the baseline half collected (0, 3, 6 of 4), and with an alarm
# half counted: entropy falls at once, so from step 3 on the ratio is below a warn_ratio of 1.
RESUMED = [
    {"every_n_steps": 3, "warmup_steps": 0, "baseline_measurements": 4},
    {
        "every_n_steps": 2, "mode": "policy", "warmup_steps": 0, "baseline_measurements": 1,
        "patience": 4, "warn_ratio": 1.0, "critical_ratio": 0.0, "critical_classes": 1.0,
    },
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:EntropyMonitor. policy entropy")
@pytest.mark.parametrize("options", RESUMED)
def test_resuming_is_going_on(tmp_path: Path, options: dict[str, Any]) -> None:
    straight = Heard(**options)
    trainer(straight, max_epochs=3).fit(Classifier(), loader())

    half, rest = Heard(**options), Heard(**options)
    stopped = trainer(half, max_epochs=2)
    stopped.fit(Classifier(), loader())
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    trainer(rest, max_epochs=3).fit(Classifier(), loader(), ckpt_path=tmp_path / "half.ckpt")
    assert half.heard + rest.heard == straight.heard
    assert rest.state_dict() == straight.state_dict()
    assert rest.heard
    if options.get("mode") == "policy":
        assert [v["entropy/alert"] for _, v in straight.heard] == [0, 0, 0, 0, 1, 1]
    else:
        assert "entropy/ratio" in rest.heard[-1][1]


@pytest.mark.filterwarnings("ignore:EntropyMonitor. at validation")
@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_monitors_change_no_bit_of_training(route: str) -> None:
    bare, watched = Classifier(route), Classifier(route)
    validation = loader(data(seed=1))
    trainer().fit(bare, loader(), validation)
    monitors = (Heard(every_n_steps=2), CalibrationMonitor())
    trainer(*monitors).fit(watched, loader(), validation)
    assert monitors[0].heard
    for name, value in bare.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_another_training_has_a_baseline_of_its_own() -> None:
    def fit(monitor: Heard, lr: float) -> None:
        trainer(monitor).fit(Classifier(lr=lr), loader(), loader())

    options = {"every_n_steps": 1, "warmup_steps": 0, "baseline_measurements": 4}
    used, fresh = Heard(**options), Heard(**options)
    fit(used, 0.5)
    before, used.heard = used.judge.baseline.value, []
    fit(used, 0.1)
    fit(fresh, 0.1)
    assert used.heard == fresh.heard
    assert used.baseline == fresh.baseline
    assert used.judge.baseline.value != before
    assert used.state_dict() == fresh.state_dict()


def test_two_monitors_in_one_trainer(tmp_path: Path) -> None:
    often = Heard(every_n_steps=1, warmup_steps=0, baseline_measurements=1)
    rarely = Heard(every_n_steps=4, warmup_steps=4, baseline_measurements=1, name="late")
    module = Classifier()
    run = trainer(often, rarely)
    run.fit(module, loader())
    assert [step for step, _ in often.heard] == list(range(8))
    assert [step for step, _ in rarely.heard] == [0, 4]
    agree(rarely.heard[1][1], by_hand(*module.steps[4], name="late"))
    assert run.callback_metrics["entropy/mean"] != run.callback_metrics["late/mean"]
    run.save_checkpoint(tmp_path / "both.ckpt")
    saved = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    assert saved[often.state_key]["baseline"] != saved[rarely.state_key]["baseline"]


class Regressor(Classifier):
    """Real-valued targets: nothing has an entropy."""

    def __init__(self) -> None:
        super().__init__(lr=0.01)
        term = {"_target_": "torch.nn.MSELoss", "reduction": "none", "inputs": {"input": "logits"}}
        self.loss = build_objective({"mse": term})

    def compute(self, batch: Any) -> Tensor:
        x, y = batch
        return self.compute_loss(
            logits=self.head(self.body(x))[:, 0], target=y.clamp(min=0).float()
        )


def test_without_classes_it_says_so_once_and_trains_on() -> None:
    monitor = Heard(every_n_steps=1)
    with pytest.warns(UserWarning, match="no class logits") as caught:
        trainer(monitor).fit(Regressor(), loader())
    assert len([w for w in caught if "no class logits" in str(w.message)]) == 1
    assert not monitor.heard


# ------------------------------------------------------------------ alerts, on records made by hand
def record(entropy: Any, valid: Any = None, device: str = "cpu") -> LossRecord:
    h = torch.tensor(entropy, dtype=torch.float32, device=device)
    mask = None if valid is None else torch.tensor(valid, dtype=torch.bool, device=device)
    zero = torch.zeros((), device=device)
    return LossRecord(zero, {}, {}, zero, len(h), SoftmaxStats(entropy=h, valid=mask))


def feed(monitor: Heard, records: list[LossRecord], start: int = 0) -> list[dict[str, float]]:
    """Show a monitor one record a step, by the hooks that Lightning calls."""
    strategy = SimpleNamespace(all_gather=lambda packed: packed)
    module = SimpleNamespace(loss=build_objective("ce"), loss_record=None)
    for step, shown in enumerate(records, start):
        fake: Any = SimpleNamespace(
            global_step=step, world_size=1, strategy=strategy, is_global_zero=True, loggers=[]
        )
        monitor.on_train_batch_start(fake, module, None, step)  # type: ignore[arg-type]
        module.loss_record = shown
        monitor.on_train_batch_end(fake, module, None, None, step)  # type: ignore[arg-type]
    return [numbers for _, numbers in monitor.heard[-len(records) :]]


def policy(**options: Any) -> Heard:
    """A baseline of 2 nats from the first measurement, alarms after 2 in a row."""
    defaults = {"every_n_steps": 1, "warmup_steps": 0, "baseline_measurements": 1, "patience": 2}
    return Heard(mode="policy", **(defaults | options))


def alerts(monitor: Heard, means: list[float], start: int = 0) -> tuple[list[int], list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        heard = feed(monitor, [record([m, m, m]) for m in means], start)
    said = [str(w.message) for w in caught if "EntropyMonitor" in str(w.message)]
    return [int(numbers["entropy/alert"]) for numbers in heard], said


# Means in nats with a baseline of 2, so 1 is warn_ratio, 0.4 critical_ratio, 4 explosion_ratio;
# the way back is at 1.2, 0.48 and 4 / 1.2 = 3.33.
SEQUENCES = {
    "steady": ([2, 2.2, 1.5, 1.1, 1.01], [0, 0, 0, 0, 0], 0),
    "not long enough": ([2, 0.9, 1.1, 0.9, 1.1], [0, 0, 0, 0, 0], 0),
    "collapse": ([2, 0.9, 0.9, 0.9, 0.9], [0, 0, 1, 1, 1], 1),
    "band holds": ([2, 0.9, 0.9, 1.1, 1.1, 0.9, 0.9], [0, 0, 1, 1, 1, 1, 1], 1),
    "recovers, again": ([2, 0.9, 0.9, 1.3, 0.9, 0.9], [0, 0, 1, 0, 0, 1], 2),
    "warning, then critical": ([2, 0.9, 0.9, 0.3, 0.3, 0.3], [0, 0, 1, 1, 2, 2], 2),
    "critical at once": ([2, 0.3, 0.3, 0.3], [0, 0, 2, 2], 1),
    "critical band": ([2, 0.3, 0.3, 0.45, 0.5, 1.3], [0, 0, 2, 2, 1, 0], 1),
    "explosion": ([2, 4.1, 4.1, 3.5, 3.3, 2], [0, 0, 1, 1, 0, 0], 1),
    "explosion then collapse": ([2, 5, 5, 0.9, 0.9], [0, 0, 1, 0, 1], 2),
}


@pytest.mark.parametrize("case", SEQUENCES, ids=str)
def test_policy_alerts(case: str) -> None:
    means, tiers, warned = SEQUENCES[case]
    found, said = alerts(policy(), means)
    assert found == tiers
    assert len(said) == warned, said


def test_what_the_first_steps_did_is_not_the_baseline() -> None:
    # Warm-up and baseline both lie behind the fall: the median of 3.9, 3.5, 0.6, ... would be 0.3.
    fall = [3.9, 3.5, 0.6] + [0.3] * 9
    slow = {"warmup_steps": 2, "baseline_measurements": 5, "patience": 3}
    found, said = alerts(policy(**slow), fall)
    assert found == [0] * 4 + [2] * 8
    assert "collapsed critically at step 4" in said[0]
    assert "0.08 of its baseline" in said[0]
    found, said = alerts(policy(**slow), [0.2, 0.9, 2.5] + [3.0] * 9)
    assert found == [0] * 4 + [1] * 8
    assert "exploded at step 4" in said[0]
    assert "15.00 of its baseline" in said[0]
    # A first batch of which no row counts, or that is odd, is not what later ones are held to.
    monitor = policy(**slow)
    feed(monitor, [record([9.0], [False])] + [record([2.0]) for _ in range(9)])
    assert monitor.baseline == 2
    assert alerts(policy(**slow), [1.2] + [2.0] * 9)[0] == [0] * 10


def test_a_checkpoint_keeps_what_training_began_with() -> None:
    before, after = policy(baseline_measurements=4), policy(baseline_measurements=4)
    feed(before, [record([3.0]), record([0.5])])
    after.load_state_dict(before.state_dict())
    assert alerts(after, [0.5] * 4, start=2)[0] == [2, 2, 2, 2]
    assert after.baseline == 3


def test_the_hard_floor_needs_no_fall() -> None:
    # A model that starts out collapsed has a ratio of 1; only the number of classes tells: on below
    # 1.05 = e^0.049, off from 1.06 = e^0.058.
    found, said = alerts(policy(), [0.04, 0.04, 0.055, 0.06])
    assert found == [0, 2, 2, 0]
    assert "critically" in said[0]


def test_no_alert_within_the_warm_up() -> None:
    found, said = alerts(policy(warmup_steps=3), [2, 0.01, 0.01, 2, 0.9, 0.9])
    assert found == [0, 0, 0, 0, 0, 1]
    assert len(said) == 1


def test_a_model_without_entropy_at_first_has_a_finite_ratio() -> None:
    monitor = policy()
    heard = feed(monitor, [record([0.0]), record([0.0])])
    assert heard[1]["entropy/ratio"] == 0


def test_the_message_says_what_was_found() -> None:
    _, said = alerts(policy(), [2, 0.9, 0.9])
    for part in ("step 2", "0.9 nats", "0.45 of its baseline", "2 measurements", "entropy/mean"):
        assert part in said[0]


def test_falling_entropy_is_success_in_supervised_training() -> None:
    monitor = Heard(every_n_steps=1, warmup_steps=0, baseline_measurements=1, patience=1)
    found, said = alerts(monitor, [2, 0.9, 0.3, 0.01, 0.0, 9.0])
    assert (found, said) == ([0] * 6, [])


@pytest.mark.parametrize("mode", ["supervised", "policy"])
def test_nan_rows_are_left_out_and_told_once(mode: Any) -> None:
    nan = math.nan
    monitor = Heard(mode=mode, every_n_steps=1, warmup_steps=0, baseline_measurements=4)
    shown = [
        record([1.0, 2.0]),
        record([1.0, nan, 3.0, nan], [True, True, True, False]),  # the ignored NaN is nobody's
        record([nan, nan]),
        record([nan, 1.0], [False, True]),
        record([nan, 1.0]),
    ]
    with pytest.warns(UserWarning, match="entropy of NaN") as caught:
        heard = feed(monitor, shown)
    assert [h["entropy/alert"] for h in heard] == [0, 2, 2, 0, 2]
    assert [h["entropy/mean"] for h in heard] == [1.5, 2.0, 2.0, 1.0, 1.0]
    assert [h["entropy/rows"] for h in heard] == [2, 2, 0, 1, 1]
    # Told at the first, not at the second in a row, told again after a healthy one.
    counts = [str(w.message).split()[1] for w in caught if "NaN" in str(w.message)]
    assert counts == ["1", "1"]
    # Four measurements had rows: 1.5, 2, 1, 1.
    assert monitor.judge.baseline.value == pytest.approx(1.25)
    assert monitor.baseline == pytest.approx(1.5)


def test_supervised_mode_never_waits_for_the_device() -> None:
    # A meta tensor has no numbers: whatever would read one back raises.
    monitor = EntropyMonitor(every_n_steps=1, warmup_steps=0)
    published: list[set[str]] = []
    monitor.publish = lambda trainer, values: published.append(set(values))  # type: ignore[method-assign]
    shown = record([1.0] * 8, [True] * 8, device="meta")
    monitor.heard = []  # type: ignore[attr-defined]
    # A record of its own each: one that was seen before is not measured again.
    feed(monitor, [shown.detach() for _ in range(3)])  # type: ignore[arg-type]
    assert len(published) == 3
    assert "entropy/alert" in published[0]
    with pytest.raises((RuntimeError, NotImplementedError)):  # and this is how reading one ends
        feed(EntropyMonitor(mode="policy", every_n_steps=1), [shown])  # type: ignore[arg-type]


def test_on_an_accelerator_nan_is_told_when_waiting_is_free() -> None:
    monitor = EntropyMonitor()
    for moment in (monitor.on_validation_start, monitor.on_train_epoch_end):
        monitor.judge.bad, monitor.judge.told = torch.tensor(3.0), False
        with pytest.warns(UserWarning, match="3 rows"):
            moment(SimpleNamespace(is_global_zero=True, loggers=[]), None)  # type: ignore[arg-type]


# ------------------------------------------------------------------ the mean prediction and NLL - H
def nll_gap(logits: Tensor, target: Tensor) -> float:
    rows = [(z, y) for z, y in zip(logits.tolist(), target.tolist(), strict=True) if y != IGNORED]
    nll = [math.log(sum(math.exp(v) for v in z)) - z[y] for z, y in rows]
    return statistics.fmean(nll) - statistics.fmean(row_entropy(z) for z, _ in rows)


def mean_prediction(logits: Tensor) -> tuple[list[float], float]:
    p = logits.double().softmax(1).mean(0).tolist()
    return p, -sum(v * math.log(v) for v in p if v)


@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_marginal_and_gap_by_hand(route: str) -> None:
    """The head of hidden states is the one before the update, and every row is looked at."""
    monitor, module = Heard(every_n_steps=2), Classifier(route)
    trainer(monitor).fit(module, loader())
    for step, numbers in monitor.heard:
        z, y = module.steps[step]
        _, entropy = mean_prediction(z[y != IGNORED])
        assert numbers["entropy/marginal"] == pytest.approx(entropy, rel=1e-5)
        assert numbers["entropy/marginal_classes"] == pytest.approx(math.exp(entropy), rel=1e-5)
        if step:  # at the first, nobody knows yet whether targets are classes
            expected = nll_gap(z.double(), y)
            assert numbers["entropy/nll_gap"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert "entropy/token_covariance" not in monitor.heard[-1][1]


@pytest.mark.filterwarnings("ignore:EntropyMonitor. at validation")
def test_gap_of_validation_epochs_by_hand() -> None:
    """Over all batches (of unequal size) together, and no sanity check."""
    validation = data(2 * BATCH + 5, seed=3)
    monitor, module = EntropyMonitor(every_n_steps=1), Classifier()
    run = trainer(monitor, max_epochs=1)
    run.fit(module, loader(), loader(validation))
    x, y = validation.tensors
    z = module.head(module.body(x)).detach().double()
    assert float(run.callback_metrics["entropy/val_nll_gap"]) == pytest.approx(nll_gap(z, y))


def labelled(p: list[float], target: list[int], hold: bool = True) -> LossRecord:
    """Rows that all predict p, with labels."""
    z = torch.tensor(p).log().expand(len(target), -1)
    y = torch.tensor(target)
    h = torch.distributions.Categorical(logits=z).entropy()
    captured = {"logits": z, "target": y} if hold else {"logits": z}
    zero = torch.zeros(())
    stats = SoftmaxStats(entropy=h, log_prob=z.gather(1, y[:, None])[:, 0])
    return LossRecord(zero, {}, {}, zero, len(y), stats, captured)


def supervised(**options: Any) -> Heard:
    defaults = {"every_n_steps": 1, "warmup_steps": 0, "patience": 2}
    return Heard(**(defaults | options))


def tiers(monitor: Heard, records: list[LossRecord]) -> tuple[list[int], list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        heard = feed(monitor, records)
    said = [str(w.message) for w in caught if "EntropyMonitor" in str(w.message)]
    return [int(numbers["entropy/alert"]) for numbers in heard], said


BALANCED = [0, 1, 2, 3] * 4
ONE, EVEN = [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]


def test_one_class_for_every_input_is_critical() -> None:
    """e^M of ONE is 1.18 of the 4 classes that labels have; patience 2, back at 0.6 of them."""
    shown = [ONE, ONE, ONE, EVEN, ONE]
    found, said = tiers(supervised(warn_gap=9.0), [labelled(p, BALANCED) for p in shown])
    assert found == [0, 2, 2, 0, 0]
    assert len(said) == 1
    assert "0.30 of the classes that it should" in said[0]


def test_one_class_is_right_where_labels_have_one() -> None:
    found, said = tiers(supervised(), [labelled(ONE, [0] * 16) for _ in range(4)])
    assert (found, said) == ([0] * 4, [])


def test_without_labels_it_takes_rows_enough() -> None:
    """5 rows a class; 16 rows of 4 classes are too few to tell, 20 are not."""
    few, many = ([labelled(ONE, [0] * n, hold=False) for _ in range(3)] for n in (16, 20))
    assert tiers(supervised(), few)[0] == [0, 0, 0]
    assert tiers(supervised(), many)[0] == [0, 2, 2]


def test_overconfidence_warns() -> None:
    """Sure of class 0 (EVEN labels): NLL is 3.46, H 0.17. A calibrated 0.25 each has no gap."""
    shown = [labelled(p, BALANCED) for p in (EVEN, ONE, ONE, ONE, EVEN)]
    found, said = tiers(supervised(critical_share=0.0), shown)
    assert found == [0, 0, 1, 1, 0]
    assert len(said) == 1
    assert "above 0.3 for 2" in said[0]


def test_validation_epochs_alert_after_two() -> None:
    monitor = supervised()
    run: Any = SimpleNamespace(current_epoch=3, is_global_zero=True, loggers=[])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for gap in (0.4, 0.2, 0.4, 0.4, 0.4):
            monitor.judge_gap(run, gap)
    assert len(caught) == 1
    assert monitor.judge.rules.tier == 1
    policy().judge_gap(run, 9.0)  # says nothing of a policy


@pytest.mark.parametrize(
    ("action", "stops", "warned"), [("log", 0, 0), ("warn", 0, 1), ("stop", 1, 1)]
)
def test_a_tier_does_what_it_is_told(action: Any, stops: int, warned: int) -> None:
    monitor = policy(on_warning="log", on_critical=action)
    strategy = SimpleNamespace(all_gather=lambda packed: packed)
    run: Any = SimpleNamespace(
        world_size=1, strategy=strategy, is_global_zero=True, loggers=[], should_stop=False
    )
    module: Any = SimpleNamespace(loss=build_objective("ce"), loss_record=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, mean in enumerate([2.0, 0.9, 0.9, 0.1, 0.1]):
            run.global_step = step
            monitor.on_train_batch_start(run, module, None, step)
            module.loss_record = record([mean])
            monitor.on_train_batch_end(run, module, None, None, step)
    assert len([w for w in caught if "EntropyMonitor" in str(w.message)]) == warned
    assert run.should_stop == bool(stops)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 12))
def test_rows_are_evenly_spread_over_those_that_count(valid: list[bool], size: int) -> None:
    size = min(size, len(valid))
    index, use = spread(
        torch.tensor(valid, dtype=torch.bool), len(valid), size, torch.device("cpu")
    )
    kept = [i for i, u in zip(index.tolist(), use.tolist(), strict=True) if u]
    counted = [i for i, v in enumerate(valid) if v]
    assert len(kept) == len(set(kept)) == min(size, len(counted))
    places = [counted.index(i) for i in kept]
    gaps = np.diff([*places, len(counted)]) if places else [0]
    assert max(gaps) <= math.ceil(len(counted) / max(len(kept), 1))


def test_hidden_states_become_logits_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    hidden, head, bias = (torch.randn(*s, generator=g) for s in ((30, 4), (7, 4), (7,)))
    temperature, target = torch.rand(30, generator=g) + 0.5, torch.arange(30) % 7
    captured = {
        "hidden": hidden, "head_weight": head, "head_bias": bias, "temperature": temperature,
        "softcap": 3.0, "logit_scale": 2.0, "target": target,
    }  # fmt: skip
    shown = replace(record([0.0] * 30), captured=captured)
    whole = prediction_sums(shown, 30)
    z = 3 * torch.tanh((hidden @ head.T + bias) * 2 / 3) / temperature[:, None]
    assert whole is not None
    torch.testing.assert_close(whole[0, :-1], z.softmax(1).sum(0))
    assert whole[:, -1].tolist() == [30, 30]
    assert whole[1, :-1].tolist() == torch.bincount(target).tolist()
    monkeypatch.setattr(marginal_file, "BLOCK", 7 * 4)
    blocks = prediction_sums(shown, 30)
    assert blocks is not None
    torch.testing.assert_close(blocks, whole)


# ------------------------------------------------------------------ advantage and log p
class Actor(Classifier):
    """Advantages of actions, which are the labels."""

    def __init__(self, route: str = "logits") -> None:
        super().__init__(route)
        self.loss = build_objective("ppo_clip")

    def compute(self, batch: Any) -> Tensor:
        x, y = batch
        hidden = self.body(x)
        z = self.head(hidden)
        self.steps.append((z.detach(), y))
        lp = z.detach().log_softmax(1).gather(1, y.clamp(min=0)[:, None])[:, 0]
        return self.compute_loss(logits=z, target=y, old_log_prob=lp, advantage=x[:, 0])


def test_token_covariance_by_hand() -> None:
    monitor, module = Heard(mode="policy", every_n_steps=3), Actor()
    trainer(monitor).fit(module, loader())
    x = data().tensors[0][:, 0].reshape(-1, BATCH)
    for step, numbers in monitor.heard:
        z, y = module.steps[step]
        rows = [
            (a, float(v.log_softmax(0)[k]))
            for a, v, k in zip(x[step % 4].tolist(), z, y.tolist(), strict=True)
            if k != IGNORED
        ]
        a, lp = (statistics.fmean(side) for side in zip(*rows, strict=True))
        expected = statistics.fmean((u - a) * (v - lp) for u, v in rows)
        assert numbers["entropy/token_covariance"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert "entropy/nll_gap" not in numbers


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.booleans()), max_size=8),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0.0, 1e4]),
)
def test_moments_of_ranks_are_those_of_all_rows(ranks: list[Any], far: float) -> None:
    """Also where means are far larger than spreads."""
    parts = []
    for rank in ranks:
        a, b = (torch.tensor([row[i] + far for row in rank], dtype=torch.float64) for i in (0, 1))
        parts.append(moments(a, b, torch.tensor([row[2] for row in rank], dtype=torch.bool)))
    kept = [(a + far, b + far) for rank in ranks for a, b, use in rank if use]
    covariance = difference = 0.0
    if kept:
        mean_a, mean_b = (statistics.fmean(side) for side in zip(*kept, strict=True))
        covariance = statistics.fmean((a - mean_a) * (b - mean_b) for a, b in kept)
        difference = mean_a - mean_b
    together = torch.stack(parts)
    assert float(pooled_covariance(together)) == pytest.approx(covariance, abs=1e-7)
    assert float(pooled_difference(together)) == pytest.approx(difference, abs=1e-7)


# ------------------------------------------------------------------ quantiles across ranks
finite = st.floats(0, 12, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(finite, st.booleans()), max_size=30), min_size=1, max_size=3))
def test_quantiles_are_exact_up_to_the_size_of_a_sketch(ranks: list[Any]) -> None:
    def told(rows: list[Any]) -> Tensor:
        h = torch.tensor([v for v, _ in rows], dtype=torch.float32)
        return sketch(h, torch.tensor([k for _, k in rows], dtype=torch.bool), 30)

    values, rows, bad = merge(torch.stack([told(rank) for rank in ranks]))
    kept = [v for rank in ranks for v, keep in rank if keep]
    assert (int(rows), int(bad)) == (len(kept), 0)
    if kept:
        h = np.array(kept, dtype=np.float32)
        exact = np.quantile(h, [0.1, 0.5, 0.9], method="inverted_cdf")
        assert values[2:].tolist() == exact.tolist()
        assert values[0] == pytest.approx(h.mean(dtype=np.float64), rel=1e-5, abs=1e-6)


def test_quantiles_of_more_rows_than_a_sketch_holds() -> None:
    # Ranks of unequal size and range, 8 values told of each: off by 1 / 16 of the rows at most.
    g = torch.Generator().manual_seed(0)
    rows = [torch.rand(997, generator=g).sqrt(), 1 + torch.rand(101, generator=g)]
    values, count, _ = merge(torch.stack([sketch(h, None, 8) for h in rows]))
    together = torch.cat(rows)
    assert int(count) == 1098
    for q, value in zip((0.1, 0.5, 0.9), values[2:], strict=True):
        assert abs(float((together <= value).float().mean()) - q) <= 1 / 16 + 1e-3
    assert values[0] == pytest.approx(float(together.mean()), rel=1e-5)


# ------------------------------------------------------------------ two ranks, both monitors
TWO_RANKS = {"every_n_steps": 2, "warmup_steps": 0, "baseline_measurements": 2, "mode": "policy"}
TRAIN, VALIDATION = data(), data(3 * BATCH, seed=2)


def observed(train: Any, validation: Any, **kwargs: Any) -> dict[str, Any]:
    """All that the monitors of a run say."""
    entropy, calibration = Heard(**TWO_RANKS), CalibrationMonitor()
    labels = EntropyMonitor(every_n_steps=2, name="labels")
    run = trainer(entropy, labels, calibration, num_sanity_val_steps=0, **kwargs)
    run.fit(Classifier(), train, validation)
    logged = {k: float(v) for k, v in run.callback_metrics.items() if "loss" not in k}
    return {"heard": entropy.heard, "logged": logged, "table": calibration.table}


def worker(rank: int) -> Any:
    # A training batch of both ranks together is one of the single run.
    own = Subset(TRAIN, range(rank, len(TRAIN), 2))
    # Validation is uneven: 33 rows in 3 batches on rank 0, 15 rows in 1 batch on rank 1.
    mine = Subset(VALIDATION, range(33) if rank == 0 else range(33, 48))
    return observed(
        loader(own, BATCH // 2),
        loader(mine),
        devices=2,
        strategy="ddp",
        use_distributed_sampler=False,
        logger=CSVLogger(".", version=0),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:EntropyMonitor. ")
def test_two_ranks_log_what_one_does(tmp_path: Path) -> None:
    zero, one = on_ranks(worker, tmp_path)
    assert repr(zero) == repr(one)  # keys and values, to the last bit; repr, for empty bins are NaN
    single = observed(loader(TRAIN), loader(VALIDATION))
    assert [step for step, _ in zero["heard"]] == [0, 2, 4, 6]
    for (_, found), (_, expected) in zip(zero["heard"], single["heard"], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert zero["logged"] == pytest.approx(single["logged"], rel=1e-4, abs=1e-5)
    calibrations = {f"calibration/val/{key}" for key in LOGGED}
    assert len(calibrations & zero["logged"].keys()) > 10
    for key in ("labels/nll_gap", "labels/val_nll_gap", "labels/marginal"):
        assert key in zero["logged"]
    for found, expected in zip(zero["table"], single["table"], strict=True):
        assert found.pop("stage") == expected.pop("stage") == "val"
        assert found == pytest.approx(expected, rel=1e-4, nan_ok=True)
    (written,) = tmp_path.rglob("reliability.csv")
    assert len(written.read_text().splitlines()) == 1 + 2 * 15


# ------------------------------------------------------------------ arguments and config
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "rl"}, "mode=supervised"),
        ({"every_n_steps": 0}, "every_n_steps"),
        ({"patience": 0}, "patience"),
        ({"baseline_measurements": 0}, "baseline_measurements"),
        ({"warn_ratio": 0.1}, "critical_ratio <= warn_ratio"),
        ({"explosion_ratio": 0.9}, "explosion_ratio"),
        ({"warn_gap": 0.0}, "warn_gap > 0"),
        ({"critical_share": 2.0}, r"critical_share in \[0, 1\]"),
        ({"max_rows": 0}, "max_rows"),
        ({"on_warning": "shout"}, "on_warning is 'shout'"),
        ({"on_critical": "shout"}, "on_critical is 'shout'"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EntropyMonitor(**options)


def test_the_config_is_the_class() -> None:
    require_config_is_the_class("entropy", EntropyMonitor)
