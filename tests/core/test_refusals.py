# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calls whose number would not be what was meant: refused, or computed as meant."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import train

from lightning_losses import LossMixin, Objective, Term, build_objective, softmax_stats
from lightning_losses.callbacks import CalibrationMonitor, EntropyMonitor, LogitHealthMonitor
from lightning_losses.losses import (
    CompSum,
    Corn,
    CrossEntropy,
    Focal,
    OrthogonalProjection,
    StableMax,
)
from lightning_losses.targets import HLGauss
from lightning_losses.weighting import KLDRO

Z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(4)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"ignore_index": 0}, r"No term reads ignore_index=: write build_objective"),
        ({"reduction": "sum"}, r"build_objective\(\.\.\., reduction"),
        ({"weight": torch.ones(5)}, r"class_weight"),
        ({"label_smoothing": 0.1}, r"loss\.NAME\.label_smoothing"),
        ({"soft_cap": 1.0}, r"No term reads soft_cap=: write softcap="),
        ({"sample_weights": torch.ones(4)}, r"write sample_weight="),
        ({"normalizer": -1}, r"normalizer .* at least 0, got -1"),
        ({"normalizer": math.nan}, r"normalizer .* at least 0, got nan"),
    ],
)
def test_options_that_nobody_reads(named: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_objective("ce")(Z, Y, **named)


def test_a_name_of_the_users_own_is_one_that_a_loss_reads() -> None:
    class Own(nn.Module):
        scope = "rows"

        def forward(self, logits: Tensor, weight: Tensor) -> Tensor:
            return logits.sum(1) * weight

    Objective({"ce": CrossEntropy()})(Z, Y, trunk=torch.ones(3))
    assert Objective({"own": Own()})(Z, Y, weight=torch.zeros(4)).total == 0


def test_a_mapping_names_no_second_head_for_statistics() -> None:
    class Both(nn.Module):
        def forward(self, log_prob: Tensor, logits: Tensor, target: Tensor) -> Tensor:
            return -log_prob

    for parameter in ("logits", "target"):
        with pytest.raises(ValueError, match=f"inputs maps {parameter} of Both"):
            Term(Both(), inputs={parameter: "other"})
    # A mapped statistic is what it is mapped to, whoever stands beside it.
    mapped = Term(CrossEntropy(), inputs={"log_prob": "own"})
    own = -torch.ones(4)
    assert Objective({"a": mapped})(Z, Y, own=own).total == 1
    assert Objective({"a": mapped, "f": Focal()})(Z, Y, own=own).terms["a"] == 1


def test_an_overridden_forward_is_not_passed_over() -> None:
    class Doubled(CrossEntropy):
        def forward(self, log_prob: Tensor) -> Tensor:
            return -2 * log_prob

    plain, doubled = (Objective({"a": loss})(Z, Y).total for loss in (CrossEntropy(), Doubled()))
    torch.testing.assert_close(doubled, 2 * plain)


def test_logits_are_not_capped_for_one_loss_and_plain_for_another() -> None:
    whole_rows = StableMax()
    for name, value in (("softcap", 0.5), ("temperature", torch.ones(4)), ("logit_scale", 2.0)):
        with pytest.raises(ValueError, match=f"{name} was passed, but term 'a' reads the logits"):
            Objective({"a": whole_rows})(Z, Y, **{name: value})
    Objective({"a": CrossEntropy(0.1)})(Z, Y, softcap=0.5)


def test_a_teacher_of_one_column_is_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"teacher_logits must have shape \(4, 5\).* \(4, 1\)"):
        build_objective("kd")(Z, Y, teacher_logits=torch.randn(4, 1))


def test_one_number_for_the_batch_has_no_rows_to_weigh() -> None:
    term = Term(OrthogonalProjection(), row_weighting=KLDRO())
    with pytest.raises(ValueError, match="no row_weighting"):
        Objective({"opl": term})(target=Y, features=torch.randn(4, 3))


