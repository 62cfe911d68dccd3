# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`compute_loss` inside Lightning: every way of optimising, precision, stage and checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, LossRecord, Objective, Term, build_objective
from lightning_losses.callbacks import EntropyMonitor
from lightning_losses.losses import CrossEntropy, EntropyBonus, Focal
from lightning_losses.schedules import Linear

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


class Lines(Logger):
    """Keeps what was logged: ``[(step, {name: value})]``."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, dict[str, float]]] = []

    name, version = "lines", "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((int(step or 0), dict(metrics)))

    @property
    def keys(self) -> set[str]:
        return {key for _, line in self.lines for key in line} - {"epoch"}

    def values(self, key: str) -> list[float]:
        return [line[key] for _, line in self.lines if key in line]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


class Plain(L.LightningModule):
    """The module of before: cross-entropy by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Model(LossMixin, Plain):
    def __init__(self, loss: Any = "ce") -> None:
        super().__init__()
        self.loss = build_objective(loss) if isinstance(loss, str) else loss

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        self.compute_loss(self.net(x), y)

    test_step = validation_step


class Manual(Model):
    automatic_optimization = False

    def training_step(self, batch: Any, i: int) -> None:
        loss = super().training_step(batch, i)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class Checkpointed(Model):
    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        z = checkpoint(self.net, x.requires_grad_(), use_reentrant=False)
        return checkpoint(lambda z: self.loss(z, y).total, z, use_reentrant=False)


class Headless(Model):
    """Hidden states and a head, as a language model: the one-pass entry."""

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        hidden, head = self.net[:2](x), self.net[2]
        return self.compute_loss(
            hidden=hidden, head_weight=head.weight, head_bias=head.bias, target=y
        )


def data(rows: int = 12, batch: int = 4) -> DataLoader[Any]:
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(rows, 4, generator=g), torch.randint(3, (rows,), generator=g)
    y[1] = -100
    return DataLoader(TensorDataset(x, y), batch_size=batch)


