# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""StepRadiusMonitor: the number is the true one, and training does not notice."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import radius_modules as m
import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from radius_modules import TeacherOnSecondRank, two_ranks
from torch.optim import Optimizer
from training import Run, require_equal, train, train_twice

from lightning_losses import build_objective
from lightning_losses.callbacks.monitors.step_radius import StepRadiusMonitor
from lightning_losses.callbacks.replay import step_watcher
from lightning_losses.callbacks.replay.step_rows import step_rows
from lightning_losses.metrics.step_radius.bounds import rho_dom, rho_var
from lightning_losses.metrics.step_radius.secant import secant

# Every way to train that a radius monitor meets; each of their steps is measured and compared.
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "batch_norm_dropout": (m.Module, {}),
    "momentum": (m.Momentum, {}),
    "lbfgs": (m.Lbfgs, {}),
    "accumulate_and_clip": (m.Module, {"accumulate_grad_batches": 4, "gradient_clip_val": 0.5}),
    "manual": (m.Manual, {}),
    "manual_accumulating": (m.ManualAccumulating, {}),
    "hidden": (m.Hidden, {}),
    "spectral_norm": (m.Spectral, {}),
    "float64": (m.Module, {"precision": "64-true"}),
    "bf16": (m.Module, {"precision": "bf16-mixed"}),
    "bf16_manual": (m.Manual, {"precision": "bf16-mixed"}),
    "bf16_hidden": (m.Hidden, {"precision": "bf16-mixed"}),
    "compiled": (m.compiled, {}),
    "teacher_with_probe_step": (m.TeacherWithProbe, {}),
}


def every_step(**options: Any) -> StepRadiusMonitor:
    return StepRadiusMonitor(every_n_steps=1, **options)


def logged(run: Run, name: str) -> list[float | None]:
    """After each batch; a value stays until the next is logged."""
    return [step.get(f"step_radius/{name}") for step in run.logged]


@pytest.mark.parametrize("way", WAYS)
def test_measures_the_applied_update_and_leaves_training_as_it_was(way: str) -> None:
    module, options = WAYS[way]
    monitor, truth = every_step(), m.Truth(autocast="bf16" in way)
    run = train_twice(module, [monitor, truth], **options)
    assert monitor.disabled is None
    assert monitor._replay == 0.0
    every = {"accumulate_and_clip": 4, "manual_accumulating": 2}.get(way, 1)
    # Steps happen on the last batch of each group, and in automatic ones at the end of the epoch.
    steps = [i for i in range(m.BATCHES) if (i + 1) % every == 0 or i == m.BATCHES - 1]
    r, norm = logged(run, "r"), logged(run, "update_norm")
    assert len(steps) >= 2
    for i in range(steps[0]):
        assert r[i] is None
    # float32 logits of size 10 differ by about 1, so that differences are good to about 1e-5;
    # bf16 adds a head's bias before or after rounding.
    floor = logged(run, "noise_floor")
    for i in steps:
        assert r[i] == pytest.approx(truth.r[i], rel=1e-4, abs=floor[i] if "bf16_h" in way else 0)
        assert norm[i] == pytest.approx(truth.norm[i], rel=1e-5)
        assert logged(run, "rho_a")[i] == pytest.approx(norm[i] / r[i], rel=1e-6)
        assert logged(run, "r_p99")[i] <= r[i]
    assert (floor[-1] is not None) == ("bf16" in way)
    assert ("bf16" not in way) or 1e-3 < floor[-1] < 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 4, "gradient_clip_val": 0.5},
        {"precision": "bf16-mixed"},
    ],
    ids=["plain", "accumulate", "bf16"],
)
def test_metrics_logs_counters_and_generators_are_left_as_they_were(options: Any) -> None:
    monitor = every_step()
    run = train_twice(m.Busy, [monitor], **options)
    assert monitor.disabled is None
    assert monitor._replay == 0.0
    assert logged(run, "r")[-1] > 0


