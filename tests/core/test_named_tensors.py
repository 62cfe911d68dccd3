# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The vocabulary, how it is flattened to rows, and how a forward asks for words of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_losses.evaluation.rows import flatten, weighted_rows
from lightning_losses.evaluation.validation import missing_tensor
from lightning_losses.named_tensors import NAMED_TENSORS, describe
from lightning_losses.softmax import STATISTICS, SoftmaxStats
from lightning_losses.term import Argument, arguments, pick


def test_every_word_is_described() -> None:
    for name, word in NAMED_TENSORS.items():
        assert describe(name) == f"{name} {word.shape}: {word.meaning}"
        assert not word.meaning.endswith(".")
    assert describe("my_own") == "my_own"


def test_statistics_are_words() -> None:
    assert set(STATISTICS) <= NAMED_TENSORS.keys()
    assert set(SoftmaxStats.__dataclass_fields__) == {*STATISTICS, "valid"}


# -- flattening ------------------------------------------------------------------------------------


def given(**named: Any) -> Any:
    return flatten(named, -100)


def test_rows_are_flattened_and_counted() -> None:
    target = torch.tensor([[1, -100, 2], [0, 1, -100]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    batch = given(
        logits=torch.zeros(2, 3, 4),
        target=target,
        mask=mask,
        teacher_logits=torch.zeros(2, 3, 7),  # another vocabulary
        temperature=torch.ones(2, 3),
        features=torch.zeros(2, 5),  # whole: one a sample, not one a row
        mine=torch.zeros(9, 9),
        absent=None,
    )
    assert batch.num_rows == 6
    shapes = {name: tuple(value.shape) for name, value in batch.tensors.items()}
    assert shapes == {
        "logits": (6, 4),
        "target": (6,),
        "teacher_logits": (6, 7),
        "temperature": (6,),
        "features": (2, 5),
        "mine": (9, 9),
    }
    assert batch.valid.tolist() == [True, False, False, True, True, False]
    assert int(batch.num_valid) == 3
    assert batch.tensors["target"].tolist() == [1, 0, 0, 0, 1, 0]  # harmless where ignored


def test_all_rows_count_is_known_without_a_mask() -> None:
    batch = given(logits=torch.zeros(3, 4), target=torch.tensor([0, 1, 2]))
    assert batch.valid is None
    assert int(batch.num_valid) == 3
    assert batch.weight is None


def test_matrices_are_not_copied() -> None:
    z = torch.zeros(3, 4)
    assert given(logits=z).tensors["logits"] is z


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_small_integers_are_class_indices_too(dtype: torch.dtype) -> None:
    batch = given(logits=torch.zeros(2, 4), target=torch.tensor([1, 3], dtype=dtype))
    assert batch.tensors["target"].dtype == torch.int64


def test_binary_scores_and_batches_without_logits() -> None:
    assert given(logits=torch.zeros(5), target=torch.zeros(5)).num_rows == 5
    assert given(features=torch.zeros(4, 2), target=torch.zeros(4).long()).num_rows == 4
    assert given(features=torch.zeros(4, 2)).num_rows == 4
    assert given().num_rows == 0
    assert given(logits=torch.zeros(0, 3), target=torch.zeros(0).long()).num_rows == 0
    assert given(logits=torch.zeros(2, 3), target=torch.zeros(2, 3)).tensors["target"].ndim == 2


def test_multilabel_targets_with_a_mask() -> None:
    """As many rows as classes, where a mask broadcast along the wrong side would go unseen."""
    mask = torch.tensor([True, True, False])
    batch = given(logits=torch.zeros(3, 3), target=torch.ones(3, 3).long(), mask=mask)
    assert batch.tensors["target"].tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"logits": torch.zeros(4, 3), "target": torch.zeros(3).long()},
            r"target .*\(4,\).* \(3,\)",
        ),
        ({"logits": torch.zeros(4, 3), "target": torch.zeros(4, 1).long()}, r"target.squeeze\(1\)"),
        ({"logits": torch.zeros(4, 3), "sample_weight": torch.zeros(4, 1)}, r"sample_weight must"),
        (
            {"logits": torch.zeros(4, 3), "teacher_logits": torch.zeros(3, 3)},
            r"teacher_logits must",
        ),
        ({"logits": torch.zeros(4, 3), "mask": torch.zeros(4).long()}, r"write mask.bool\(\)"),
        ({"logits": torch.zeros(2, 4, 3), "target": torch.zeros(8).long()}, "target must"),
    ],
)
def test_shapes_that_do_not_fit(named: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given(**named)


def test_masked_by_where_not_by_product() -> None:
    values = torch.tensor([1.0, torch.inf, torch.nan])
    valid = torch.tensor([True, False, False])
    assert weighted_rows(values, valid, None).tolist() == [1, 0, 0]
    assert weighted_rows(values, valid, torch.tensor([2.0, 0, 0])).tolist() == [2, 0, 0]
    assert weighted_rows(values, None, None) is values


# -- routing ---------------------------------------------------------------------------------------


class Asks(nn.Module):
    def forward(
        self, logits: Tensor, target: Tensor | None = None, entropy: Tensor | None = None, *a: int
    ) -> Tensor:
        return logits


def test_arguments_of_a_forward() -> None:
    # An optional statistic costs a pass, so it is left out; an optional tensor is free.
    assert arguments(Asks()) == (
        Argument("logits", "logits", True),
        Argument("target", "target", False),
    )
    needy = Asks()
    needy.needs = ("entropy",)
    assert Argument("entropy", "entropy", True) in arguments(needy)
    assert arguments(Asks(), skip=1) == (Argument("target", "target", False),)


def test_mapped_parameters_are_required() -> None:
    found = arguments(Asks(), {"logits": "student", "target": "soft"})
    assert found == (Argument("logits", "student", True), Argument("target", "soft", True))
    with pytest.raises(
        ValueError, match=r"inputs names \['label'\].*\['logits', 'target', 'entropy'\]"
    ):
        arguments(Asks(), {"label": "target"})


def test_pick_takes_what_is_there() -> None:
    found = arguments(Asks(), {"logits": "student"})
    assert pick(found, {"student": 1, "logits": 2}) == {"logits": 1}
    assert pick(found, {"student": 1, "target": 3}) == {"logits": 1, "target": 3}


def test_messages_of_missing_tensors() -> None:
    def message(name: str, **passed: Any) -> str:
        return str(missing_tensor("mine", Asks(), name, passed))

    assert f"Term 'mine' (Asks) needs {describe('features')}" in message("features", logits=1)
    assert "compute_loss got logits." in message("features", logits=1, target=None)
    assert "compute_loss(..., features=...)" in message("features")
    assert "compute_loss got nothing" in message("features")
    assert "pass logits=" in message("entropy")
    assert "logits=self.head(hidden)" in message("logits", hidden=1, head_weight=1)
    line = "logits=logit_map.movedim(1, -1), target=label_map"
    for name in ("logits", "target", "log_prob"):
        assert line in message(name, logit_map=1, label_map=1)
        assert line not in message(name, logit_map=None, features=1)
    assert line not in message("features", logit_map=1)
