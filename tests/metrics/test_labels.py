# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics refuse what is no label, no class and no probability; frames that are not centred."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_losses.metrics import (
    ClasswiseCalibration,
    ConfidenceHistogram,
    NeuralCollapse,
    StreamingCalibration,
    binary_event,
)

Z = torch.tensor([2.0, -1.0, 0.5, -3.0])
HAPPENED = torch.tensor([1, 0, 1, 0])


def ece(logits: Tensor, target: Tensor, **options: int) -> float:
    metric = StreamingCalibration()
    metric.update(*binary_event(logits, target, **options))
    return float(metric.compute()["ece"])


@pytest.mark.parametrize("target", [HAPPENED, HAPPENED.bool(), HAPPENED.float(), HAPPENED.int()])
def test_events_in_any_dtype(target: Tensor) -> None:
    assert ece(Z, target) == ece(Z, HAPPENED)


@pytest.mark.parametrize("target", [255 * HAPPENED, 2 * HAPPENED - 1, HAPPENED + 1, HAPPENED / 2])
def test_events_that_say_neither(target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"binary_event needs targets of 0 and 1, found"):
        binary_event(Z, target)
    labels = Z[:, None].expand(4, 3)
    with pytest.raises(ValueError, match=r"ClasswiseCalibration needs targets of 0 and 1, found"):
        ClasswiseCalibration(3).update(labels.sigmoid(), target[:, None].expand(4, 3))


def test_labels_that_nobody_knows_are_left_out() -> None:
    target = torch.tensor([1, -1, 1, -1])
    known = torch.tensor([0, 2])
    assert ece(Z, target, ignore_index=-1) == ece(Z[known], HAPPENED[known])
    p = Z.sigmoid()[:, None].expand(4, 2)
    metric, expected = ClasswiseCalibration(2), ClasswiseCalibration(2)
    labels = target[:, None].expand(4, 2)
    metric.update(p, labels, valid=labels >= 0)
    expected.update(p[known], labels[known])
    for name, value in expected.compute().items():
        assert torch.equal(metric.compute()[name], value), name


@pytest.mark.parametrize("wrong", [-1, 3, -100])
def test_classes_without_a_column(wrong: int) -> None:
    p = torch.full((4, 3), 1 / 3)
    target = torch.tensor([0, 1, wrong, 2])
    with pytest.raises(ValueError, match=rf"got 3 columns and class {wrong}: .*valid=target >= 0"):
        ClasswiseCalibration(3).update(p, target)
    metric = ClasswiseCalibration(3)
    metric.update(p, target, valid=torch.tensor([True, True, False, True]))
    assert metric.compute()["support"].tolist() == [1, 1, 1]


def test_what_is_no_probability_is_counted_apart() -> None:
    p = torch.tensor([[0.2, 1.5], [-0.5, 0.4], [math.nan, 1.0]])
    metric = ClasswiseCalibration(2)
    metric.update(p, torch.tensor([1, 1, 0]))
    found = metric.compute()
    assert int(found["skipped"]) == 3
    # 0.2 did not happen; 0.4 happened, 1.0 did not.
    assert found["ece_per_class"].tolist() == pytest.approx([0.2, 0.8])


def test_confidences_that_are_none() -> None:
    histogram = ConfidenceHistogram(bins=8)
    for wrong in (1.5, -0.2, 50.0):
        with pytest.raises(ValueError, match=r"confidences in \[0, 1\], found"):
            histogram.update(torch.tensor([0.5, wrong]))
    assert int(histogram.compute().sum()) == 0
    histogram.update(torch.tensor([0.5, 1.5, math.nan]), torch.tensor([True, False, True]))
    histogram.update(torch.tensor([1.0 + 2**-8]))  # what bfloat16 rounds to
    assert int(histogram.compute().sum()) == 2


# -- frames that are orthogonal and not centred ----------------------------------------------------


def collapsed(lengths: Tensor, head: Tensor | None = None) -> dict[str, Tensor]:
    """Three rows a class, all on its axis: the end of imbalanced training without bias."""
    classes = len(lengths)
    metric = NeuralCollapse(classes, classes)
    target = torch.arange(classes).repeat(3)
    noise = 1e-9 * torch.randn(3 * classes, classes, generator=torch.Generator().manual_seed(0))
    metric.update((torch.diag(lengths)[target] + noise).double(), target)
    return metric.compute(torch.diag(lengths) if head is None else head)


def test_an_orthogonal_frame_is_collapsed() -> None:
    lengths = torch.tensor([1.0, 2.0, 5.0, 9.0]).double()
    found = collapsed(lengths)
    assert found["nc2_orthogonal"].item() == pytest.approx(0, abs=1e-6)
    assert found["nc2_orthogonal_weights"].item() == pytest.approx(0, abs=1e-6)
    assert found["nc3_uncentred"].item() == pytest.approx(0, abs=1e-6)
    # Weights of other lengths, as w = sqrt(n) m has them, are still aligned.
    other = collapsed(lengths, torch.diag(lengths.sqrt()))
    assert other["nc3_uncentred"].item() == pytest.approx(0, abs=1e-6)
    # What looks about the middle says otherwise.
    assert found["nc2_etf"] > 0.1
    assert other["nc3"] > 0.01


def test_frames_that_are_not_orthogonal() -> None:
    """A simplex frame has cosines of -1/(K - 1); turned weights are not aligned."""
    classes = 4
    simplex = torch.eye(classes) - 1 / classes
    metric = NeuralCollapse(classes, classes)
    target = torch.arange(classes).repeat(2)
    metric.update(simplex[target].double(), target)
    found = metric.compute(-simplex.double())
    assert found["nc2_etf"].item() == pytest.approx(0, abs=1e-6)
    assert found["nc2_orthogonal"].item() == pytest.approx(1 / 3, abs=1e-6)
    assert found["nc3_uncentred"].item() == pytest.approx(4, abs=1e-6)


def test_a_class_mean_without_direction() -> None:
    metric = NeuralCollapse(3, 2)
    metric.update(torch.tensor([[0.0, 0], [1, 0], [0, 1]]).double(), torch.arange(3))
    found = metric.compute(torch.eye(3, 2).double())
    assert "nc2_orthogonal" not in found
    assert "nc3_uncentred" not in found
    assert "nc1" in found