def test_below_the_noise_floor_is_only_noise() -> None:
    class Slow(m.Momentum):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    truth = m.Truth()
    run = train(Slow, [every_step(), truth], precision="bf16-mixed")
    floor = logged(run, "noise_floor")
    for i, r in enumerate(logged(run, "r")):
        assert truth.r[i] < 1e-2 * floor[i]
        assert r <= floor[i]


def test_two_optimizers_are_measured_one_after_the_other() -> None:
    truth = m.Truth()
    run = train_twice(m.Couple, [every_step(), truth])
    first, second, both = logged(run, "r/0"), logged(run, "r/1"), logged(run, "r")
    norms = [
        math.hypot(a, b)
        for a, b in zip(logged(run, "update_norm/0"), logged(run, "update_norm/1"), strict=True)
    ]
    assert norms == pytest.approx(truth.norm, rel=1e-5)
    for a, b, largest, joint in zip(first, second, both, truth.r, strict=True):
        assert largest == max(a, b)
        assert abs(a - b) * 0.999 <= joint <= (a + b) * 1.001  # spreads are a seminorm
    assert logged(run, "update_norm") == [None] * m.BATCHES


class Bounds(m.Truth):
    """All that is logged of the direction, from whole logits before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[dict[str, float]] = []

    def found(self, before: torch.Tensor, after: torch.Tensor, target: torch.Tensor) -> None:
        z, a = before.double(), (after - before).double()
        width = a.amax(1) - a.amin(1)
        p = torch.softmax(z, 1)
        slope = (p * a).sum(1) - a.gather(1, target[:, None])[:, 0]
        certified = -8 * float(slope.mean() / width.square().mean())
        self.all.append(
            {
                "rho_dom": self.norm[-1] * float(rho_dom(z, a).min()),
                "rho_var": self.norm[-1] * float(rho_var(z, a).min()),
                "descent": certified,
            }
        )


@pytest.mark.parametrize("way", ["batch_norm_dropout", "hidden", "lbfgs", "manual_accumulating"])
def test_logs_the_larger_radii_and_the_descent_certificate(way: str) -> None:
    module, options = WAYS[way]
    truth = Bounds()
    run = train(module, [every_step(), truth], **options)
    for i in range(m.BATCHES):
        if logged(run, "r")[i] is None or truth.r[i] == 0:
            continue
        # Changes of logits by 1e-2 are known to 1e-5; their curvature shows in none of these.
        for name, expected in truth.all[i].items():
            assert logged(run, name)[i] == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert logged(run, "rho_dom")[i] >= logged(run, "rho_a")[i] * (1 - 1e-6)
        assert logged(run, "rho_var")[i] >= logged(run, "rho_a")[i] * (1 - 1e-6)


def test_what_is_certified_to_fall_falls() -> None:
    class Small(m.Module):
        """Gradient descent so slow that its steps are certified."""

        def make_net(self) -> torch.nn.Module:
            return torch.nn.Linear(m.FEATURES, m.CLASSES)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    class Losses(Callback):
        def __init__(self) -> None:
            self.fell: list[bool] = []

        def loss(self, module: Any, batch: Any) -> float:
            x, y = batch
            with torch.no_grad():
                z = module.net(x).double()
            return float(torch.nn.functional.cross_entropy(z, y, ignore_index=-100))

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
            self.before = self.loss(module, batch)

        def on_train_batch_end(self, trainer: Any, module: Any, o: Any, batch: Any, i: int) -> None:
            self.fell.append(self.loss(module, batch) < self.before)

    losses = Losses()
    run = train(Small, [every_step(), losses])
    assert all(certified > 1 for certified in logged(run, "descent"))
    assert all(losses.fell)

    class Uphill(Small):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-3, maximize=True)

    assert all(certified < 0 for certified in logged(train(Uphill, [every_step()]), "descent"))


def test_without_class_targets_there_is_no_certificate() -> None:
    class Unlabelled(m.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = build_objective("entropy_bonus")

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.compute_loss(logits=self.net(batch[0]))

    run = train(Unlabelled, [every_step()])
    assert logged(run, "descent") == [None] * m.BATCHES
    assert logged(run, "rho_var")[-1] > 0


def test_with_a_grad_scaler_the_step_is_measured_too() -> None:
    truth = m.Truth()
    run = train_twice(m.Module, [every_step(), truth], plugins=[m.Scaled()])
    assert logged(run, "r") == pytest.approx(truth.r, rel=1e-4)


# ---------------------------------------------------------------------------------- the hazards
HAZARDS: dict[str, tuple[type[m.Module], str, int]] = {
    # why the monitor goes off, and how many steps it measures before
    "teacher": (m.Teacher, "parameter 'teacher.0.weight' itself", 0),
    "silent_teacher": (m.SilentTeacher, "parameter 'teacher.0.weight' itself", 0),
    "hidden_teacher": (m.HiddenTeacher, "0.weight' itself", 0),
    "late_teacher": (m.LateTeacher, "parameter 'teacher.0.weight' itself", 3),
    "input_gradient": (m.InputGradient, "RuntimeError: element 0 of tensors", 0),
}


@pytest.mark.parametrize("hazard", HAZARDS)
def test_a_step_that_cannot_be_run_again_turns_the_monitor_off(
    hazard: str, recwarn: pytest.WarningsRecorder
) -> None:
    module, reason, steps = HAZARDS[hazard]
    monitor = every_step()
    run = train_twice(module, [monitor])
    assert reason in str(monitor.disabled)
    said = [str(w.message) for w in recwarn if "StepRadiusMonitor" in str(w.message)]
    assert len(said) == 1
    assert reason in said[0]
    assert "def probe_step(self, batch)" in said[0]
    assert len({r for r in logged(run, "r") if r is not None}) == steps


def test_a_generator_elsewhere_is_found_by_the_replay_check() -> None:
    # It cannot be put back, so this run is not compared with a plain one.
    monitor = every_step()
    run = train(m.Elsewhere, [monitor])
    assert "gives other logits" in str(monitor.disabled)
    assert logged(run, "r") == [None] * m.BATCHES


def test_a_sharded_strategy_turns_the_monitor_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_watcher, "OUT_OF_REACH", (SingleDeviceStrategy,))
    monitor = every_step()
    train_twice(m.Module, [monitor])
    assert monitor.disabled == "SingleDeviceStrategy shards the parameters"


# ------------------------------------------------------------------------------- several ranks
class WriteDown(m.Truth):
    """The truth of each rank, on disk: what a forked process knows is lost with it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer: Any, module: Any) -> None:
        (self.folder / str(trainer.global_rank)).write_text(str(self.r[-1]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_ranks_log_the_largest_radius_of_all(tmp_path: Path) -> None:
    plain = train(m.Module, **two_ranks())
    run = train(m.Module, [every_step(), WriteDown(tmp_path)], **two_ranks())
    require_equal("state", dict(plain.module.state_dict()), dict(run.module.state_dict()))
    metrics = run.trainer.callback_metrics
    local = [float((tmp_path / rank).read_text()) for rank in "01"]
    assert local[0] != pytest.approx(local[1], rel=1e-3)
    assert float(metrics["step_radius/r"]) == pytest.approx(max(local), rel=1e-4)
    assert m.BATCH < metrics["step_radius/rows"] <= 2 * m.BATCH


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_failure_on_one_rank_turns_off_all() -> None:
    plain = train(TeacherOnSecondRank, **two_ranks())
    run = train(
        TeacherOnSecondRank, [every_step()], **two_ranks()
    )  # would wait if only one went off
    require_equal("state", dict(plain.module.state_dict()), dict(run.module.state_dict()))
    assert "step_radius/r" not in run.trainer.callback_metrics


# -------------------------------------------------------------------------------------- cadence
def test_cadence_counts_optimizer_steps() -> None:
    run = train(m.Module, [StepRadiusMonitor(every_n_steps=4)], max_epochs=2)
    r = logged(run, "r")
    assert len(set(r)) == 3  # at steps 0, 4 and 8 of 12
    assert [i for i in range(1, 12) if r[i] != r[i - 1]] == [4, 8]


def test_two_monitors_live_together() -> None:
    one, two = every_step(), StepRadiusMonitor(every_n_steps=2, name="step_radius/2")
    assert one.state_key != two.state_key
    alone = logged(train(m.Module, [every_step()]), "r")
    together = logged(train_twice(m.Module, [one, two]), "r")
    assert together == alone


def test_a_step_that_moved_nothing_is_no_step() -> None:
    monitor = every_step()
    run = train_twice(m.Nothing, [monitor])
    assert logged(run, "r") == [None] * m.BATCHES
    assert monitor.disabled is None


def test_rows_that_do_not_count_are_not_measured() -> None:
    run = train(m.NothingValid, [every_step()])
    # AdamW decays the weights even so: there is a step, but no row to measure it on.
    assert logged(run, "r") == [0.0] * m.BATCHES
    assert logged(run, "rows") == [0.0] * m.BATCHES
    full = train(m.Module, [every_step()])
    assert sum(logged(full, "rows")) == m.BATCH * m.BATCHES - 10  # every fifth of 48 is ignored


def test_calls_of_compute_loss_are_counted(recwarn: pytest.WarningsRecorder) -> None:
    first = train_twice(m.TwoCalls, [every_step()])
    assert sum("compute_loss 2 times" in str(w.message) for w in recwarn) == 1
    second = train_twice(m.TwoCalls, [every_step(call=1)])
    tripled = [3 * r for r in logged(first, "r")]
    assert logged(second, "r") == pytest.approx(tripled, rel=1e-5)
    train_twice(m.TwoCalls, [third := every_step(call=2)])
    assert third.disabled is None
    assert any("no compute_loss number 2" in str(w.message) for w in recwarn)


# ------------------------------------------------------------------------ what survives, and what
def hooks(optimizer: Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


class Stop(Callback):
    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == 2:
            raise RuntimeError("stop")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(fails: bool) -> None:
    monitor, seen = every_step(), []

    class See(Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            seen.append((trainer.lightning_module, trainer.optimizers[0]))
            assert hooks(trainer.optimizers[0]) == 2

    if fails:
        with pytest.raises(RuntimeError, match="stop"):
            train(m.Module, [monitor, See(), Stop()])
    else:
        train(m.Module, [monitor, See()])
    module, optimizer = seen[-1]
    assert hooks(optimizer) == 0
    assert "_capture" not in module.__dict__
    assert monitor._step is None


def test_a_skipped_batch_is_observed_no_further() -> None:
    class Skips(m.Module):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
            return -1 if (self.current_epoch, batch_idx) == (0, 2) else None

    calls = []

    class Counts(StepRadiusMonitor):
        def measure(self, *args: Any) -> None:
            assert self._step is not None
            calls.append(self._step.calls)
            super().measure(*args)

    run = train(Skips, [Counts(every_n_steps=1)], max_epochs=2)
    assert calls == [1] * (2 + m.BATCHES)
    assert "_capture" not in run.module.__dict__


class Descent:
    """Can step, which is enough for Lightning, but is no torch optimizer and has no hooks."""

    def __init__(self, parameters: Any) -> None:
        self.param_groups = [{"params": list(parameters), "lr": 0.1}]
        self.defaults: dict[str, Any] = {}
        self.state: dict[Any, Any] = {}

    def step(self, closure: Any = None) -> Any:
        loss = closure()
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.sub_(0.1 * p.grad)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.param_groups[0]["params"]:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def test_an_optimizer_without_hooks_turns_the_monitor_off() -> None:
    class Own(m.Module):
        def configure_optimizers(self) -> Any:
            return Descent(self.parameters())

    with pytest.warns(UserWarning, match="Descent is no torch.optim.Optimizer") as caught:
        run = train_twice(Own, [every_step()])
    assert len([w for w in caught if "StepRadiusMonitor" in str(w.message)]) == 1
    assert logged(run, "r") == [None] * m.BATCHES


def test_radii_are_zero_where_nothing_that_counts_moved() -> None:
    class Decays(m.NothingValid):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1, weight_decay=0.1)

    run = train(Decays, [every_step()])
    assert logged(run, "r")[0] == 0
    assert logged(run, "update_norm")[0] > 0
    for name in ("rho_a", "rho_dom", "rho_var"):
        assert logged(run, name)[0] == 0


def test_state_survives_a_checkpoint(tmp_path: Path) -> None:
    first, path = every_step(), tmp_path / "x.ckpt"
    train(m.Teacher, [first], max_steps=2).trainer.save_checkpoint(path)
    resumed, plain = every_step(), train(m.Teacher, ckpt_path=path, max_epochs=3, max_steps=4)
    again = train(m.Teacher, [resumed], ckpt_path=path, max_epochs=3, max_steps=4)
    assert resumed.disabled == first.disabled is not None
    require_equal("state", dict(plain.module.state_dict()), dict(again.module.state_dict()))
    remedied = every_step()
    train(m.TeacherWithProbe, [remedied], ckpt_path=path, max_epochs=3, max_steps=4)
    assert remedied.disabled is None
    assert remedied.state_dict() == {"measured_step": 3, "disabled": None}


def test_a_new_training_starts_anew() -> None:
    monitor = every_step()
    train(m.Teacher, [monitor], max_steps=1)
    assert monitor.disabled is not None
    run = train(m.Module, [monitor], max_steps=1)
    assert logged(run, "r")[0] > 0


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="max_rows must be at least 1"):
        StepRadiusMonitor(max_rows=0)
    with pytest.raises(ValueError, match="every_n_steps"):
        StepRadiusMonitor(every_n_steps=0)


# ----------------------------------------------------------------------------------------- rows
def test_rows_are_sampled_at_a_fixed_stride() -> None:
    named = {"logits": torch.randn(100, 4), "target": torch.arange(100) % 4}
    named["target"][::2] = -100
    named["sample_weight"] = torch.ones(100)
    named["sample_weight"][1] = 0.0
    # 49 rows count; at most 20 of them is every third.
    assert step_rows(named, -100, 20).chosen.tolist() == list(range(3, 100, 6))
    assert len(step_rows(named, -100, 49).chosen) == 49
    assert len(step_rows(named, -100, 48).chosen) == 25
    small = train(m.Module, [every_step(max_rows=3)])
    full = train(m.Module, [every_step()])
    pairs = list(zip(logged(small, "r"), logged(full, "r"), strict=True))
    assert all(a <= b for a, b in pairs)
    assert any(a < b for a, b in pairs)
    assert max(logged(small, "rows")) == 3


def test_rows_are_copies_and_carry_what_makes_the_logits() -> None:
    hidden, head, bias = torch.randn(2, 3, 4), torch.randn(7, 4), torch.randn(7)
    options = {"softcap": 2.0, "logit_scale": 3.0, "temperature": torch.full((2, 3), 0.5)}
    named = {"hidden": hidden, "head_weight": head, "head_bias": bias, **options}

    def logits() -> torch.Tensor:
        z = (hidden @ head.t() + bias).reshape(6, 7) * 3.0
        return 2.0 * torch.tanh(z / 2.0) / 0.5

    before, z = step_rows(named, -100, 100), logits()
    head.add_(torch.randn(7, 4))  # what an optimizer does
    bias.add_(0.3)
    hidden.mul_(1.1)
    after = step_rows(named, -100, 100, before.chosen)
    change = logits() - z
    expected = change.amax(1) - change.amin(1)
    torch.testing.assert_close(secant(before.problem, after.problem).spread, expected)


def test_binary_scores_are_measured_against_the_other_class() -> None:
    before = step_rows({"logits": torch.tensor([1.0, -2.0]), "target": torch.ones(2)}, -100, 9)
    after = step_rows({"logits": torch.tensor([1.5, -5.0]), "target": torch.ones(2)}, -100, 9)
    assert secant(before.problem, after.problem).spread.tolist() == [0.5, 3.0]


def test_a_step_without_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="neither logits nor hidden"):
        step_rows({"features": torch.zeros(3, 2), "target": torch.zeros(3).long()}, -100, 9)
