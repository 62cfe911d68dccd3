# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""StepRadiusController: no applied update is beyond the target, whatever optimizer made it."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import Any

import pytest
import radius_modules as m
import torch
from lightning.pytorch import Callback
from radius_modules import TeacherOnSecondRank, two_ranks
from torch import Tensor
from training import Run, require_equal, train, train_twice

from lightning_losses.callbacks.controllers.step_radius_controller import (
    MANY,
    StepRadiusController,
    move,
)
from lightning_losses.callbacks.monitors.step_radius import StepRadiusMonitor

OWN = "step_radius_controller/"


def optimizer(make: Any) -> type[m.Module]:
    class Module(m.Module):
        def configure_optimizers(self) -> Any:
            return make(self.parameters())

    return Module


ADAMW = torch.optim.AdamW
WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    # one tensor after the other; batch norm and dropout
    "adamw": (optimizer(lambda p: ADAMW(p, lr=0.05, foreach=False)), {}),
    # one kernel over lists of tensors: parameters are written through views of lists
    "adamw_foreach": (optimizer(lambda p: ADAMW(p, lr=0.05, foreach=True)), {}),
    # update and unscaling within one kernel
    "adamw_fused": (optimizer(lambda p: ADAMW(p, lr=0.05, fused=True)), {}),
    # the update is not along this gradient
    "momentum": (m.Momentum, {}),
    # several runs of training_step for one update
    "lbfgs": (m.Lbfgs, {}),
    # training_step runs more often than the optimizer steps
    "accumulate_and_clip": (m.Module, {"accumulate_grad_batches": 4, "gradient_clip_val": 0.5}),
    # the hooks run after training_step has begun
    "manual": (m.Manual, {}),
    "manual_accumulating": (m.ManualAccumulating, {}),
    # training_step runs before the optimizer's hooks
    "grad_scaler": (m.Module, {"plugins": m.Scaled}),
    # logits from hidden states and a head that the optimizer moves
    "hidden": (m.Hidden, {}),
    # "before" takes a re-run of its own
    "compiled": (m.compiled, {}),
    "probe_step": (m.TeacherWithProbe, {}),
    # logits with a noise floor; updates in float32
    "bf16": (m.Module, {"precision": "bf16-mixed"}),
    # old + s (new - old) in float64
    "float64": (m.Module, {"precision": "64-true"}),
}


def logged(run: Run, name: str) -> list[float | None]:
    return [step.get(OWN + name) for step in run.logged]


def options_of(way: str) -> tuple[Any, dict[str, Any]]:
    module, options = WAYS[way]
    if "plugins" in options:
        options = {"plugins": [options["plugins"]()]}
    return module, options


@pytest.mark.parametrize("way", WAYS)
def test_no_applied_update_is_beyond_the_target(way: str) -> None:
    module, options = options_of(way)
    # A target that every step of these modules exceeds; in bf16 it must be above the noise.
    target = 0.1 if way == "bf16" else 0.03
    controller, truth = StepRadiusController(target), m.Truth(autocast=way == "bf16")
    run = train(module, [controller, truth], **options)
    assert controller.disabled is None
    scales = [s for s in logged(run, "scale") if s is not None]
    assert all(0 < s < 1 for s in scales)
    assert controller.interventions == run.trainer.global_step
    assert logged(run, "interventions")[-1] == controller.interventions
    assert logged(run, "undone")[-1] == controller.undone == 0
    # float32 logits of size 10: the truth is good to 1e-5 of that.
    assert max(truth.r) <= target + 1e-5
    assert max(truth.r) > 0.5 * target
    assert all(r > target for r in logged(run, "r") if r is not None)


@pytest.mark.parametrize("way", WAYS)
def test_an_update_within_the_target_is_left_alone_to_the_last_bit(way: str) -> None:
    module, options = options_of(way)
    controller = StepRadiusController(1e6)
    run = train_twice(module, [controller], own=OWN, **options)
    assert controller.disabled is None
    assert (controller.interventions, controller.undone) == (0, 0)
    assert logged(run, "scale")[-1] == 1.0
    assert 0 < logged(run, "r")[-1] < 100


