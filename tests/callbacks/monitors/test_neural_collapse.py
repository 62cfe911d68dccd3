# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Neural collapse: plain numpy formulas, streaming and merging, the monitor in training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import train, train_twice

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks.monitors.neural_collapse import NeuralCollapseMonitor
from lightning_losses.metrics.representation.class_moments import nearest_centre
from lightning_losses.metrics.representation.neural_collapse import NeuralCollapse

SCALARS = ("nc1", "nc1_quotient", "nc2_norms", "nc2_angle_std", "nc2_angles", "nc2_etf")


def by_hand(x: np.ndarray, y: np.ndarray, w: np.ndarray | None, centre: str) -> dict[str, float]:
    """Every measure from its definition, over classes that have rows."""
    there = np.unique(y)
    k = len(there)
    means = np.stack([x[y == c].mean(0) for c in there])
    m = means - (x.mean(0) if centre == "rows" else means.mean(0))
    within = np.mean([np.outer(d, d) for c in there for d in x[y == c] - x[y == c].mean(0)], 0)
    between = m.T @ m / k
    etf = (np.eye(k) - 1 / k) / np.sqrt(k - 1)

    def frame(a: np.ndarray, suffix: str) -> dict[str, float]:
        norm = np.linalg.norm(a, axis=1)
        cosines = [a[i] @ a[j] / norm[i] / norm[j] for i in range(k) for j in range(i)]
        gram = a @ a.T
        return {
            f"nc2_norms{suffix}": norm.std() / norm.mean(),
            f"nc2_angle_std{suffix}": np.std(cosines),
            f"nc2_angles{suffix}": np.mean(np.abs(np.array(cosines) + 1 / (k - 1))),
            f"nc2_etf{suffix}": np.linalg.norm(gram / np.linalg.norm(gram) - etf),
        }

    found = {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-9)) / k,
        "nc1_quotient": np.trace(within) / np.trace(between),
        **frame(m, ""),
    }
    if w is not None:
        a, both = w[there], w[there] @ m.T
        found |= frame(a, "_weights")
        found["nc3"] = np.sum((a / np.linalg.norm(a) - m / np.linalg.norm(m)) ** 2)
        found["nc3_product"] = np.linalg.norm(both / np.linalg.norm(both) - etf)
    return found


def data(n: int, classes: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    w = torch.randn(classes, width, generator=g, dtype=torch.float64)
    x = torch.randn(n, width, generator=g, dtype=torch.float64) + 2 * w[y]
    return x, y, w


def stream(x: Tensor, y: Tensor, classes: int, sizes: list[int], **options: Any) -> NeuralCollapse:
    metric = NeuralCollapse(classes, x.shape[1], **options)
    for rows, target in zip(x.split(sizes), y.split(sizes), strict=True):
        metric.update(rows, target)
    return metric


def gathered(*ranks: NeuralCollapse) -> NeuralCollapse:
    """One metric with the states that torchmetrics makes of those of ranks."""
    whole = NeuralCollapse(ranks[0].classes, ranks[0].features)
    for name in ("count", "mean", "within"):
        setattr(whole, name, torch.stack([getattr(rank, name) for rank in ranks]))
    whole.epsilon = torch.stack([rank.epsilon for rank in ranks]).max()
    whole._update_count = 1
    return whole


# More features than classes, as many, fewer (S_B then has full rank), two classes, many.
@pytest.mark.parametrize(("classes", "width"), [(4, 9), (5, 5), (7, 3), (2, 6), (12, 4)])
@pytest.mark.parametrize("centre", ["classes", "rows"])
def test_the_definitions(classes: int, width: int, centre: Any) -> None:
    x, y, w = data(150, classes, width)
    found = stream(x, y, classes, [64, 64, 22], global_mean=centre).compute(w)
    for name, value in by_hand(x.numpy(), y.numpy(), w.numpy(), centre).items():
        # numpy inverts a rank-deficient S_B whose cutoff is on squares: fewer digits.
        assert float(found[name]) == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert "nc3" not in NeuralCollapse.compute(stream(x, y, classes, [150]))


def test_a_collapsed_network_has_zeros() -> None:
    classes = 5
    etf = torch.eye(classes, dtype=torch.float64) - 1 / classes
    y = torch.arange(40) % classes
    found = stream(etf[y] + 7, y, classes, [25, 15]).compute(3 * etf)
    for name in (*SCALARS, "nc3", "nc3_product"):
        assert abs(float(found[name])) < 1e-7, name
    assert torch.equal(nearest_centre(etf[y] + 7, found["class_mean"], found["class_count"]), y)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 2**31))