def trainer(logger: Logger | None = None, **options: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": logger or False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    return L.Trainer(**(defaults | options))


def fit(model: L.LightningModule, **options: Any) -> tuple[Lines, L.Trainer]:
    lines = Lines()
    run = trainer(lines, **options)
    run.fit(model, data(), data() if options.get("limit_val_batches") else None)
    return lines, run


def parameters(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def composed() -> Objective:
    return Objective(
        {
            "ce": CrossEntropy(),
            "focal": Term(Focal(), Linear(0.0, 0.3, steps=4)),
            "entropy": Term(EntropyBonus(), 0.01),
        }
    )


@pytest.fixture(scope="module")
def plain() -> tuple[Lines, list[Tensor]]:
    model = Plain()
    lines, _ = fit(model)
    return lines, parameters(model)


def test_cross_entropy_trains_as_by_hand_to_the_last_bit(plain: tuple[Lines, list[Tensor]]) -> None:
    lines, expected = plain
    model = Model("ce")
    found, _ = fit(model)
    assert found.values("train/loss") == lines.values("train/loss")
    assert [step for step, _ in found.lines] == [step for step, _ in lines.lines]
    assert len(found.values("train/loss")) == 6
    for a, b in zip(parameters(model), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", [Manual, Checkpointed, Headless])
def test_other_ways_to_train(kind: type[Model], plain: tuple[Lines, list[Tensor]]) -> None:
    lines, expected = plain
    model = kind("ce")
    found, _ = fit(model)
    for a, b in zip(parameters(model), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    if kind is not Checkpointed:
        assert found.values("train/loss") == pytest.approx(lines.values("train/loss"), rel=1e-5)


def test_accumulation() -> None:
    a, b = Plain(), Model("ce")
    fit(a, accumulate_grad_batches=3)
    lines, run = fit(b, accumulate_grad_batches=3)
    assert run.global_step == 2
    assert len(lines.values("train/loss")) == 2
    for x, y in zip(parameters(a), parameters(b), strict=True):
        assert torch.equal(x, y)


def test_logged_names_and_values() -> None:
    model = Model(composed())
    lines, run = fit(model, limit_val_batches=1.0)
    run.logger = lines
    run.test(model, data(), verbose=False)
    names = {"ce", "focal", "entropy"}
    assert lines.keys == (
        {"train/loss", "train/weight/focal"}  # the only weight that moves
        | {f"train/loss/{n}" for n in names}
        | {"val/loss", *(f"val/loss/{n}" for n in names)}
        | {"test/loss", *(f"test/loss/{n}" for n in names)}
    )
    assert lines.values("train/weight/focal") == pytest.approx([0, 0.075, 0.15, 0.225, 0.3, 0.3])
    for total, ce, focal, entropy, weight in zip(
        *(
            lines.values(f"train/{k}")
            for k in ("loss", "loss/ce", "loss/focal", "loss/entropy", "weight/focal")
        ),
        strict=True,
    ):
        assert total == pytest.approx(ce + weight * focal + 0.01 * entropy, rel=1e-5)


def test_one_term_logs_its_raw_value_and_a_scaled_term_its_weight() -> None:
    assert fit(Model("focal"), max_epochs=1)[0].keys == {"train/loss", "train/loss/focal"}
    objective = build_objective("ce")
    objective.terms["ce"].scale = 0.5
    lines, _ = fit(Model(objective), max_epochs=1, limit_val_batches=1.0)
    own = {"train/loss", "train/loss/ce"}
    assert lines.keys == {*own, "train/weight/ce", "val/loss", "val/loss/ce"}
    assert lines.values("train/weight/ce") == [0.5] * 3
    for stage in ("train", "val"):  # so that runs with other weights can be compared
        raw = [2 * value for value in lines.values(f"{stage}/loss")]
        assert lines.values(f"{stage}/loss/ce") == pytest.approx(raw)


class Adversaries(Model):
    """Two calls in a step, of which each has a name, and objectives under names of their own."""

    objective_name = "fooling"

    def __init__(self, named: bool = True) -> None:
        super().__init__()
        del self.loss
        self.fooling, self.telling = build_objective("ce"), build_objective(["ce", "focal"])
        self.named = named

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        names = ("generator", "discriminator") if self.named else (None, None)
        first = self.compute_loss(self.net(x), y, name=names[0])
        other = (y + 1) % 3 if (y >= 0).all() else y
        return first + self.compute_loss(self.net(x), other, name=names[1], objective=self.telling)

    def validation_step(self, batch: Any, index: int) -> None:
        self.training_step(batch, index)


def test_two_calls_in_a_step_by_name() -> None:
    model = Adversaries()
    lines, _ = fit(model, limit_val_batches=1.0, max_epochs=1)
    per_call = {"generator": ["ce"], "discriminator": ["ce", "focal"]}
    assert lines.keys == {
        f"{stage}/{call}/loss{term}"
        for stage in ("train", "val")
        for call, terms in per_call.items()
        for term in ("", *(f"/{name}" for name in terms))
    }
    records = model.loss_records
    assert list(records) == ["generator", "discriminator"]
    assert list(records["generator"].terms) == ["ce"]
    assert model.loss_record is records["discriminator"]
    assert lines.values("train/generator/loss") != lines.values("train/discriminator/loss")
    assert model.parameter_groups()[0]["params"]


def test_without_names_the_last_call_is_the_loss_of_the_step_in_every_stage() -> None:
    lines, _ = fit(Adversaries(named=False), limit_val_batches=1.0, max_epochs=1)
    named, _ = fit(Adversaries(), limit_val_batches=1.0, max_epochs=1)
    for stage in ("train", "val"):
        last = named.values(f"{stage}/discriminator/loss")
        assert lines.values(f"{stage}/loss") == pytest.approx(last)


@pytest.mark.parametrize("name", ["a/b", "", 3])
def test_a_call_has_a_word_for_a_name(name: Any) -> None:
    with pytest.raises(ValueError, match="name='generator'"):
        Model().compute_loss(torch.zeros(2, 3), torch.zeros(2).long(), name=name)


class OwnsLoss(L.LightningModule):
    """A base of somebody else, which needs its loss for itself."""

    def loss(self, x: Tensor) -> Tensor:
        return x.sum()


def test_a_base_class_may_own_loss() -> None:
    class Taken(LossMixin, OwnsLoss):
        def __init__(self) -> None:
            super().__init__()
            self.loss = build_objective("ce")

    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with pytest.raises(TypeError, match=r"class OwnsLoss has a method .*objective_name = 'obj"):
        Taken().compute_loss(x, y)

    class Elsewhere(LossMixin, OwnsLoss):
        objective_name = "objective"

        def __init__(self) -> None:
            super().__init__()
            self.objective = build_objective("ce")

    module = Elsewhere()
    expected = F.cross_entropy(x, y)
    assert float(module.compute_loss(x, y)) == pytest.approx(float(expected))
    assert float(module.loss(torch.ones(2))) == 2
    assert float(Taken().compute_loss(x, y, objective=build_objective("ce"))) == pytest.approx(
        float(expected)
    )
    with pytest.raises(TypeError, match=r"self.loss = build_objective\('ce'\)"):
        Model(loss=nn.CrossEntropyLoss()).compute_loss(x, y)


def test_monitors_find_an_objective_elsewhere() -> None:
    monitor = EntropyMonitor(every_n_steps=1)
    with pytest.warns(UserWarning, match="generator, discriminator.*discriminator, is what is"):
        _, run = fit(Adversaries(), max_epochs=1, callbacks=[monitor])
    assert "entropy/mean" in run.callback_metrics


def test_what_is_logged_under_a_normalizer_is_a_mean() -> None:
    class Accumulates(Model):
        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return self.compute_loss(self.net(x), y, normalizer=12)  # of three batches

    lines, _ = fit(Accumulates(), max_epochs=1, accumulate_grad_batches=3)
    plain, _ = fit(Model(), max_epochs=1, accumulate_grad_batches=3)
    assert lines.values("train/loss") == pytest.approx(plain.values("train/loss"))


def test_no_trainer_no_logging() -> None:
    model = Model(composed())
    loss = model.training_step((torch.randn(4, 4), torch.tensor([0, 1, 2, 0])), 0)
    loss.backward()
    assert isinstance(model.loss_record, LossRecord)
    assert not model.loss_record.total.requires_grad
    assert model.net[0].weight.grad.abs().max() > 0


def test_predicting_logs_nothing() -> None:
    class Predicting(Model):
        def predict_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            return self.compute_loss(self.net(x), y)

    outputs = trainer(Lines()).predict(Predicting("ce"), data())
    assert len(outputs) == 3


def test_barebones_trainer() -> None:
    run = L.Trainer(accelerator="cpu", barebones=True, max_steps=2)
    run.fit(Model(composed()), data())
    assert run.global_step == 2


def test_fabric() -> None:
    lines = Lines()
    fabric = Fabric(accelerator="cpu", devices=1, loggers=lines)
    model = Model(composed())
    wrapped, optimizer = fabric.setup(model, model.configure_optimizers())
    wrapped.mark_forward_method("training_step")
    for batch in data():
        optimizer.zero_grad()
        loss = wrapped.training_step(batch, 0)
        fabric.backward(loss)
        optimizer.step()
    assert {"train/loss", "train/loss/ce", "train/loss/focal"} <= lines.keys
    assert len(lines.values("train/loss")) == 3


def test_reductions_without_a_scalar_still_log_one() -> None:
    class PerRow(Model):
        def training_step(self, batch: Any, i: int) -> Tensor:
            rows = super().training_step(batch, i)
            assert rows.shape == (4,)
            return rows.mean()

    lines, _ = fit(PerRow(build_objective("ce", reduction="none")), max_epochs=1)
    reference, _ = fit(Model("ce"), max_epochs=1)
    assert lines.values("train/loss")[0] == pytest.approx(reference.values("train/loss")[0])


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true", "64-true"])
def test_precisions_keep_totals_in_float32_at_least(precision: str) -> None:
    seen: list[LossRecord] = []

    class Watched(Headless):
        def on_train_batch_end(self, *args: Any) -> None:
            seen.append(self.loss_record)

        def validation_step(self, batch: Any, i: int) -> None:
            super().validation_step(batch, i)
            seen.append(self.loss_record)

    objective = composed()
    objective.terms["entropy"].schedule = lambda step: 0.055
    run = trainer(
        Lines(), precision=precision, max_epochs=1, limit_train_batches=2, limit_val_batches=1
    )
    model = Watched(objective)
    run.fit(model, data(), data())
    expected = torch.float64 if precision == "64-true" else torch.float32
    assert len(seen) == 3
    for record in seen:
        assert record.total.dtype == expected
        assert record.total.isfinite()
        assert all(v.dtype == expected for v in record.terms.values())
        assert record.weights["entropy"].dtype == torch.float64
        # bfloat16 would have made 0.0549 of it, and logged and used that.
        assert record.weights["entropy"].item() == pytest.approx(0.055, rel=1e-6)


def test_module_built_under_the_precision_of_the_trainer() -> None:
    run = trainer(precision="bf16-true")
    with run.init_module():
        model = Model(Objective({"ce": Term(CrossEntropy(), 0.055)}))
    assert model.net[0].weight.dtype == torch.bfloat16
    assert model.loss.terms["ce"].weight.item() == pytest.approx(0.055, rel=1e-6)


def test_compiled_module() -> None:
    torch._dynamo.reset()
    lines, _ = fit(Model(composed()), max_epochs=1)
    model = Model(composed())
    compiled = torch.compile(model, backend="aot_eager")  # traces what eager does, and backward
    found, _ = fit(compiled, max_epochs=1)
    assert found.keys == lines.keys
    for key in lines.keys:
        assert found.values(key) == pytest.approx(lines.values(key), rel=1e-5, abs=1e-7)


def test_compiled_objective() -> None:
    torch._dynamo.reset()
    lines, _ = fit(Model(composed()), max_epochs=1)
    model = Model(composed())
    model.loss.compile(fullgraph=True, backend="aot_eager")
    found, _ = fit(model, max_epochs=1)
    for key in lines.keys:
        assert found.values(key) == pytest.approx(lines.values(key), rel=1e-5, abs=1e-7)


def test_stop_and_resume_is_a_straight_run(tmp_path: Path) -> None:
    straight = Model(composed())
    lines, _ = fit(straight, limit_val_batches=1.0)
    first = Model(composed())
    begun, run = fit(first, max_epochs=1, limit_val_batches=1.0)
    run.save_checkpoint(tmp_path / "half.ckpt")
    second, rest = Model(composed()), Lines()
    trainer(rest, limit_val_batches=1.0).fit(
        second, data(), data(), ckpt_path=tmp_path / "half.ckpt"
    )
    assert begun.lines + rest.lines == lines.lines
    for a, b in zip(parameters(straight), parameters(second), strict=True):
        assert torch.equal(a, b)


def test_old_checkpoint_loads_strictly(tmp_path: Path) -> None:
    plain = Plain()
    _, run = fit(plain, max_epochs=1)
    run.save_checkpoint(tmp_path / "plain.ckpt")
    model = Model.load_from_checkpoint(tmp_path / "plain.ckpt", loss=composed(), strict=True)
    assert model.state_dict().keys() == plain.state_dict().keys()
    for a, b in zip(parameters(plain), parameters(model), strict=True):
        assert torch.equal(a, b)


def test_penalties_read_the_module_without_being_told() -> None:
    lines, _ = fit(Model(build_objective(["ce", "weight_distribution"])), max_epochs=1)
    assert min(lines.values("train/loss/weight_distribution")) > 0


class Centres(nn.Module):
    """A loss with parameters of its own."""

    scope = "rows"

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(3, 3))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return (logits - self.centres[target]).square().sum(1)


def test_parameters_of_a_loss_are_trained_saved_and_may_have_options() -> None:
    class Grouped(Model):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameter_groups(), lr=0.1)

    model = Grouped(Objective({"ce": CrossEntropy(), "c": Term(Centres(), optimizer={"lr": 0.5})}))
    _, run = fit(model, max_epochs=1)
    assert model.loss.terms["c"].loss.centres.abs().max() > 0
    assert "loss.terms.c.loss.centres" in model.state_dict()
    groups = run.optimizers[0].param_groups
    assert [g["lr"] for g in groups] == [0.1, 0.5]
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_loss_must_be_an_objective() -> None:
    model = Model(nn.CrossEntropyLoss())
    with pytest.raises(
        TypeError, match=r"must be an Objective; found CrossEntropyLoss.*build_objective"
    ):
        model.training_step((torch.randn(4, 4), torch.zeros(4).long()), 0)


def test_several_calls_in_a_step() -> None:
    class Twice(Model):
        def training_step(self, batch: Any, i: int) -> Tensor:
            return super().training_step(batch, i) + super().training_step(batch, i)

    lines, _ = fit(Twice("ce"), max_epochs=1)
    assert len(lines.values("train/loss")) == 3