def test_two_optimizers_are_limited_one_after_the_other() -> None:
    controller, truth = StepRadiusController(0.03), m.Truth()
    run = train(m.Couple, [controller, truth])
    assert controller.interventions == 2 * m.BATCHES
    assert max(truth.r) <= 2 * 0.03 + 1e-5  # spreads add up at most
    assert len(logged(run, "r")) == m.BATCHES
    free = StepRadiusController(1e6)
    train_twice(m.Couple, [free], own=OWN)
    assert free.interventions == 0


class Twice(m.Manual):
    """One optimizer, two steps in a training step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.net(x), y, ignore_index=-100)
        self.manual_backward(loss)
        self.optimizers().step()


def test_a_second_step_of_one_optimizer_is_limited_too() -> None:
    controller, truth = StepRadiusController(0.03), m.Truth()
    train(Twice, [controller, truth])
    assert controller.interventions == 2 * m.BATCHES
    assert max(truth.r) <= 2 * 0.03 + 1e-5


# -------------------------------------------------------------------------------- spikes and NaN
class Spike(Callback):
    """The learning rate times 10,000 at one step."""

    def __init__(self, at: int, factor: float = 1e4) -> None:
        self.at, self.factor = at, factor

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step in (self.at, self.at + 1):
            factor = self.factor if trainer.global_step == self.at else 1 / self.factor
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= factor


class Parameters(Callback):
    """All parameters after each batch."""

    def __init__(self) -> None:
        self.after: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        parameters = [p.detach().flatten() for p in module.parameters()]
        self.after.append(torch.cat(parameters))


@pytest.mark.parametrize("module", [m.Module, m.Momentum], ids=["adamw", "momentum"])
def test_a_learning_rate_spike_does_no_harm(module: Any) -> None:
    spoiled = m.Truth()
    train(module, [Spike(3), spoiled])
    assert not spoiled.r[3] < 100
    controller, truth, seen = StepRadiusController(), m.Truth(), Parameters()
    run = train(module, [Spike(3), controller, truth, seen], max_epochs=2)
    assert all(step.isfinite().all() for step in seen.after)
    assert max(truth.r) <= 1 + 1e-5
    assert logged(run, "r")[3] > 100
    assert 0 < logged(run, "scale")[3] < 0.01


class Poison(Callback):
    """NaN gradients at one step."""

    def __init__(self, at: int, value: float = math.nan) -> None:
        self.at, self.value = at, value

    def on_after_backward(self, trainer: Any, module: Any) -> None:
        if trainer.global_step == self.at:
            next(module.parameters()).grad.view(-1)[0] = self.value


def test_an_update_of_nan_is_undone() -> None:
    class Sgd(m.Module):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    controller, seen = StepRadiusController(), Parameters()
    run = train(Sgd, [Poison(2), controller, seen])
    require_equal("parameters", seen.after[1], seen.after[2])
    assert logged(run, "r")[2] == math.inf
    assert logged(run, "scale") == [1, 1, 0, 1, 1, 1]
    assert (controller.interventions, controller.undone) == (1, 1)
    assert seen.after[-1].isfinite().all()
    assert not seen.after[-1].equal(seen.after[2])


def test_an_optimizer_that_keeps_a_nan_is_told_of(recwarn: pytest.WarningsRecorder) -> None:
    controller, seen = StepRadiusController(), Parameters()
    train(m.Module, [Poison(0), controller, seen], max_epochs=2)
    assert controller.undone == 2 * m.BATCHES
    assert seen.after[-1].isfinite().all()
    said = [w for w in recwarn if f"{MANY} updates in a row" in str(w.message)]
    assert len(said) == 1


def test_logits_that_are_not_finite_undo_a_finite_update() -> None:
    class Module(m.Module):
        def make_net(self) -> Any:
            return torch.nn.Linear(m.FEATURES, m.CLASSES)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            return self.compute_loss(logits=self.net(x) ** 3, target=y)

    controller, seen = StepRadiusController(), Parameters()
    # The cube of an update of 1e16 is not finite; its square is, and so is its norm.
    train(Module, [Spike(2, 1e17), controller, seen])
    require_equal("parameters", seen.after[1], seen.after[2])
    assert controller.undone == 1


class Cubic(m.Module):
    """Logits that grow like a power of the update."""

    def make_net(self) -> Any:
        return torch.nn.Sequential(
            torch.nn.Linear(m.FEATURES, 12),
            torch.nn.ReLU(),
            torch.nn.Linear(12, 12),
            torch.nn.ReLU(),
            torch.nn.Linear(12, m.CLASSES),
        )


def test_where_logits_grow_like_a_power_the_update_is_not_lost() -> None:
    controller, truth = StepRadiusController(), m.Truth()
    run = train(Cubic, [Spike(0), controller, truth], max_steps=1)
    r, scale = logged(run, "r")[0], logged(run, "scale")[0]
    assert r > 1e6
    assert scale > 10 / r  # one rescale would have been 0.9 / r
    assert 0.4 < truth.r[0] <= 1 + 1e-5


def test_saturated_logits_take_more_than_one_rescale() -> None:
    class Capped(m.Hidden):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            x, y = batch
            head = self.net[2]
            return self.compute_loss(
                hidden=self.net[:2](x),
                head_weight=head.weight,
                head_bias=head.bias,
                target=y,
                softcap=5.0,
            )

    class After(Callback):
        """r of the applied update, with the soft-cap by hand."""

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, _: int) -> None:
            self.old = copy.deepcopy(module.net)

        def on_train_batch_end(
            self, trainer: Any, module: Any, out: Any, batch: Any, i: int
        ) -> None:
            with torch.no_grad():
                old, new = (5 * torch.tanh(f(batch[0]) / 5) for f in (self.old, module.net))
            change = (new - old)[batch[1] != -100]
            self.r = float((change.amax(1) - change.amin(1)).max()) / math.pi

    controller, after = StepRadiusController(0.5), After()
    run = train(Capped, [Spike(0), controller, after], max_steps=1)
    r, scale = logged(run, "r")[0], logged(run, "scale")[0]
    assert 1 < r <= 20 / math.pi  # entries move by 10 at most
    assert 0 < scale < 0.5 * 0.5 / r  # one rescale would have been 0.9 * 0.5 / r
    assert after.r <= 0.5 + 1e-5


class Jump(m.Module):
    """Logits jump as soon as anything moves: no scale but 0 is small enough."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        moved = bool(self.net[1].bias.any())  # 0 at first, so that no scale is rounded away
        jump = torch.tensor([100.0 * moved] + [0.0] * (m.CLASSES - 1))
        return self.compute_loss(logits=self.net(x) + jump, target=y)


