# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a loss tells beside its value is a mean over rows: in the record, the log, an epoch.

`test_distributed` compares what every key tells on one rank and on two.
"""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, Objective, Term
from lightning_losses.evaluation import terms as terms_module
from lightning_losses.kernels.eager import chunked
from lightning_losses.penalties import WeightDistribution


class Tells(nn.Module):
    """Minus log p, and the share of rows below one half, which no reduction has applied yet."""

    scope = "rows"
    row_function = True
    diagnostics: dict[str, Tensor]

    def forward(self, log_prob: Tensor) -> Tensor:
        self.diagnostics = {"wrong": log_prob.exp() < 0.5, "seven": torch.tensor(7.0)}
        return -log_prob


class Penalty(WeightDistribution):
    diagnostics: dict[str, Tensor]

    def forward(self, module: nn.Module) -> Tensor:
        self.diagnostics = {"layers": torch.tensor(2)}
        return super().forward(module)


N = 300


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden, head = torch.randn(N, 4, generator=g), torch.randn(5, 4, generator=g)
    target = torch.randint(5, (N,), generator=g)
    target[::3] = -100
    return hidden.requires_grad_(), head.requires_grad_(), target


def by_hand(hidden: Tensor, head: Tensor, target: Tensor) -> float:
    p = (hidden @ head.t()).softmax(1)[torch.arange(len(target)), target.clamp(min=0)]
    return float((p[target >= 0] < 0.5).float().mean())


@pytest.mark.parametrize("way", ["one pass", "chunks", "shared", "no grad", "logits", "weights"])
def test_means_over_the_rows_that_count(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, target = data()
    named: dict[str, Any] = {"hidden": hidden, "head_weight": head}
    if way == "chunks":  # several row functions of one pass, whose sums must add up
        monkeypatch.setattr(chunked, "MIN_CHUNK_ROWS", 64)
        monkeypatch.setattr(chunked, "CHUNK_BYTES", 1)
    if way == "logits":
        named = {"logits": hidden @ head.t()}
    if way == "weights":  # of the loss, not of what it tells
        named["sample_weight"] = torch.rand(N)
    objective = Objective(
        {"a": Term(Tells(), 0.3), "b": Tells()}, kernel="reference" if way == "shared" else "auto"
    )
    with torch.set_grad_enabled(way != "no grad"):
        record = objective(target=target, **named)
    expected = by_hand(hidden, head, target)
    for name in ("a", "b"):
        assert float(record.diagnostics[f"{name}/wrong"]) == pytest.approx(expected)
        assert float(record.diagnostics[f"{name}/seven"]) == 7
    assert len(record.diagnostics) == 4
    assert not any(value.requires_grad for value in record.diagnostics.values())
    assert all(value.ndim == 0 for value in record.diagnostics.values())


def test_nothing_counts_nothing_left_and_no_rows_at_all() -> None:
    hidden, head, target = data()
    objective = Objective({"tells": Tells()})
    record = objective(hidden=hidden, head_weight=head, target=target.fill_(-100))
    assert record.diagnostics == {"tells/wrong": 0, "tells/seven": 0}
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    assert Objective({"p": Penalty()})(module=net).diagnostics == {"p/layers": 2}
    # Of a call that tells nothing, nothing is told: not what the call before has left.
    loss = Tells()
    both = Objective({"tells": loss})
    both(torch.randn(3, 4), torch.tensor([0, 1, 2]))
    loss.forward = lambda log_prob: -log_prob  # type: ignore[method-assign]
    assert both(torch.randn(3, 4), torch.tensor([0, 1, 2])).diagnostics == {}


def test_a_value_that_is_no_row_is_refused() -> None:
    class Wrong(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            self.diagnostics = {"shape": logits}
            return logits.sum(1)

    with pytest.raises(ValueError, match=r"Wrong leaves 'shape'.*one a row, \(3,\)"):
        Objective({"wrong": Wrong()})(torch.randn(3, 4))


def test_half_precision_counts_beyond_its_integers() -> None:
    class Half(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            self.diagnostics = {"one": torch.ones(len(logits), dtype=torch.float16)}
            return logits.sum(1)

    record = Objective({"ones": Half()})(torch.randn(5000, 2))
    assert float(record.diagnostics["ones/one"]) == 1


def test_compiles_copies_and_saves() -> None:
    _, _, target = data()
    logits = torch.randn(N, 5, requires_grad=True)
    objective = Objective({"tells": Tells()}, kernel="reference")
    eager = objective(logits, target).diagnostics
    compiled = torch.compile(copy.deepcopy(objective), fullgraph=True, backend="eager")
    for _ in range(2):
        found = compiled(logits, target).diagnostics
        assert {k: float(v) for k, v in found.items()} == {k: float(v) for k, v in eager.items()}
    loss = Tells()
    loss(torch.randn(3, requires_grad=True))
    assert copy.deepcopy(loss).diagnostics.keys() == {"wrong", "seven"}
    assert not loss.state_dict()


class Model(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.loss = Objective({"tells": Tells()})
        self.scale = nn.Parameter(torch.ones(()))

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        self.compute_loss(logits=x * self.scale, target=y, name="again")
        return self.compute_loss(logits=x * self.scale, target=y)

    validation_step = training_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore")
def test_logged_in_training_and_of_an_epoch_by_rows() -> None:
    hidden, head, target = data(1)
    x = (hidden @ head.t()).detach()
    rows = TensorDataset(x, target)
    run = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, max_epochs=1,
    )  # fmt: skip
    run.fit(Model(), DataLoader(rows, 7), DataLoader(rows, 11))
    seen = run.callback_metrics
    expected = by_hand(hidden, head, target)
    for prefix in ("val", "val/again"):
        assert float(seen[f"{prefix}/diagnostics/tells/wrong"]) == pytest.approx(expected)
    last = [x[-(N % 7) :], target[-(N % 7) :]]
    share = (last[0].softmax(1)[torch.arange(N % 7), last[1].clamp(min=0)] < 0.5)[last[1] >= 0]
    found = float(seen["train/diagnostics/tells/wrong"])
    assert found == pytest.approx(float(share.float().mean()))
    assert "train/again/diagnostics/tells/seven" in seen


def test_rows_are_added_up_where_the_record_adds_up() -> None:
    """Numerators over divisors are the diagnostics, with terms of another divisor beside them."""
    x, y = torch.randn(6, 4), torch.tensor([0, 1, -100, 2, 3, 0])
    with torch.no_grad():
        record = Objective({"tells": Tells()}, reduction="sum")(x, y)
    key = "tells/wrong"
    assert float(record.divisors[key]) == 5
    assert record.numerators[key] / record.divisors[key] == record.diagnostics[key]
    assert set(record.means) == {"tells"}
    assert terms_module.collect_diagnostics("a", Term(nn.Identity()), 3) == {}
