# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of classes, labels and binary events; two processes: test_metrics_calibration."""

from __future__ import annotations

import pickle

import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor

from lightning_losses.metrics import StreamingCalibration
from lightning_losses.metrics.calibration.classwise import ClasswiseCalibration
from lightning_losses.metrics.calibration.top_label import binary_event


def rows(n: int = 300, classes: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(n, classes, generator=g, dtype=torch.float64)
    return z.softmax(1), torch.randint(classes, (n,), generator=g)


def binary_ece(p: Tensor, hit: Tensor, bins: int = 15) -> float:
    """The metric of one event, which has tests of its own."""
    metric = StreamingCalibration(bins)
    metric.update(p, hit)
    return float(metric.compute()["ece"])


def test_each_class_is_a_binary_event() -> None:
    p, y = rows()
    p[0], p[1] = torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 0.2, 0.4, 0.4])  # ends and edges
    metric = ClasswiseCalibration(max_classes=6)
    for start in range(0, 300, 77):
        metric.update(p[start : start + 77], y[start : start + 77])
    found = metric.compute()
    each = [binary_ece(p[:, k], y == k) for k in range(4)]
    assert found["ece_per_class"][:4].tolist() == pytest.approx(each, abs=1e-12)
    assert found["ece_per_class"][4:].isnan().all()
    assert float(found["ece_classwise"]) == pytest.approx(sum(each) / 4)
    assert found["support"].tolist() == [*torch.bincount(y, minlength=4).tolist(), 0, 0]


def test_each_label_is_a_binary_event() -> None:
    p, _ = rows()
    g = torch.Generator().manual_seed(1)
    labels = torch.rand(300, 4, generator=g) < p
    valid = torch.rand(300, 4, generator=g) < 0.8
    p[3, 2] = torch.nan  # counts nowhere, as does what is not valid
    metric = ClasswiseCalibration(4)
    metric.update(p.float(), labels.int(), valid)
    kept = valid & ~p.isnan()
    each = [binary_ece(p[kept[:, k], k].float(), labels[kept[:, k], k]) for k in range(4)]
    assert metric.compute()["ece_per_class"].tolist() == pytest.approx(each, abs=1e-9)
    assert metric.compute()["support"].tolist() == (labels & kept).sum(0).tolist()


def test_rows_that_do_not_count() -> None:
    p, y = rows()
    valid = torch.arange(300) % 3 > 0
    some, whole = ClasswiseCalibration(4), ClasswiseCalibration(4)
    some.update(p, torch.where(valid, y, -100), valid)
    whole.update(p[valid], y[valid])
    torch.testing.assert_close(some.compute(), whole.compute())
    empty = ClasswiseCalibration()
    empty.update(p[:0], y[:0])
    found = empty.compute()
    assert found["ece_classwise"].isnan()
    assert found["support"].sum() == 0


def test_it_stays_small_and_exact() -> None:
    p, y = rows()
    sizes = []
    for repeat in (1, 40):
        metric = ClasswiseCalibration()
        metric.update(p.repeat(repeat, 1), y.repeat(repeat))
        metric.half()
        assert metric.bin_sums.dtype == torch.float64
        sizes.append(len(pickle.dumps(metric)))
    assert abs(sizes[0] - sizes[1]) < 64
    on_meta = ClasswiseCalibration().to("meta")  # no values: waiting for one raises
    on_meta.update(torch.empty(8, 3, device="meta"), torch.empty(8, device="meta").long())
    assert on_meta.compute()["ece_classwise"].is_meta


def test_errors_say_what_to_write() -> None:
    metric, p = ClasswiseCalibration(3), torch.rand(5, 3)
    with pytest.raises(ValueError, match="max_classes=3"):
        metric.update(torch.rand(5, 4), torch.zeros(5).long())
    with pytest.raises(ValueError, match=r"target \(5, 2\)"):
        metric.update(p, torch.zeros(5, 2))
    with pytest.raises(ValueError, match="valid must be"):
        metric.update(p, torch.zeros(5).long(), torch.ones(4).bool())
    with pytest.raises(ValueError, match="bins=0"):
        ClasswiseCalibration(bins=0)


@pytest.mark.parametrize("shape", [(300,), (100, 3)])
def test_binary_events_and_labels(shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(2)
    z = 3 * torch.randn(shape, generator=g)
    y = (torch.rand(shape, generator=g) < z.double().sigmoid()).long()
    ignored = torch.rand(shape, generator=g) < 0.1
    metric = StreamingCalibration()
    metric.update(*binary_event(z.requires_grad_(), torch.where(ignored, -100, y)))
    found = metric.compute()
    p, hit = z.detach().double().sigmoid()[~ignored], y[~ignored]
    assert found["count"] == len(hit)
    assert float(found["nll"]) == pytest.approx(log_loss(hit, p), rel=1e-5)
    assert float(found["brier"]) == pytest.approx(brier_score_loss(hit, p), rel=1e-5)
    assert float(found["ece"]) == pytest.approx(binary_ece(p, hit == 1), abs=1e-6)
    # The score of the event is the one that the parts belong to.
    assert float(found["brier_confidence"]) == pytest.approx(float(found["brier"]), rel=1e-6)
    half = binary_event(z.detach().half(), y)
    assert half.confidence.dtype == half.nll.dtype == torch.float32
    far = binary_event(torch.tensor([200.0, -200.0]), torch.tensor([0, 1]))
    assert far.nll.tolist() == [200, 200]
    with pytest.raises(ValueError, match="top_label"):
        binary_event(torch.zeros(3, 2), torch.zeros(3))
