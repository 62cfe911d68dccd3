# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which keys never hold logits: the list, and the proof by looking at every tensor that is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from factory import LOSSES, build, inputs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_losses import Objective
from lightning_losses.evaluation import terms as evaluation
from lightning_losses.kernels.eager import chunked

#: With hidden and head_weight: values and gradients in one pass over the classes.
ONE_PASS = [
    "aepo", "agce", "aul", "bootstrapping", "brier", "ce", "cispo", "class_balanced", "comp_sum",
    "confidence_penalty", "dapo", "entropy_bonus", "entropy_min", "focal", "gce", "jensen_shannon",
    "kl_estimator", "label_smoothing", "logsumexp_penalty", "mae", "nce_rce", "normalized_ce",
    "nrce", "ppo_clip", "rce", "reinforce", "sum_exponential", "symmetric_ce",
]  # fmt: skip

#: In two passes: their row weights, or one number for the batch, need every row first; or a row of
#: theirs has a gradient of its own.
TWO_PASSES = [
    "avuc", "clip_cov", "correctness_aware", "dca", "dco", "dpo", "flat", "group_dro", "grpo",
    "gspo", "hapo", "kl_cov", "kl_dro", "loss_reweighting", "margin_control",
    "marginalization_consistency", "mmce", "pacs", "soft_binned_ece", "truncated_gce",
    "unlearning",
]  # fmt: skip

#: Of those, one number for the batch: there are no values by row.
ONE_NUMBER = [
    "avuc", "correctness_aware", "dca", "dco", "dpo", "flat", "margin_control", "mmce", "pacs",
    "soft_binned_ece", "unlearning",
]  # fmt: skip

#: On statistics too, but beside a tensor that is itself as large as the logits: a soft target of
#: all bins, or the similarity to every class. Made for hundreds of classes, not for a vocabulary.
BESIDE_A_TENSOR_OF_ALL_CLASSES = ["hl_gauss", "two_hot", "wad"]

# 64 rows in chunks of 8, so that a chunk is an eighth of all logits; the head's gradient, which
# has to be there, is 512 * 4 entries and smaller than a chunk.
ROWS, CLASSES, DEPTH, CHUNK_ROWS = 64, 512, 4, 8
CHUNK, EVERYTHING = CHUNK_ROWS * CLASSES, ROWS * CLASSES


def on_statistics(key: str) -> bool:
    """Whether all that a key wants of the logits are softmax statistics."""
    terms = [term for _, term in build(key).named_terms()]
    return any(t.statistics for t in terms) and not any("logits" in t.required for t in terms)


def test_the_list_is_the_catalogues() -> None:
    """A new key belongs in one of the lists above if it reads statistics, and not whole logits."""
    listed = [*ONE_PASS, *TWO_PASSES, *BESIDE_A_TENSOR_OF_ALL_CLASSES]
    assert len(set(listed)) == len(listed)
    assert sorted(listed) == [key for key in LOSSES if on_statistics(key)]


