# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Scores against other data, by hand, and nothing disturbed; ranks: test_post_hoc_calibration."""

from __future__ import annotations

import re
import warnings
from typing import Any

import lightning as L
import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from training import require_config_is_the_class, train, train_twice

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import OODMonitor
from lightning_losses.callbacks.monitors import ood
from lightning_losses.metrics.ood.scores import auroc


class Net(LossMixin, L.LightningModule):
    """Batch norm, dropout, a metric; passes to the loss what the route says."""

    def __init__(self, route: str = "logits", loss: str = "ce") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(8, 4)
        self.loss, self.route, self.calls = build_objective(loss), route, 0
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=4, ignore_index=-100)

    def training_step(self, batch: Any, _: int) -> Tensor:
        h = self.body(batch[0])
        self.calls += 1
        if self.route == "features":
            return self.compute_loss(features=h, target=batch[1])
        if self.route == "hidden":
            return self.compute_loss(hidden=h, head=self.head, target=batch[1])
        self.accuracy(self.head(h), batch[1].clamp(max=3))
        self.log("accuracy", self.accuracy)
        return self.compute_loss(logits=self.head(h), target=batch[1], features=h)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(70), batch_size=32)

    val_dataloader = train_dataloader


class Failing(Net):
    """Reads a target, which other data has not."""

    def training_step(self, batch: Any, index: int) -> Tensor:
        if batch[1].max() > 3:
            raise IndexError("no such class")
        return super().training_step(batch, index)


def rows(n: int, seed: int = 0, scale: float = 1.0, labels: int = 4) -> TensorDataset:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(labels, (n,), generator=g)
    x = scale * torch.randn(n, 6, generator=g)
    x[:, :4] += 3 * nn.functional.one_hot(y % 4, 4)
    y[::7] = -100
    return TensorDataset(x, y)


def other(n: int = 50) -> DataLoader[Any]:
    """Labels of classes that the model has not, in random order."""
    return DataLoader(rows(n, 1, scale=2.0, labels=9), batch_size=16, shuffle=True)


def chance(inside: Tensor, outside: Tensor) -> float:
    pairs = [(a > b) + (a == b) / 2 for a in inside.tolist() for b in outside.tolist()]
    return sum(pairs) / len(pairs)


def passed(inside: Tensor, outside: Tensor) -> float:
    """The share outside that the lowest of the best 95 % inside lets through."""
    best = sorted(inside.tolist(), reverse=True)
    least = next(s for i, s in enumerate(best, 1) if i >= 0.95 * len(best))
    return sum(s >= least for s in outside.tolist()) / len(outside)


def by_hand(module: Net) -> dict[str, float]:
    found: dict[str, float] = {}

    def features(data: TensorDataset) -> tuple[Tensor, Tensor]:
        x, y = (t[data.tensors[1] != -100] for t in data.tensors)
        with torch.no_grad():
            return module.eval().body(x), y

    (h, y), (o, _) = features(rows(70)), features(rows(50, 1, 2.0, 9))
    with torch.no_grad():
        z, zo = module.head(h).double(), module.head(o).double()
    for name, score in (
        ("energy", lambda t: t.logsumexp(1)),
        ("confidence", lambda t: t.softmax(1).amax(1)),
    ):
        found[f"{name}_auroc"] = chance(score(z), score(zo))
        found[f"{name}_fpr95"] = passed(score(z), score(zo))
    h, o = h.double(), o.double()
    of_halves: dict[str, list[float]] = {}
    for half in (0, 1):
        x, label = h[1 - half :: 2], y[1 - half :: 2]
        means = torch.stack([x[label == c].mean(0) for c in range(4)])
        left = x - means[label]
        cov = left.t() @ left / len(x)
        cov = 0.999 * cov + 0.001 * cov.diagonal().mean() * torch.eye(8)
        laws = [torch.distributions.MultivariateNormal(m, cov) for m in means]
        prior = torch.stack([(label == c).double().mean() for c in range(4)])
        density = [torch.stack([law.log_prob(t) for law in laws], 1) for t in (h[half::2], o)]
        for name, sides in (
            ("mahalanobis", [d.amax(1) for d in density]),
            ("gmm", [(d + prior.log()).logsumexp(1) for d in density]),
        ):
            of_halves.setdefault(f"{name}_auroc", []).append(chance(*sides))
            of_halves.setdefault(f"{name}_fpr95", []).append(passed(*sides))
    return found | {name: sum(two) / 2 for name, two in of_halves.items()}