def test_an_update_that_cannot_be_shrunk_is_undone() -> None:
    controller, seen = StepRadiusController(), Parameters()
    run = train(Jump, [controller, seen], max_steps=2)
    assert logged(run, "scale") == [0.0, 0.0]
    assert logged(run, "r")[0] > 100 / math.pi - 1
    assert controller.undone == 2
    assert seen.after[0].equal(seen.after[1])


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_no_step(fused: bool) -> None:
    module = optimizer(lambda p: ADAMW(p, lr=0.05, fused=fused))
    controller, seen, poison = StepRadiusController(0.03), Parameters(), Poison(2, math.inf)

    def run_with(*callbacks: Any) -> Run:
        return train(module, [poison, *callbacks], plugins=[m.Scaled()])

    run = run_with(controller, seen)
    require_equal("parameters", seen.after[1], seen.after[2])
    assert (controller.interventions, controller.undone) == (m.BATCHES - 1, 0)
    assert logged(run, "r")[2] == logged(run, "r")[1]  # still the one of the step before


# ------------------------------------------------------------------------- together, and apart
@pytest.mark.parametrize("first", [False, True])
def test_the_monitor_sees_what_the_controller_left(first: bool) -> None:
    controller, truth = StepRadiusController(0.03), m.Truth()
    both = [controller, StepRadiusMonitor(every_n_steps=1)]
    run = train(m.Module, [*(both if first else both[::-1]), truth])
    seen = [step["step_radius/r"] for step in run.logged]
    assert seen == pytest.approx(truth.r, rel=1e-4)
    assert max(seen) <= 0.03 + 1e-6
    alone = train(m.Module, [StepRadiusController(0.03)])
    require_equal("state", dict(alone.module.state_dict()), dict(run.module.state_dict()))