def test_batches_and_ranks_do_not_matter(sizes: list[int], seed: int) -> None:
    """However rows are dealt out; 1e5 + x would lose half the digits of plain sums of squares."""
    n = max(sum(sizes), 1)
    x, y, w = data(n, 4, 5, seed)
    x = x + 1e5
    one = stream(x, y, 4, [n]).compute(w)
    batches = sizes if sum(sizes) else [1]
    streamed = stream(x, y, 4, batches).compute(w)
    first = stream(x[: n // 3], y[: n // 3], 4, [n // 3])
    second = stream(x[n // 3 :], y[n // 3 :], 4, [n - n // 3])
    merged = gathered(first, NeuralCollapse(4, 5), second).compute(w)  # one rank saw no batch
    assert list(one) == list(streamed) == list(merged)
    for name in one:
        # nc1 inverts: rounding of means at 1e5 is 1e-11, and S_B may be as small as 0.01.
        torch.testing.assert_close(streamed[name], one[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(merged[name], one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_null_directions_of_rounded_features_are_not_inverted(
    dtype: torch.dtype, rel: float
) -> None:
    # Features in a plane of 8 dimensions, rounded. Inverting what rounding adds in the other 6
    # gives 89 and 119 for float32 and bfloat16, where 0.06 is right.
    g = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(8, 2, generator=g, dtype=torch.float64)).Q.T
    x, y, _ = data(300, 6, 2)
    right = float(stream(x, y, 6, [300]).compute()["nc1"])
    found = float(stream((x @ plane).to(dtype), y, 6, [300]).compute()["nc1"])
    assert found == pytest.approx(right, rel=rel)


def test_rows_that_do_not_count() -> None:
    x, y, w = data(90, 4, 5)
    noise = torch.full((6, 5), torch.nan, dtype=torch.float64)
    noise[3:] = 1e9
    target = torch.tensor([0, 1, 2, -100, -100, 3])  # the last by `valid`
    valid = torch.tensor([True] * 95 + [False])
    metric = NeuralCollapse(4, 5)
    metric.update(torch.cat([x, noise]), torch.cat([y, target]), valid)
    found, wanted = metric.compute(w), stream(x, y, 4, [90]).compute(w)
    assert int(found.pop("skipped")) == 3
    assert int(wanted.pop("skipped")) == 0
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def test_classes_without_rows_do_not_take_part() -> None:
    x, y, w = data(90, 3, 5)
    spread = torch.tensor([1, 4, 6])
    wide = torch.full((8, 5), 9.0, dtype=torch.float64).index_copy(0, spread, w)
    found, wanted = stream(x, spread[y], 8, [90]), stream(x, y, 3, [90])
    values = found.compute(wide)
    for name, value in wanted.compute(w).items():
        if value.ndim == 0:
            torch.testing.assert_close(values[name], value)
    near = nearest_centre(x, values["class_mean"], values["class_count"])
    centres = torch.stack([x[y == c].mean(0) for c in range(3)])
    assert torch.equal(near, spread[torch.cdist(x, centres).argmin(1)])


@pytest.mark.parametrize("case", ["nothing", "one class", "equal means"])
def test_what_is_undefined_is_left_out(case: str) -> None:
    metric = NeuralCollapse(3, 2)
    x = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [1.0, 0.1], [-1.0, 0.1]])
    y = torch.tensor([0, 0, 1, 1]) if case == "equal means" else torch.zeros(4).long()
    metric.update(x[: 0 if case == "nothing" else 4], y[: 0 if case == "nothing" else 4])
    assert sorted(metric.compute(torch.ones(3, 2))) == ["class_count", "class_mean", "skipped"]


def test_a_metric_follows_the_device_and_not_the_dtype_and_works_as_forward() -> None:
    x, y, _ = data(60, 3, 4)
    metric = NeuralCollapse(3, 4).to(torch.bfloat16)
    assert metric.mean.dtype == torch.float64
    metric(x[:40], y[:40])
    metric(x[40:], y[40:])
    assert float(metric.compute()["nc1"]) == pytest.approx(
        float(stream(x, y, 3, [60]).compute()["nc1"])
    )
    for bad, target in ((x[:, :3], y), (x, y[:-1]), (x, y + 1)):
        with pytest.raises(ValueError, match=r"needs features|class 3 is not"):
            metric.update(bad, target)
    with pytest.raises(ValueError, match="head_weight must be"):
        metric.compute(torch.ones(4, 3))
    with pytest.raises(ValueError, match="global_mean"):
        NeuralCollapse(3, 4, global_mean="all")  # type: ignore[arg-type]


# ------------------------------------------------------------------ the monitor
class Net(LossMixin, L.LightningModule):
    """Batch norm, dropout and a head; features as the option says."""

    def __init__(self, route: str = "features") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(8, 4, bias=False)
        self.loss, self.route = build_objective("ce"), route

    def step(self, batch: Any) -> Tensor:
        h = self.body(batch[0])
        if self.route == "hidden":
            return self.compute_loss(hidden=h, head_weight=self.head.weight, target=batch[1])
        named = {"features": h} if self.route == "features" else {}
        return self.compute_loss(logits=self.head(h), target=batch[1], **named)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.step(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def loader(self, n: int = 90) -> DataLoader[Any]:
        x, y, _ = data(n, 4, 6)
        y = y.clone()
        y[::7] = -100
        return DataLoader(TensorDataset(x.float(), y), batch_size=32)

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader()

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader(70)


def wanted(module: Net) -> dict[str, float]:
    x, y = module.loader(70).dataset.tensors  # type: ignore[attr-defined]
    x, y = x[y >= 0], y[y >= 0]
    with torch.no_grad():
        h = module.eval().body(x)
        prediction = module.head(h).argmax(1)
    w = module.head.weight.detach().double().numpy()
    found = by_hand(h.double().numpy(), y.numpy(), w, "classes")
    centres = torch.stack([h[y == c].mean(0) for c in range(4)])
    found["nc4"] = float((torch.cdist(h, centres).argmin(1) != prediction).double().mean())
    return {k: found[k] for k in ("nc1", "nc2_norms", "nc2_angles", "nc2_etf", "nc3", "nc4")}


@pytest.mark.parametrize(("route", "head"), [("features", "*head.w*"), ("hidden", None)])
def test_nothing_changes_and_the_numbers_are_right(route: str, head: str | None) -> None:
    monitor = NeuralCollapseMonitor(head=head)
    run = train_twice(lambda: Net(route), [monitor], own="neural_collapse/", max_epochs=2)
    expected = wanted(run.module)  # type: ignore[arg-type]
    logged = {k: float(v) for k, v in run.trainer.callback_metrics.items() if k[:6] == "neural"}
    assert logged == pytest.approx(
        {f"neural_collapse/{k}": v for k, v in expected.items()}, rel=1e-3, abs=1e-5
    )
    assert not run.module.loss._watched


def test_training_epochs_instead() -> None:
    monitor = NeuralCollapseMonitor("head.weight", "train")
    run = train_twice(Net, [monitor], own="neural_collapse/", max_epochs=2)
    assert float(run.trainer.callback_metrics["neural_collapse/nc1"]) > 0
    run.trainer.validate(run.module, verbose=False)
    assert "neural_collapse/nc1" not in run.trainer.callback_metrics
    assert not run.module.loss._watched


def test_after_a_resume_it_measures_what_it_would_have(tmp_path: Path) -> None:
    whole = train(Net, [NeuralCollapseMonitor("head.weight")], max_epochs=2)
    half = train(Net, [NeuralCollapseMonitor("head.weight")], max_epochs=1)
    half.trainer.save_checkpoint(tmp_path / "a.ckpt")
    rest = train(
        Net, [NeuralCollapseMonitor("head.weight")], ckpt_path=tmp_path / "a.ckpt", max_epochs=2
    )
    for key, value in whole.trainer.callback_metrics.items():
        if key.startswith("neural_collapse/"):
            # Dropout is drawn anew after a resume, so weights are close and not equal; the
            # monitor's part is that it logs the same keys with what the weights say.
            assert key in rest.trainer.callback_metrics, value
    expected = wanted(rest.module)  # type: ignore[arg-type]
    for key, value in expected.items():
        found = float(rest.trainer.callback_metrics[f"neural_collapse/{key}"])
        assert found == pytest.approx(value, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("route", "options", "message"),
    [
        ("none", {}, "passes no features"),
        ("features", {}, "without head_weight"),
        ("features", {"head": "*.weight"}, "matches 3 parameters"),
        ("features", {"head": "body.0.weight"}, r"is \(8, 6\), not"),
    ],
)
def test_it_says_once_what_is_missing(route: str, options: dict[str, Any], message: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train(lambda: Net(route), [NeuralCollapseMonitor(**options)], max_epochs=2)
    assert len([w for w in caught if "NeuralCollapseMonitor" in str(w.message)]) == 1
    with pytest.warns(UserWarning, match=message):
        train(lambda: Net(route), [NeuralCollapseMonitor(**options)])
    keys = {k for k in run.trainer.callback_metrics if k.startswith("neural_collapse/")}
    assert "neural_collapse/nc3" not in keys
    assert ("neural_collapse/nc4" in keys) == (route == "features")


def test_a_word_for_the_stage_is_checked() -> None:
    with pytest.raises(ValueError, match="write 'val' or 'train'"):
        NeuralCollapseMonitor(stage="fit")  # type: ignore[arg-type]