class Largest(TorchDispatchMode):
    """Elements of the largest storage that any operation returned; views count as what they view,
    so that an expanded row is a row."""

    def __init__(self, only: torch.dtype | None = None) -> None:
        super().__init__()
        self.elements, self.only = 0, only

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = f(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and self.only in (None, leaf.dtype):
                size = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.elements = max(self.elements, size)
        return out


@contextmanager
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(chunked, "CHUNK_BYTES", 0)
        patch.setattr(chunked, "MIN_CHUNK_ROWS", CHUNK_ROWS)
        yield


def case(key: str, **options: Any) -> tuple[Objective, dict[str, Any]]:
    """Hidden states, a head, and rows that do not count or count less."""
    objective = build(key, classes=CLASSES, **options)
    named = inputs(objective, rows=ROWS, classes=CLASSES, dtype=torch.float32)
    del named["logits"]
    g = torch.Generator().manual_seed(0)
    named["hidden"] = torch.randn(ROWS, DEPTH, generator=g).requires_grad_()
    named["head_weight"] = torch.randn(CLASSES, DEPTH, generator=g).requires_grad_()
    if key == "mmce":  # nothing is told apart without right rows and wrong ones
        best = (named["hidden"] @ named["head_weight"].T).argmax(1)
        named["target"] = torch.where(torch.arange(ROWS) % 2 > 0, best, named["target"])
    if objective.terms[key].loss.scope == "rows":  # one number for the batch has no rows to weigh
        named["sample_weight"] = torch.rand(ROWS, generator=g)
    named["mask"] = torch.arange(ROWS) % 7 > 0
    return objective, named


def largest_tensors(objective: Objective, named: dict[str, Any]) -> tuple[int, int]:
    """Of forward, and of backward."""
    with Largest() as forward:
        total = objective(**named).total.sum()
    with Largest() as backward:
        total.backward()
    for name in ("hidden", "head_weight"):
        assert named[name].grad.abs().max() > 0, name
    return forward.elements, backward.elements


@pytest.mark.parametrize(
    ("key", "reduction"),
    # Reduction `none` knows no upstream gradient beforehand, so there everybody takes two passes.
    [(key, "mean") for key in (*ONE_PASS, *TWO_PASSES)]
    + [(key, "none") for key in (*ONE_PASS, *TWO_PASSES) if key not in ONE_NUMBER],
)
def test_no_tensor_larger_than_a_chunk(
    key: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, named = case(key, kernel="chunked", reduction=reduction)
    passes = []
    fused = evaluation.row_fused
    monkeypatch.setattr(evaluation, "row_fused", lambda *a: passes.append(1) or fused(*a))
    with small_chunks(monkeypatch):
        forward, backward = largest_tensors(objective, named)
    assert bool(passes) == (key in ONE_PASS and reduction == "mean")
    assert 0 < forward <= CHUNK < EVERYTHING
    assert 0 < backward <= CHUNK


@pytest.mark.parametrize("key", BESIDE_A_TENSOR_OF_ALL_CLASSES)
def test_those_beside_a_tensor_of_all_classes_are_listed_for_a_reason(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, named = case(key, kernel="chunked")
    given = max(v.numel() for v in named.values() if isinstance(v, Tensor))
    with small_chunks(monkeypatch):
        forward, _ = largest_tensors(objective, named)
    assert max(forward, given) >= EVERYTHING


#: Against a teacher, of whole rows: from two pairs of hidden states and head a few rows at a time.
BY_CHUNKS = ["adaptive_alpha_kd", "dist", "dkd", "f_divergence", "gpg_kd", "kd", "pld"]


def test_two_heads_make_no_tensor_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in BY_CHUNKS:
        objective, named = case(key, kernel="chunked")
        g = torch.Generator().manual_seed(1)
        named["teacher_hidden"] = torch.randn(ROWS, 3, generator=g)
        named["teacher_head_weight"] = torch.randn(CLASSES, 3, generator=g)
        del named["teacher_logits"]
        with small_chunks(monkeypatch):
            forward, backward = largest_tensors(objective, named)
        # Dist sums five numbers of every class, which is less than a chunk too.
        assert 0 < forward <= CHUNK, key
        assert 0 < backward <= CHUNK, key


def test_stored_logits_are_made_float32_a_few_rows_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of a teacher beside a student's hidden states; rows that do not count hold anything."""
    objective, named = case("kd", kernel="chunked")
    exact = named["teacher_logits"].half()
    named["teacher_logits"] = torch.where(named["mask"][:, None], exact, torch.nan)
    # Slices of what was given are half.
    with small_chunks(monkeypatch), Largest(torch.float32) as largest:
        found = objective(**named).total
        found.backward()
    assert 0 < largest.elements <= CHUNK
    logits = named["hidden"] @ named["head_weight"].T
    others = {n: x for n, x in named.items() if n not in ("hidden", "head_weight")}
    torch.testing.assert_close(objective(logits=logits, **others).total, found)


def test_the_measure_sees_logits_where_there_are_any() -> None:
    """The kernel that holds all logits, in both directions: the proof above can fail."""
    forward, backward = largest_tensors(*case("ce", kernel="reference"))
    assert forward >= EVERYTHING
    assert backward >= EVERYTHING


def test_the_numbers_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small chunks of this file compute what one large chunk does."""
    for key in ("ce", "margin_control"):
        found = []
        for small in (False, True):
            objective, named = case(key, kernel="chunked")
            if small:
                with small_chunks(monkeypatch):
                    total = objective(**named).total
                    total.backward()
            else:
                total = objective(**named).total
                total.backward()
            found.append((total.detach(), named["hidden"].grad, named["head_weight"].grad))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