def test_a_step_that_cannot_be_measured_is_not_controlled(
    recwarn: pytest.WarningsRecorder,
) -> None:
    controller = StepRadiusController(0.03)
    run = train_twice(m.Teacher, [controller], own=OWN)
    assert "parameter 'teacher.0.weight' itself" in str(controller.disabled)
    said = [str(w.message) for w in recwarn if "StepRadiusController" in str(w.message)]
    assert len(said) == 1
    assert "which goes on uncontrolled" in said[0]
    assert logged(run, "r") == [None] * m.BATCHES


def test_counts_continue_after_a_checkpoint(tmp_path: Path) -> None:
    path, first = tmp_path / "x.ckpt", StepRadiusController(0.03)
    train(m.Module, [first], max_steps=4).trainer.save_checkpoint(path)
    assert first.interventions == 4
    second = StepRadiusController(0.03)
    run = train(m.Module, [second], ckpt_path=path, max_epochs=3, max_steps=6)
    assert logged(run, "interventions")[0] == 5
    assert second.state_dict()["interventions"] == 6
    train(m.Module, [second], max_steps=1)  # a new training counts anew
    assert second.interventions == 1


def test_arguments_are_checked() -> None:
    for target in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="target must be positive and finite"):
            StepRadiusController(target)
    with pytest.raises(ValueError, match="max_rows must be at least 1"):
        StepRadiusController(max_rows=0)


def test_a_tiny_scale_is_not_rounded_away() -> None:
    old, new = torch.zeros(3), torch.tensor([1e12, -1e12, 0.0])
    parameter = new.clone()
    move([(parameter, old)], [new], 1e-12)
    assert parameter.tolist() == pytest.approx([1.0, -1.0, 0.0])
    move([(parameter, old)], [torch.full((3,), math.nan)], 0.0)
    assert parameter.tolist() == [0.0, 0.0, 0.0]


# ------------------------------------------------------------------------------- several ranks
class WriteDown(m.Truth):
    """What each rank has in the end, on disk: what a forked process knows is lost with it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_end(self, trainer: Any, module: Any) -> None:
        logged = {k: v for k, v in trainer.callback_metrics.items() if k.startswith(OWN)}
        state = {"state": dict(module.state_dict()), "logged": logged, "r": self.r}
        torch.save(state, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_all_ranks_take_the_same_scale(tmp_path: Path) -> None:
    class Linear(m.Module):  # no batch norm, whose statistics differ between ranks
        def make_net(self) -> Any:
            return torch.nn.Linear(m.FEATURES, m.CLASSES)

    callbacks = [StepRadiusController(0.03), WriteDown(tmp_path), Poison(1)]
    train(Linear, callbacks, **two_ranks())
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    require_equal("state", one["state"], other["state"])
    require_equal("logged", one["logged"], other["logged"])
    names = ("applied_r", "interventions", "r", "scale", "undone")
    assert sorted(one["logged"]) == [OWN + k for k in names]
    pairs = list(zip(one["r"], other["r"], strict=True))
    assert float(one["logged"][OWN + "applied_r"]) == pytest.approx(max(pairs[-1]), abs=1e-5)
    assert one["logged"][OWN + "interventions"] == len(pairs)
    assert all(max(pair) <= 0.03 + 1e-5 for pair in pairs)
    assert pairs[0][0] != pytest.approx(pairs[0][1], rel=1e-3)  # they have rows of their own
    assert pairs[1] == (0.0, 0.0)  # the poisoned step is undone on both


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_failure_on_one_rank_leaves_all_uncontrolled() -> None:
    plain = train(TeacherOnSecondRank, **two_ranks())
    run = train(TeacherOnSecondRank, [StepRadiusController(0.03)], **two_ranks())
    require_equal("state", dict(plain.module.state_dict()), dict(run.module.state_dict()))
