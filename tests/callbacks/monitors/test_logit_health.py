# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The logit monitor against sums by hand, and the gradient monitor against Adam by hand."""

from __future__ import annotations

import gc
import inspect
import math
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from radius_modules import (
    BATCH,
    BATCHES,
    CLASSES,
    FEATURES,
    Couple,
    Hidden,
    Lbfgs,
    Manual,
    Module,
    Momentum,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import train, train_twice

from lightning_losses import LossMixin, LossRecord, SoftmaxStats, build_objective, softmax_stats
from lightning_losses.callbacks.controllers.perp_grad import PerpGrad
from lightning_losses.callbacks.monitors.entropy import EntropyMonitor
from lightning_losses.callbacks.monitors.gradient_rms import GradientRmsMonitor
from lightning_losses.callbacks.monitors.logit_health import LogitHealthMonitor
from lightning_losses.callbacks.monitors.term_balance import TermBalanceMonitor

IGNORED = -100


class Grows(Module):
    """Logits grow by 30 % each step, unevenly over rows; keeps what it sees."""

    route = "logits"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        hidden = self.net[:-1](x) * 1.3**self.global_step * (1 + x[:, :1].abs())
        head: Any = self.net[-1]
        self.seen.append((head(hidden).detach(), y))
        if self.route == "logits":
            return self.compute_loss(logits=head(hidden), target=y)
        return self.compute_loss(
            hidden=hidden, head_weight=head.weight, head_bias=head.bias, target=y
        )


class GrowsHidden(Grows):
    route = "hidden"


def by_hand(logits: Tensor, target: Tensor) -> dict[str, float]:
    rows = [z for z, y in zip(logits.tolist(), target.tolist(), strict=True) if y != IGNORED]
    sums = [max(z) + math.log(sum(math.exp(v - max(z)) for v in z)) for z in rows]
    losses = nn.functional.cross_entropy(logits, target, reduction="none")[target != IGNORED]
    z = logits[target != IGNORED]
    collapsed = [float((row - row.max()).exp().sum()) == 1.0 for row in z]  # in float32
    return {
        "logsumexp_mean": sum(sums) / len(sums),
        "logsumexp_max": max(sums),
        "max_logit": max(max(row) for row in rows),
        "softmax_collapse": sum(collapsed) / len(rows),
        "zero_terms": float((losses == 0).float().mean()),
    }


@pytest.mark.filterwarnings("ignore:LogitHealthMonitor. at step")
@pytest.mark.parametrize("factory", [Grows, GrowsHidden])
def test_logs_what_the_logits_say_at_due_steps(factory: Any) -> None:
    # 6 batches in an epoch, 3 epochs: steps 0, 3, ... 15 are due; by the end half of the rows have
    # collapsed.
    run = train_twice(
        factory, [LogitHealthMonitor(every_n_steps=3)], own="logit_health/", max_epochs=3
    )
    assert isinstance(run.module, Grows)
    assert len(run.logged) == 3 * BATCHES
    shares = set()
    for step in range(0, 18, 3):
        expected = by_hand(*run.module.seen[step])
        found = {key: run.logged[step][f"logit_health/{key}"] for key in expected}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5), step
        shares.add((expected["softmax_collapse"], expected["zero_terms"]))
    assert (0.0, 0.0) in shares
    assert max(shares)[0] > 0.2  # or this has not seen a collapse
    assert any(zero < collapsed for collapsed, zero in shares)  # surely wrong
    assert any(zero > 0 for _, zero in shares)


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (Module, {}),
        (Hidden, {"accumulate_grad_batches": 2}),
        (Lbfgs, {}),
        (Manual, {}),
        (Module, {"precision": "bf16-mixed"}),
    ],
    ids=["adamw", "accumulated", "lbfgs", "manual", "bf16"],
)
def test_monitors_change_no_bit_of_training(factory: Any, options: Any) -> None:
    monitors = [LogitHealthMonitor(every_n_steps=2)]
    train_twice(factory, monitors, own="logit_health/", **options)
    watched = [GradientRmsMonitor(every_n_steps=2)]
    train_twice(factory, watched, own="gradient_rms/", **options)