@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_nothing_changes_and_the_numbers_are_right(route: str) -> None:
    run = train_twice(lambda: Net(route), [OODMonitor(other())], own="ood/", max_epochs=2)
    logged = {k: float(v) for k, v in run.trainer.callback_metrics.items() if k[:4] == "ood/"}
    expected = {f"ood/{k}": v for k, v in by_hand(run.module).items()}  # type: ignore[arg-type]
    assert logged == pytest.approx(expected, abs=1e-5)
    assert 0.5 < logged["ood/mahalanobis_auroc"] < 1
    assert len(logged) == 8


def test_what_a_step_does_not_pass_is_not_logged() -> None:
    class Own(Net):
        def ood_dataloader(self) -> DataLoader[Any]:
            return other()

    make = lambda: Own("features", "supcon")  # noqa: E731
    run = train(make, [OODMonitor(name="far")], max_epochs=1, num_sanity_val_steps=0)
    far = {k for k in run.trainer.callback_metrics if k.startswith("far/")}
    assert far == {f"far/{s}_{m}" for s in ("mahalanobis", "gmm") for m in ("auroc", "fpr95")}
    assert run.module.calls == 6  # three batches of training, three of validation
    found = run.trainer.test(run.module, Own().train_dataloader(), verbose=False)[0]
    assert found["far/gmm_auroc"] == pytest.approx(
        float(run.trainer.callback_metrics["far/gmm_auroc"])
    )


def test_says_why_it_cannot_measure() -> None:
    cases = (
        (OODMonitor(), Net, "ood_dataloader"),
        (OODMonitor([]), Net, "other data had no row"),
        (OODMonitor(other), Failing, "fails on the other data.*IndexError: no such class"),
    )
    for monitor, make, text in cases:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = train(make, [monitor], max_epochs=2)
        said = [w for w in caught if "OODMonitor" in str(w.message)]
        assert len(said) == 1
        assert re.search(text, str(said[0].message))
        assert not [k for k in run.trainer.callback_metrics if k.startswith("ood/")]
    with pytest.raises(ValueError, match="max_rows"):
        OODMonitor(max_rows=1)
    with pytest.raises(ValueError, match="shrinkage"):
        OODMonitor(shrinkage=2)


def test_a_few_rows_of_each() -> None:
    """Evenly spaced rows, of as many batches as fast_dev_run allows."""
    run = train(Net, [OODMonitor(other, max_rows=10)], max_epochs=1, limit_val_batches=2)
    assert 0 <= float(run.trainer.callback_metrics["ood/energy_auroc"]) <= 1


def test_ranks_share_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch once; as many passes on every rank, for a model that is split needs all."""

    class Limits:
        testing, limit_val_batches = False, 1.0

    for ranks in (1, 2, 3):
        shares = []
        for rank in range(ranks):
            monkeypatch.setattr(ood, "num_row_ranks", lambda _, n=ranks: n)
            monkeypatch.setattr(ood, "row_rank", lambda _, r=rank: r)
            shares.append(list(ood._share(Limits(), range(7))))  # type: ignore[arg-type]
            sampled = DataLoader(range(4), sampler=DistributedSampler(range(4), 2, 0))  # type: ignore[arg-type, var-annotated]
            assert len(list(ood._share(Limits(), sampled))) == 2  # type: ignore[arg-type]
            assert not list(ood._share(Limits(), []))  # type: ignore[arg-type]
        assert len({len(share) for share in shares}) == 1
        assert sorted(b for share in shares for b, counts in share if counts) == list(range(7))
    limit = Limits()
    limit.limit_val_batches = 2  # type: ignore[assignment]
    assert len(list(ood._share(limit, range(7)))) == 2  # type: ignore[arg-type]


def test_auroc_of_scores_that_a_sigmoid_would_make_equal() -> None:
    inside, outside = torch.tensor([100.0, 101.0, 50.0]), torch.tensor([99.0, 50.0])
    assert float(auroc(inside, outside)) == pytest.approx((2 + 2 + 0.5) / 6)
    assert float(auroc(inside * 0, outside * 0)) == 0.5
    with pytest.raises(ValueError, match="both sides"):
        auroc(inside, outside[:0])


def test_the_config_is_the_class() -> None:
    require_config_is_the_class("ood", OODMonitor)