def test_weights_are_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        Term(CrossEntropy(), math.inf)
    with pytest.raises(ValueError, match="ignore_index is one label"):
        Objective({"ce": CrossEntropy()}, ignore_index=None)  # type: ignore[arg-type]


# -- targets that name no column of the logits -----------------------------------------------------


class Module(LossMixin, L.LightningModule):
    def __init__(self, loss: Objective, outputs: int, top: int) -> None:
        super().__init__()
        self.net, self.loss, self.top = nn.Linear(3, outputs), loss, top

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self.compute_loss(logits=self.net(batch[0]), target=batch[1])

    validation_step = training_step

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(torch.randn(32, 3), torch.arange(32) % self.top), 16)

    val_dataloader = train_dataloader

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


# Levels 0 to 4 beside 4 thresholds; a binary score (N, 1); ages beside 51 bins.
@pytest.mark.parametrize(
    ("key", "outputs", "top"),
    [("coral", 4, 5), ("corn", 4, 5), ("ordinal_nll", 4, 5), ("bce", 1, 2), ("hl_gauss", 51, 90)],
)
def test_monitors_do_not_take_every_integer_for_a_class(
    key: str, outputs: int, top: int, tmp_path: Path
) -> None:
    loss = Objective({"corn": Corn(num_classes=5)}) if key == "corn" else build_objective(key)
    if key == "hl_gauss":
        bins = HLGauss(0.0, 100.0, 51)
        loss = Objective({"ages": Term(CrossEntropy(), target_transform=bins)})
    monitors = [EntropyMonitor(every_n_steps=1), LogitHealthMonitor(every_n_steps=1)]
    run = train(
        lambda: Module(loss, outputs, top),
        [*monitors, CalibrationMonitor()],
        default_root_dir=tmp_path,
    )
    assert run.trainer.global_step == 2


def test_nan_logits_beside_a_top_level_are_not_blamed_on_the_target() -> None:
    with pytest.raises(ValueError, match=r"logits .* holds NaN"):
        build_objective("coral")(torch.full((2, 4), math.nan), torch.tensor([4, 0]))


def test_a_class_is_still_a_class() -> None:
    objective = Objective({"c": CompSum(0.0)})
    objective.watch("me", "log_prob", "target")
    record = objective(Z, Y)
    assert record.stats.log_prob is not None
    assert record.captured["target"].dtype == torch.int64


