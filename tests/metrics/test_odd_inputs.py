# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What looks like an input and is none: refused, or counted apart; never a number in silence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_losses import metrics as M

Z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
P, C, RIGHT = Z.softmax(1), Z.softmax(1).amax(1), Z.argmax(1) == Y


def fed(metric: Any, *args: Any, **kwargs: Any) -> Any:
    metric.update(*args, **kwargs)
    return metric.compute()


#: What is tried, and a word of the message.
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "correct -1 1": (lambda: fed(M.StreamingCalibration(), C, 2 * RIGHT.long() - 1), "0 and 1"),
    "correct 0 255": (lambda: fed(M.StreamingCalibration(), C, 255 * RIGHT.long()), "0 and 1"),
    "correct half": (lambda: fed(M.StreamingCalibration(), C, RIGHT / 2), "0 and 1"),
    "correct NaN": (lambda: fed(M.StreamingCalibration(), C, C * math.nan), "0 and 1"),
    "confidence (N, 1)": (lambda: fed(M.StreamingCalibration(), C[:, None], RIGHT), "one shape"),
    "confidence complex": (lambda: fed(M.StreamingCalibration(), C + 0j, RIGHT), "real"),
    "valid -1": (
        lambda: fed(M.StreamingCalibration(), C, RIGHT, valid=-torch.ones(8)),
        "True and False",
    ),
    "valid weights": (
        lambda: fed(M.StreamingCalibration(), C, RIGHT, valid=torch.full((8,), 0.5)),
        "True and False",
    ),
    "class -1": (lambda: M.top_label(Z, Y - 1), "ignore_index=-1"),
    "class 3": (lambda: M.top_label(Z, Y + 1), "class 3"),
    "class float": (lambda: M.top_label(Z, Y.float()), "class indices"),
    "no class": (lambda: M.top_label(Z[:, :0], Y), "at least one class"),
    "class (N, 1)": (lambda: M.top_label(Z, Y[:, None]), "target"),
    "classwise float": (lambda: fed(M.ClasswiseCalibration(3), P, Y + 0.5), "integers"),
    "classwise valid": (
        lambda: fed(M.ClasswiseCalibration(3), P, Y, torch.full((8,), -1)),
        "True and False",
    ),
    "histogram valid": (lambda: fed(M.ConfidenceHistogram(), C, torch.ones(1)), "one a row"),
    "groups logits": (lambda: fed(M.BrierByPrediction(), Z, Y), "sum to 1"),
    "groups class 3": (lambda: fed(M.BrierByPrediction(), P, Y + 1), "class 3"),
    "kernel logits": (lambda: M.ece_kde(Z, Y), "sum to 1"),
    "kernel percent": (lambda: M.ece_kde(100 * P, Y), "sum to 1"),
    "kernel (N, 1)": (lambda: M.ece_kde(P, Y[:, None]), "squeeze"),
    "kernel one-hot": (lambda: M.ece_kde(P, torch.eye(3)[Y]), "one-hot"),
    "sets logits": (lambda: M.prediction_sets(Z, 0.5), "softmax"),
    "sets NaN": (lambda: M.prediction_sets(P, math.nan), "threshold"),
    "scores (N, 1)": (lambda: M.conformal_threshold(C[:, None]), "(n,)"),
    "alpha percent": (lambda: M.conformal_threshold(C, 10), "alpha"),
    "psi negative": (lambda: M.psi(torch.tensor([5.0, -3]), torch.tensor([4.0, 4])), "at least 0"),
    "psi shares": (lambda: M.psi(torch.tensor([0.5, 0.5]), torch.tensor([4.0, 4])), "shares"),
    "psi NaN": (lambda: M.psi(torch.tensor([4.0, 4]), torch.tensor([4, math.nan])), "at least 0"),
    "crps negative": (lambda: M.crps_gaussian(C, -C, C), "at least 0"),
    "nll negative": (lambda: M.nll_gaussian(C, -C, C), "at least 0"),
    "level percent": (lambda: M.quantile_score(C, C, torch.tensor(90.0)), "level"),
    "bounds crossed": (lambda: M.interval_score(C + 1, C, C), "above"),
    "quantiles (N, 1)": (lambda: M.quantile_score(C[:, None], C, 0.5), "squeeze"),
    "quantiles infinite": (lambda: M.isotonic_quantiles(torch.tensor([1.0, math.inf])), "finite"),
    "quantile weights": (lambda: M.isotonic_quantiles(P, torch.tensor([1.0, 0, 1])), "positive"),
    "residual negative": (lambda: M.split_point_scale(C, -C, C), "softplus"),
    "mutual information float": (
        lambda: M.diffusion_spectral_mutual_information(Z, Y.float()),
        "class indices",
    ),
    "collapse float": (
        lambda: M.NeuralCollapse(features=3, classes=3).update(Z, Y + 0.5),
        "integers",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    what, word = REFUSED[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the word is looked for below)
        what()
    assert word in str(error.value)


def test_counted_apart() -> None:
    assert int(fed(M.StreamingCalibration(), 100 * C, RIGHT)["nan_rows"]) == 8
    scores = fed(M.StreamingCalibration(), C, RIGHT, brier=torch.full((8,), 5.0))
    assert int(scores["nan_rows"]) == 8
    assert int(fed(M.BrierByPrediction(), P * math.nan, Y)["skipped"]) == 8


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int64, torch.float32])
def test_one_and_zero_in_any_dtype(dtype: torch.dtype) -> None:
    found = fed(M.StreamingCalibration(), C, RIGHT.to(dtype), valid=torch.ones(8, dtype=dtype))
    assert torch.equal(found["ece"], fed(M.StreamingCalibration(), C, RIGHT)["ece"])


def same(left: Tensor, right: Tensor, tolerance: float = 0.0) -> bool:
    return torch.allclose(left.double(), right.double(), atol=tolerance)


def test_small_integers_half_precision_and_strides() -> None:
    strided = P.T.contiguous().T
    assert same(M.top_label(Z, Y.to(torch.int8)).nll, M.top_label(Z, Y).nll)
    assert same(M.ece_kde(strided, Y, 0.1), M.ece_kde(P, Y, 0.1))
    assert same(M.ece_kde(P.bfloat16(), Y, 0.1), M.ece_kde(P, Y, 0.1), 0.05)
    half = fed(M.BrierByPrediction(), P.bfloat16(), Y)["brier"]
    assert same(half, fed(M.BrierByPrediction(), strided, Y)["brier"], 0.02)


def test_rows_without_a_class_do_not_count() -> None:
    unknown = torch.cat([Z, torch.full((2, 3), 9.0)]), torch.cat([Y, torch.tensor([-1, -100])])
    found = M.diffusion_spectral_mutual_information(*unknown)
    assert torch.equal(found, M.diffusion_spectral_mutual_information(Z, Y))


def test_classic_entropy() -> None:
    square = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert float(M.classic_entropy(square)) == 2
    assert float(M.classic_entropy(square.repeat(3, 1))) == 2
    assert float(M.classic_entropy(torch.ones(4, 2))) == 0
    assert float(M.classic_entropy(square, bins=1)) == 0
    assert float(M.classic_entropy(square[:0])) == 0
    with pytest.raises(ValueError, match="bins"):
        M.classic_entropy(square, bins=0)