# The golden case of the definition: in float32 half an epsilon is 5.96e-8 = e^-16.6, so that two
# classes 16 below the first count and two that are 17.5 below do not; float64 sees all but none.
EDGES = [[30.0, 0.0, 0.0], [10.0, 0.0, -1.0], [17.5, 0.0, 0.0], [0.0, 17.5, 0.0], [16.0, 0.0, 0.0]]


@pytest.mark.parametrize("kernel", ["reference", "chunked"])
@pytest.mark.parametrize("far", [0.0, 1000.0])  # a common shift is no collapse
def test_collapse_is_a_confidence_of_exactly_one(kernel: str, far: float) -> None:
    z, y = torch.tensor(EDGES) + far, torch.zeros(5, dtype=torch.int64)
    for dtype, collapsed, zero in (
        (torch.float32, [1, 0, 1, 1, 0], [1, 0, 1, 0, 0]),
        (torch.float64, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    ):
        stats = softmax_stats(z.to(dtype), target=y, kernel=kernel)
        assert stats.confidence is not None
        assert stats.log_prob is not None
        assert (stats.confidence == 1).long().tolist() == collapsed
        assert (stats.log_prob == 0).long().tolist() == zero


# ------------------------------------------------------------------ on records made by hand
def record(size: Any, confidence: Any = 0.5, **options: Any) -> LossRecord:
    log_z = torch.as_tensor(size, dtype=torch.float32).reshape(-1)
    p = torch.as_tensor(confidence, dtype=torch.float32).expand_as(log_z)
    zero = torch.zeros(())
    stats = SoftmaxStats(logsumexp=log_z, confidence=p, **options)
    return LossRecord(zero, {}, {}, zero, len(log_z), stats)


def feed(monitor: LogitHealthMonitor, records: list[LossRecord], planned: float = 100) -> Any:
    """Show a monitor one record a step; what it logged, and said."""
    heard: list[dict[str, float]] = []
    monitor.publish = lambda trainer, values: heard.append(  # type: ignore[method-assign]
        {key.split("/")[1]: float(value) for key, value in values.items()}
    )
    module = SimpleNamespace(loss=build_objective("ce"), loss_record=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, shown in enumerate(records):
            fake: Any = SimpleNamespace(
                global_step=step, world_size=1, estimated_stepping_batches=planned,
                is_global_zero=True, loggers=[], should_stop=False,
                _logger_connector=SimpleNamespace(_callback_metrics={}),
            )  # fmt: skip
            monitor.on_train_batch_start(fake, module, None, step)  # type: ignore[arg-type]
            module.loss_record = replace(shown)
            monitor.on_train_batch_end(fake, module, None, None, step)  # type: ignore[arg-type]
    return heard, [str(w.message) for w in caught if "LogitHealthMonitor" in str(w.message)]


def every(**options: Any) -> LogitHealthMonitor:
    return LogitHealthMonitor(every_n_steps=1, **options)


def test_onset_of_logits_that_grow() -> None:
    # log Z = -2^(step / 4): its size is 128 = 2^7 at step 28, and a quarter of that at step 20. The
    # window has 20 points by then, so that step 28 is within its reach.
    sizes = [record([0.1, -(2 ** (step / 4))]) for step in range(24)]
    heard, said = feed(every(), sizes)
    assert ["onset_step" in values for values in heard] == [False] * 20 + [True] * 4
    assert heard[-1]["onset_step"] == pytest.approx(28, abs=0.01)
    assert heard[-1]["logsumexp_max"] == pytest.approx(0.1)
    assert len(said) == 1  # at the third in a row
    assert "step 22" in said[0]
    assert "at step 28" in said[0]
    assert feed(every(), sizes, planned=25)[1] == []  # after the end of training
    assert feed(every(), sizes, planned=-1)[1] == said  # nobody knows the end
    assert "onset_step" not in feed(every(), [record(3.0)] * 24)[0][-1]


def test_an_onset_that_is_over_is_taken_back() -> None:
    class Grown(L.Callback):
        """A head that grows by an eighth a step from 30 to 93, and stays there."""

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, _: int) -> None:
            module.scale = 30 * 1.12 ** min(trainer.global_step, 10)

    class Scaled(LossMixin, L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.loss = nn.Parameter(torch.zeros(1)), build_objective("ce")

        def training_step(self, batch: Any, _: int) -> Tensor:
            logits = self.scale * torch.eye(4) + self.part
            return self.compute_loss(logits=logits, target=torch.arange(4))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-9)

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.zeros(20, 1)), 1)

    monitor = every(window=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = train(Scaled, [monitor, Grown()])
    shown = ["logit_health/onset_step" in logged for logged in run.logged]
    assert shown[7:11] == [True] * 4
    assert not any(shown[14:])


def test_collapse_is_announced_after_patience_and_again_after_recovery() -> None:
    def rows(collapsed: int) -> LossRecord:
        return record([1.0] * 20, torch.tensor([1.0] * collapsed + [0.7] * (20 - collapsed)))

    counts = [0, 2, 2, 1, 2, 2, 2, 2, 1, 2, 2, 2]
    heard, said = feed(every(collapse_share=0.1), [rows(n) for n in counts])
    assert [round(20 * h["softmax_collapse"]) for h in heard] == counts
    assert len(said) == 2
    assert "step 6" in said[0]
    assert "10%" in said[0]
    assert "step 11" in said[1]
    stop = every(action="stop", collapse_share=0.05, patience=1)
    assert len(feed(stop, [rows(1)])[1]) == 1


def test_rows_that_are_not_finite_or_do_not_count() -> None:
    nan, inf = math.nan, math.inf
    valid = torch.tensor([True, True, True, False])
    shown = [
        record([2.0, 3.0, 4.0, nan], torch.tensor([0.5, 0.5, 1.0, nan]), valid=valid),
        record([nan, inf, 4.0, 9.0], torch.tensor([nan, nan, 0.5, 1.0]), valid=valid),
        record([1.0] * 4, valid=torch.zeros(4, dtype=torch.bool)),
        record(torch.zeros(0)),
        record([-inf, 5.0]),
    ]
    heard, said = feed(every(), shown)
    assert [h["logsumexp_mean"] for h in heard] == [3, 4, 4, 4, 5]
    assert [h["logsumexp_max"] for h in heard] == [4, 4, 4, 4, 5]
    assert heard[0]["softmax_collapse"] == pytest.approx(1 / 3)
    assert all(math.isfinite(value) for h in heard for value in h.values())
    assert len([text for text in said if "NaN or inf" in text]) == 2  # healthy in between
    first, _ = feed(every(), [record(torch.zeros(0))])
    assert set(first[0].values()) == {0.0}


class Regressor(Module):
    def __init__(self) -> None:
        super().__init__()
        term = {"_target_": "torch.nn.MSELoss", "reduction": "none", "inputs": {"input": "logits"}}
        self.loss = build_objective({"mse": term})

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.compute_loss(logits=self.net(x)[:, 0], target=y.clamp(min=0).float())


class Unlabelled(Module):
    """Classes without a target: everything but zero_terms."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = build_objective("entropy_bonus")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.compute_loss(logits=self.net(batch[0]))


def test_without_classes_it_says_so_once_and_trains_on() -> None:
    with pytest.warns(UserWarning, match="no class logits") as caught:
        run = train(Regressor, [LogitHealthMonitor(every_n_steps=1)])
    assert len([w for w in caught if "no class logits" in str(w.message)]) == 1
    assert not [key for key in run.logged[-1] if key.startswith("logit_health")]
    unlabelled = train(Unlabelled, [LogitHealthMonitor(every_n_steps=1)]).logged[-1]
    assert "logit_health/logsumexp_max" in unlabelled
    assert "logit_health/zero_terms" not in unlabelled


class Still(Grows):
    """Batches in order: training from a checkpoint is the training without a stop."""

    def train_dataloader(self) -> Any:
        g = torch.Generator().manual_seed(1)
        x = torch.randn(8 * BATCHES, FEATURES, generator=g)
        return DataLoader(TensorDataset(x, torch.randint(CLASSES, (len(x),), generator=g)), 8)

    def make_net(self) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.GELU(), nn.Linear(12, CLASSES))


@pytest.mark.filterwarnings("ignore:LogitHealthMonitor. ", "ignore:GradientRmsMonitor. ")
def test_resuming_is_going_on(tmp_path: Path) -> None:
    def monitors() -> list[Any]:
        # Stopped within the window of the onset, with an alarm on.
        return [
            LogitHealthMonitor(every_n_steps=1, window=8, patience=2, collapse_share=0.01),
            GradientRmsMonitor(every_n_steps=4, factor=1e9),
            PerpGrad(),
        ]

    straight, first, rest = monitors(), monitors(), monitors()
    whole = train(Still, straight, max_epochs=4)
    half = train(Still, first, max_epochs=2)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    end = train(Still, rest, ckpt_path=tmp_path / "half.ckpt", max_epochs=4)
    # Lightning shows an old onset until there is another; the state, below, says which is true.
    keys = [k for k in end.logged[-1] if k.startswith(("logit_health", "perp_grad"))]
    keys = [k for k in keys if not k.endswith("onset_step")]
    assert len(keys) == 6
    for logged, again in zip(whole.logged[12:], end.logged, strict=True):
        assert {k: again.get(k) for k in keys} == {k: logged.get(k) for k in keys}
    # Between due steps Lightning shows the last value, which a fresh trainer does not know.
    for name in ("smallest", "share_near_epsilon"):
        key = f"gradient_rms/{name}"
        assert [s[key] for s in end.logged[4:]] == [s[key] for s in whole.logged[16:]]
    for a, b in zip(straight, rest, strict=True):
        assert a.state_dict() == b.state_dict()
    assert straight[0].onset is not None
    assert any(alarm.on for alarm in straight[0].alarms.values())


# ------------------------------------------------------------------ when, and what is left behind
class Measures(LogitHealthMonitor):
    """Knows at which steps it measured."""

    def measure(self, *args: Any) -> None:
        self.at = [*getattr(self, "at", []), self._measured_step]
        super().measure(*args)


def test_steps_of_several_optimizers_do_not_pass_a_due_one_by() -> None:
    # Two optimizers a batch: batches begin at steps 0, 2, ..., 10. Multiples of 5 are 0, 5, 10.
    monitor = Measures(every_n_steps=5)
    train(Couple, [monitor])
    assert monitor.at == [0, 6, 10]


def test_no_logits_are_kept_between_measurements() -> None:
    # Each keeps the record of its last measurement if it remembers records to know new ones.
    live = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == BATCHES - 1:
                gc.collect()
                alive = (o for o in gc.get_objects() if isinstance(o, Tensor))
                tensors = [t for t in alive if not t.is_nested]  # a nested one has no shape
                live.extend(t for t in tensors if t.shape == (BATCH, 37))

    class Wide(Module):
        def make_net(self) -> nn.Module:
            return nn.Linear(FEATURES, 37)

        def __init__(self) -> None:
            super().__init__()
            self.loss = build_objective(["ce", "logsumexp_penalty"])

    monitors = [EntropyMonitor(), LogitHealthMonitor(), TermBalanceMonitor()]
    train(Wide, [*monitors, Look()])
    assert live == []
    assert all(m._seen is not None for m in monitors)


def test_a_run_that_is_cut_off_leaves_no_request() -> None:
    class Stop(L.Callback):
        def on_before_backward(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 2:
                raise RuntimeError("stop")

    modules, monitor = [], LogitHealthMonitor(every_n_steps=1)

    def factory() -> Module:
        modules.append(Module())
        return modules[-1]

    with pytest.raises(RuntimeError, match="stop"):
        train(factory, [EntropyMonitor(every_n_steps=1), monitor, Stop()])
    assert modules[0].loss._watched == {}
    assert not monitor.due


def test_a_skipped_batch_is_made_up_for() -> None:
    class Skips(Module):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
            return -1 if (self.current_epoch, batch_idx) == (0, 4) else None

    monitor = Measures(every_n_steps=4)
    run = train(Skips, [monitor], max_epochs=2)
    assert run.trainer.global_step == 4 + BATCHES
    assert monitor.at == [0, 4, 8]
    assert run.module.loss._watched == {}


@pytest.mark.filterwarnings("ignore:LogitHealthMonitor. ", "ignore:GradientRmsMonitor. ")
def test_another_training_begins_anew() -> None:
    used = [
        Measures(every_n_steps=1, window=8, patience=2, collapse_share=0.01),
        GradientRmsMonitor(every_n_steps=4, factor=1e9),
    ]
    fresh = [
        Measures(every_n_steps=1, window=8, patience=2, collapse_share=0.01),
        GradientRmsMonitor(every_n_steps=4, factor=1e9),
    ]
    train(Still, used, max_epochs=4)
    assert used[0].onset is not None
    train(Still, used)
    train(Still, fresh)
    assert used[0].at[-BATCHES:] == fresh[0].at == list(range(BATCHES))
    for a, b in zip(used, fresh, strict=True):
        assert a.state_dict() == b.state_dict()


# ------------------------------------------------------------------ gradients against eps
class Two(Module):
    """A head whose gradients are a million times smaller than those of the body."""

    options: dict[str, Any] = {}
    optimizer: Any = torch.optim.Adam

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        z = self.net[:3](x)
        head: Any = self.net[3]
        small = 1e-6
        z = nn.functional.linear(z, small * head.weight + (1 - small) * head.weight.detach())
        return self.compute_loss(logits=z, target=y)

    def configure_optimizers(self) -> Any:
        decayed = [p for p in self.parameters() if p.ndim == 2]
        rest = [p for p in self.parameters() if p.ndim != 2]
        groups = [{"params": decayed}, {"params": rest, "eps": 1e-12}]
        return self.optimizer(groups, lr=1e-3, **self.options)


class Gradients(L.Callback):
    """Second moments of Adam from the gradients, by its definition, in float64."""

    beta = 0.999

    def __init__(self) -> None:
        self.v: dict[str, Tensor] = {}
        self.steps = 0
        self.rms: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.steps += 1
        for name, p in module.named_parameters():
            if p.grad is not None:
                old = self.v.get(name, torch.zeros_like(p, dtype=torch.float64))
                self.v[name] = self.beta * old + (1 - self.beta) * p.grad.double() ** 2
        corrected = {n: v / (1 - self.beta**self.steps) for n, v in self.v.items()}
        self.rms.append({n: math.sqrt(float(v.mean())) for n, v in corrected.items()})


VARIANTS = {
    "adam": (torch.optim.Adam, {}),
    "foreach": (torch.optim.AdamW, {"foreach": True}),
    "fused": (torch.optim.AdamW, {"fused": True}),
    "radam": (torch.optim.RAdam, {}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_rms_is_that_of_adam(variant: str) -> None:
    optimizer, options = VARIANTS[variant]
    factory = type("Case", (Two,), {"optimizer": optimizer, "options": options})
    truth = Gradients()
    # Within 1e4 of 1e-8: only the head's weight, 1e-6 times the others. The rest has eps 1e-12.
    monitor = GradientRmsMonitor(every_n_steps=2, factor=1e3, patience=2)
    with pytest.warns(UserWarning, match="GradientRmsMonitor") as caught:
        run = train(factory, [truth, monitor], accumulate_grad_batches=2, max_epochs=2)
    # 6 batches are 3 steps an epoch; of the 6 steps the first, third and fifth are due.
    assert len(truth.rms) == 6
    assert "gradient_rms/smallest" not in run.logged[0]  # a batch that only accumulates
    for step, batch in ((0, 1), (2, 5), (4, 9)):
        rms = {n: v for n, v in truth.rms[step].items() if n != "net.3.bias"}
        assert min(rms, key=rms.get) in ("net.3.weight", "net.0.bias")  # type: ignore[arg-type]
        assert run.logged[batch]["gradient_rms/smallest"] == pytest.approx(
            min(rms.values()), rel=1e-3
        )
        near = [v < 1e3 * (1e-8 if n.endswith("weight") and "1" not in n else 1e-12)
                for n, v in rms.items()]  # fmt: skip
        assert run.logged[batch]["gradient_rms/share_near_epsilon"] == pytest.approx(
            sum(near) / len(near)
        )
        assert sum(near) == 1
    said = [str(w.message) for w in caught if "GradientRmsMonitor" in str(w.message)]
    assert len(said) == 1
    for part in ("net.3.weight", "after step 3", "1e-08", "20%", "eps=1e-12"):
        assert part in said[0], said[0]


def test_other_optimizers() -> None:
    """RMSprop by its own average, Adagrad by the gradient, SGD has nothing to compare with."""
    for optimizer in (torch.optim.RMSprop, torch.optim.Adagrad):
        factory = type("Case", (Two,), {"optimizer": optimizer})
        assert train(factory, [GradientRmsMonitor()]).logged[-1]["gradient_rms/smallest"] > 0
    with pytest.warns(UserWarning, match="SGD has no eps") as caught:
        run = train(Momentum, [GradientRmsMonitor(every_n_steps=1)])
    assert len([w for w in caught if "SGD has no eps" in str(w.message)]) == 1
    assert "gradient_rms/smallest" not in run.logged[-1]


def test_gradients_that_no_step_was_made_with_do_not_count() -> None:
    # A GradScaler skips steps whose gradients are inf; before the first one Adam has no state.
    module, monitor = Two(), GradientRmsMonitor()
    adam = torch.optim.Adam(module.parameters())
    for p in module.parameters():
        p.grad = torch.full_like(p, math.inf)
    assert monitor._scales(adam) == []

    class Overflows(Two):
        optimizer = torch.optim.Adagrad  # measured by the gradient itself

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.net[0].weight.grad.fill_(math.inf)

    run = train(Overflows, [GradientRmsMonitor(every_n_steps=1)], max_steps=1)
    assert 0 < run.logged[0]["gradient_rms/smallest"] < math.inf
    assert math.isfinite(run.logged[0]["gradient_rms/share_near_epsilon"])


# ------------------------------------------------------------------ arguments and config
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: LogitHealthMonitor(window=7), "window"),
        (lambda: LogitHealthMonitor(collapse_share=0), "collapse_share"),
        (lambda: LogitHealthMonitor(threshold=-1), "threshold"),
        (lambda: LogitHealthMonitor(action="shout"), "shout"),  # type: ignore[arg-type]
        (lambda: GradientRmsMonitor(factor=0), "factor"),
        (lambda: GradientRmsMonitor(every_n_steps=0), "every_n_steps"),
    ],
)
def test_arguments_are_checked(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("logit_health", LogitHealthMonitor),
        ("gradient_rms", GradientRmsMonitor),
        ("perp_grad", PerpGrad),
    ],
)
def test_the_config_is_the_class(key: str, kind: Any) -> None:
    with initialize_config_module("lightning_losses.conf", version_base="1.3"):
        node = compose(overrides=[f"+callbacks=[{key}]"]).callbacks[key]
    assert isinstance(instantiate(node), kind)
    parameters = inspect.signature(kind).parameters.values()
    assert {p.name: p.default for p in parameters if p.default != ()} == {
        name: value for name, value in node.items() if name not in ("_target_", "exclude")
    }