# Integer codes of a quantised head, and eight-bit floats, which are codes too: each lacks a scale.
CODES = (torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("dtype", [*CODES, torch.int32, torch.bool], ids=str)
@pytest.mark.parametrize("name", ["hidden", "head_weight", "head_bias", "logits"])
def test_codes_are_not_taken_for_numbers(name: str, dtype: torch.dtype) -> None:
    given = {
        "hidden": torch.ones(4, 3),
        "head_weight": torch.full((5, 3), 2.0),
        "head_bias": torch.ones(5),
    }
    if name == "logits":
        given = {"logits": torch.ones(4, 5)}
    given[name] = given[name].to(dtype)
    target = torch.tensor([0, 1, 2, 4])
    words = rf"{name} .*float, got {dtype}: .*{name}\.float\(\)"
    if dtype in CODES and (dtype.is_floating_point or name.startswith("head")):
        words = rf"{name} .*float, got {dtype}: its codes lack their scale: dequantize it"
    with pytest.raises(ValueError, match=words):
        build_objective("ce")(**given, target=target)
    with pytest.raises(ValueError, match=words):
        softmax_stats(**given, target=target)


# -- weights, temperatures and divisors ------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sample_weight_that_is_no_number(bad: float, reduction: str) -> None:
    objective = build_objective("ce", reduction=reduction)
    with pytest.raises(ValueError, match="sample_weight must be finite"):
        objective(Z, Y, sample_weight=torch.tensor([1.0, bad, 1, 1]))


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("mdca", {"logits": Z}),
        ("opl", {"features": torch.randn(4, 3)}),
        ("dist", {"logits": Z, "teacher_logits": Z.flip(0)}),
    ],
)
def test_rows_of_a_batch_loss_have_no_weight(key: str, named: dict[str, Any]) -> None:
    """Losses of batches and of pairs gave the number that they have without weights."""
    weight = torch.tensor([3.0, 1, 1, 0.2])
    with pytest.raises(ValueError, match=f"sample_weight weighs rows, and {key} is one number"):
        build_objective(key)(target=Y, sample_weight=weight, **named)
    both = build_objective(["ce", key])(**{"logits": Z, **named}, target=Y, sample_weight=weight)
    alone = build_objective("ce")(Z, Y, sample_weight=weight)
    torch.testing.assert_close(both.terms["ce"], alone.terms["ce"])


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"temperature": math.inf}, "temperature must be positive and finite"),
        ({"temperature": torch.ones(4).bool()}, "temperature must be a number a row"),
        ({"logit_scale": 0}, "logit_scale must be finite and not 0"),
        ({"max_valid": "1"}, "max_valid is a number of rows"),
        ({"max_valid": 2.0}, "max_valid is a number of rows"),
        ({"normalizer": torch.tensor(4.0, requires_grad=True)}, "normalizer gets no gradient"),
        ({"sample_weight": torch.ones(4).to(torch.float8_e4m3fn)}, "sample_weight must be float"),
        ({"logits": torch.ones(4, 5).to_sparse()}, "logits must be a dense tensor"),
        ({"target": torch.ones(4, 5).to_sparse()}, "target must be a dense tensor"),
        ({"logits": torch.nested.nested_tensor([torch.ones(2, 5)] * 2)}, "to_padded_tensor"),
    ],
)
def test_options_that_are_no_numbers(named: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        build_objective("ce")(**{"logits": Z, "target": Y, **named})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Term(CrossEntropy), r"write CrossEntropy\(\.\.\.\)"),
        (lambda: Objective({"a": CrossEntropy}), r"write CrossEntropy\(\.\.\.\)"),
        (lambda: Term("ce"), "build_objective"),
        (lambda: Term(torch.nn.functional.cross_entropy), "nn.Module as its base"),
        (lambda: Term(CrossEntropy(), target_transform="hl_gauss"), "target_transform must be"),
        (lambda: Term(CrossEntropy(), row_weighting="kl_dro"), "row_weighting must be"),
        (lambda: Term(CrossEntropy(), inputs=["a"]), "inputs must be a mapping"),
        (lambda: Term(CrossEntropy(), optimizer="adam"), "optimizer must be a mapping"),
        (lambda: Term(CrossEntropy(), lambda step: None), "A schedule is step -> float"),
        (lambda: Term(CrossEntropy(), {"start": "a", "end": 1}), "start of a schedule"),
        (lambda: Term(CrossEntropy(), {"end": 1, "steps": math.inf}), "steps of a schedule"),
        (lambda: Objective(["ce"]), "terms must be a mapping"),
        (lambda: Objective(CrossEntropy()), "terms must be a mapping"),
        (lambda: Objective({"a": CrossEntropy()}, providers=["a"]), "providers must be a mapping"),
        (lambda: Objective({"a": CrossEntropy()}, providers={"a": 3}), "providers must be nn.Mod"),
    ],
)
def test_parts_that_are_no_modules(make: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dice": {"square": "false"}}, "Dice needs square to be a bool, got 'false'"),
        ({"trades": {"beta": "6"}}, "Trades needs beta to be a number, got '6'"),
        ({"trades": {"beta": math.nan}}, "Trades needs beta to be a number, got nan"),
        ({"trades": {"beta": None}}, "Trades needs beta to be a number, got None"),
        ({"dice_ce": {"ignore_index": 1.5}}, "DiceCE needs ignore_index to be an integer, got 1.5"),
    ],
)
def test_settings_are_what_they_are_declared(settings: dict[str, Any], said: str) -> None:
    """A string is true, and a NaN as beta a loss of NaN from the first step."""
    with pytest.raises(ValueError, match=f"Term '{next(iter(settings))}': {said}"):
        build_objective(settings)
