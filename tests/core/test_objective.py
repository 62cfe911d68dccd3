# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The objective: routing, reductions, rows that do not count, and laws that hold for every loss."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from factory import (
    ABSOLUTE,
    LOSSES,
    ORDERED,
    PARTLY_DETACHED,
    ROWWISE,
    WHOLE,
    build,
    inputs,
    leaves,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import LossRecord, Objective, Term, build_objective
from lightning_losses.losses import (
    CompSum,
    CrossEntropy,
    EntropyBonus,
    Focal,
    KnowledgeDistillation,
    LogsumexpPenalty,
    StableMax,
)
from lightning_losses.schedules import Linear
from lightning_losses.weighting import KLDRO

N, C = 6, 5


def logits(rows: int = N, classes: int = C, seed: int = 0, **options: Any) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, classes, generator=g, dtype=torch.float64).to(**options)
    return z.requires_grad_()


def labels(rows: int = N, classes: int = C, seed: int = 1) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


# -- routing ---------------------------------------------------------------------------------------


class Scalar(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits.mean()


class Wide(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits


class Optional(nn.Module):
    """Takes a tensor if it is there, and says on `seen` what it got."""

    def forward(self, logits: Tensor, extra: Tensor | None = None, **rest: Any) -> Tensor:
        self.seen = extra
        return logits[:, 0]


def test_missing_tensor_names_term_class_and_line() -> None:
    objective = Objective({"opl": build("opl").terms["opl"]})
    with pytest.raises(
        ValueError,
        match=r"Term 'opl' \(OrthogonalProjection\) needs features .*"
        r"got logits, target.*compute_loss\(\.\.\., features=\.\.\.\)",
    ):
        objective(logits(), labels())


@pytest.mark.parametrize(
    ("objective", "named", "message"),
    [
        ("ce", {}, "needs log_prob.*got nothing.*pass logits"),
        ("ce", {"target": labels()}, "needs log_prob.*got target.*pass logits"),
        ("ce", {"logits": logits()}, "Term 'ce'.*needs target.*target="),
        ("ce", {"logits": logits(), "target": torch.zeros(N)}, r"'ce'.*float32.*target.long\(\)"),
        ("hl_gauss", {"logits": logits()}, "Term 'hl_gauss'.*needs target"),
        ("focal", {"logits": logits(), "target": torch.ones(N, C)}, "class indices.*argmax"),
        ("ce", {"logits": logits(), "target": torch.full((N,), C)}, r"in \[0, 5\).*found 5 and 5"),
        ("focal", {"logits": logits(), "target": torch.full((N,), -1)}, "found -1 and 5 more"),
        ("ce", {"logits": logits(), "target": labels(4)}, r"target must have shape \(6,\)"),
        ("ce", {"logits": logits(), "target": labels()[:, None]}, r"target.squeeze\(1\)"),
        ("ce", {"logits": torch.ones(N, C).long(), "target": labels()}, r"logits.float\(\)"),
        ("ce", {"logits": logits() * math.nan, "target": labels()}, "logits .* NaN or .* 6 of 6"),
        ("focal", {"logits": logits() * math.inf, "target": labels()}, "logits .* NaN or"),
        ("ce", {"logits": logits(), "target": labels(), "mask": torch.ones(N)}, r"mask.bool\(\)"),
        ("ce", {"logits": logits(), "target": labels(), "mask": torch.ones(3).bool()}, "mask must"),
        ("ce", {"logits": torch.zeros(2, 3, 4, 4), "target": torch.zeros(2, 4, 4).long()},
         r"movedim\(1, -1\)"),
        ("ce", {"logits": logits(), "target": torch.rand(N, C), "shift": 1}, "class indices"),
        ("trades", {"logits": logits(), "target": labels()}, "pgd provider needs input"),
    ],
)  # fmt: skip
def test_bad_batches_say_what_to_write(objective: str, named: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        build(objective)(**named)


def test_labels_of_torchs_own_padding_are_no_padding_under_another_ignore_index() -> None:
    """torch's kernel would skip -100 in silence and divide by it all the same."""
    target = labels()
    target[0] = -100
    with pytest.raises(ValueError, match=r"ignore_index=255; found -100"):
        build("ce", ignore_index=255)(logits(), target)
    target[0] = 255
    total = build("ce", ignore_index=255)(logits(), target).total
    torch.testing.assert_close(total, F.cross_entropy(logits()[1:], target[1:]))


def test_shapes_that_a_loss_may_return() -> None:
    assert Objective({"s": Scalar()})(logits()).total.ndim == 0
    with pytest.raises(ValueError, match=r"must return \(6,\) or a scalar, got \(6, 5\)"):
        Objective({"w": Wide()})(logits())
    with pytest.raises(ValueError, match="one number for the batch"):
        Objective({"s": Scalar()}, reduction="none")(logits())


def test_optional_tensors_come_along() -> None:
    loss = Optional()
    objective = Objective({"o": loss})
    objective(logits())
    assert loss.seen is None
    extra = torch.ones(3)
    objective(logits(), extra=extra, features=torch.ones(2))
    assert loss.seen is extra


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective({}), "at least one term"),
        (lambda: Objective({"ce": CrossEntropy()}, kernel="fast"), "Unknown kernel 'fast'"),
        (lambda: Objective({"ce": CrossEntropy()}, reduction="avg"), "Unknown reduction 'avg'"),
        (lambda: Term(CrossEntropy(), -1.0), "at least 0, found -1"),
        (lambda: Term(CrossEntropy(), math.nan), "at least 0, found nan"),
        (lambda: Term(CrossEntropy(), lambda step: step - 1.0), "is -1.0 at step 0"),
        (lambda: Term(CrossEntropy(), inputs={"logit": "logits"}), "inputs names .'logit'."),
        (lambda: Term(nn.CrossEntropyLoss()), r"reduction='mean'.*reduction='none'"),
        (lambda: Term(nn.MSELoss(reduction="sum")), r"reduction='sum'"),
    ],
)
def test_bad_settings_say_what_to_write(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- third-party losses ----------------------------------------------------------------------------


def test_torch_loss_with_mapping() -> None:
    term = Term(nn.CrossEntropyLoss(reduction="none"), inputs={"input": "logits"})
    z, y = logits(), labels()
    y[2] = -100
    total = Objective({"torch": term})(z, y).total
    torch.testing.assert_close(total, F.cross_entropy(z, y))
    weight = torch.rand(N, dtype=torch.float64)
    weighted = Objective({"torch": term})(z, y, sample_weight=weight).total
    rows = F.cross_entropy(z, y, reduction="none")
    torch.testing.assert_close(weighted, (rows * weight).sum() / weight[y != -100].sum())


def test_pytorch_metric_learning_loss_with_mapping() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    objective = build_objective(
        {
            "ms": {
                "_target_": "pytorch_metric_learning.losses.MultiSimilarityLoss",
                "alpha": 2.0,
                "inputs": {"embeddings": "features", "labels": "target"},
                "weight": 0.5,
            }
        }
    )
    x, y = torch.randn(8, 4), torch.arange(8) % 3
    expected = losses.MultiSimilarityLoss(alpha=2.0)(x, y)
    record = objective(target=y, features=x)
    torch.testing.assert_close(record.total, 0.5 * expected)
    torch.testing.assert_close(record.terms["ms"], expected)
    # `labels` is optional in their signature; mapped, it is required by ours.
    with pytest.raises(ValueError, match="needs target"):
        objective(features=x)


# -- reductions against a loop ---------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    ignored=st.lists(st.booleans(), min_size=N, max_size=N),
    masked=st.none() | st.lists(st.booleans(), min_size=N, max_size=N),
    weights=st.none() | st.lists(st.floats(0, 5), min_size=N, max_size=N),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    normalizer=st.sampled_from([None, 4, 2.5]),
    class_weight=st.booleans(),
)
def test_reductions_against_a_loop(
    ignored: list[bool],
    masked: list[bool] | None,
    weights: list[float] | None,
    reduction: str,
    normalizer: float | None,
    class_weight: bool,
) -> None:
    z, y = logits(), labels()
    y[torch.tensor(ignored)] = 7
    named: dict[str, Any] = {}
    if masked is not None:
        named["mask"] = ~torch.tensor(masked)
    if weights is not None:
        named["sample_weight"] = torch.tensor(weights, dtype=torch.float64)
    alpha = [1.0, 2.0, 0.5, 0.25, 4.0] if class_weight else None
    terms = {"ce": Term(CrossEntropy(class_weight=alpha), 0.5), "z": LogsumexpPenalty()}
    record = Objective(terms, reduction=reduction, ignore_index=7)(
        z, y, normalizer=normalizer, **named
    )
    ce, lse2, mass, own, count = [0.0] * N, [0.0] * N, 0.0, 0.0, 0
    for i, row in enumerate(z.tolist()):
        if ignored[i] or (masked is not None and masked[i]):
            continue
        lse = math.log(sum(math.exp(v) for v in row))
        w = 1.0 if weights is None else weights[i]
        a = 1.0 if alpha is None else alpha[int(y[i])]
        ce[i], lse2[i] = w * a * (lse - row[int(y[i])]), w * lse * lse
        mass, own, count = mass + w, own + w * a, count + (w != 0)  # weight 0: does not count
    assert int(record.num_valid) == count
    assert record.num_rows == N
    if reduction == "none":
        expected = torch.tensor([0.5 * a + b for a, b in zip(ce, lse2, strict=True)])
        torch.testing.assert_close(record.total, expected.double(), atol=1e-6, rtol=1e-6)
        return
    if reduction == "sum":
        by, by_own = 1.0, 1.0
    elif normalizer is not None:
        by, by_own = normalizer, normalizer
    else:
        by, by_own = mass or 1.0, own or 1.0
    assert record.terms["ce"].item() == pytest.approx(sum(ce) / by_own, rel=1e-6, abs=1e-9)
    assert record.terms["z"].item() == pytest.approx(sum(lse2) / by, rel=1e-6, abs=1e-9)
    assert record.total.item() == pytest.approx(
        0.5 * sum(ce) / by_own + sum(lse2) / by, rel=1e-6, abs=1e-9
    )


def test_class_weights_are_torchs() -> None:
    weight = torch.tensor([1.0, 2.0, 0.5, 0.25, 4.0], dtype=torch.float64)
    z, y = logits(), labels()
    y[0] = -100
    for smoothing in (0.0, 0.2):
        total = Objective({"ce": CrossEntropy(smoothing, weight)})(z, y).total
        expected = F.cross_entropy(z, y, weight, label_smoothing=smoothing)
        torch.testing.assert_close(total, expected)


def test_accumulation_with_a_normalizer_is_one_batch() -> None:
    """Three micro-batches with 1, 2 and 3 rows that count give the gradient of the whole."""
    z, y = logits(9), labels(9)
    y[[1, 2, 5]] = -100
    objective = build_objective(["ce", "focal"])
    whole = torch.autograd.grad(objective(z, y).total, z)[0]
    pieces = [objective(z[i : i + 3], y[i : i + 3], normalizer=6).total for i in (0, 3, 6)]
    torch.testing.assert_close(torch.autograd.grad(sum(pieces), z)[0], whole)


def test_normalizer_of_zero_rows_is_a_zero() -> None:
    z = logits()
    total = build("ce")(z, torch.full((N,), -100), normalizer=0).total
    assert total.item() == 0
    assert torch.count_nonzero(torch.autograd.grad(total, z)[0]) == 0


def test_float16_sample_weights_do_not_overflow() -> None:
    """The sum of 70,000 ones is beyond float16: the mean would have become 0."""
    z, y = torch.zeros(70_000, 2), torch.zeros(70_000, dtype=torch.long)
    total = build("ce")(z, y, sample_weight=torch.ones(70_000).half()).total
    assert total.item() == pytest.approx(math.log(2), rel=1e-5)


def test_shift_scores_the_next_position() -> None:
    z = torch.randn(2, 5, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = labels(10).reshape(2, 5)
    y[0, 3] = -100
    weight = torch.rand(2, 5, dtype=torch.float64)
    total = build("ce")(z, y, shift=1, sample_weight=weight).total
    rows = F.cross_entropy(z[:, :-1].reshape(-1, C), y[:, 1:].reshape(-1), reduction="none")
    w = (weight[:, 1:] * (y[:, 1:] != -100)).reshape(-1)
    torch.testing.assert_close(total, (rows * w).sum() / w.sum())


# -- laws for every loss ---------------------------------------------------------------------------


def gradients(record: LossRecord, named: dict[str, Any]) -> dict[str, Tensor]:
    wrt = leaves(named)
    grads = torch.autograd.grad(record.total.sum(), list(wrt.values()), allow_unused=True)
    return {name: grad for name, grad in zip(wrt, grads, strict=True) if grad is not None}


@pytest.mark.parametrize("how", ["ignored", "masked", "no rows"])
@pytest.mark.parametrize("key", ROWWISE)
def test_nothing_valid_is_a_connected_zero(key: str, how: str) -> None:
    objective = build(key)
    named = inputs(objective, rows=0 if how == "no rows" else 4)
    if how == "ignored" and "target" in named and not named["target"].is_floating_point():
        named["target"] = torch.full((4,), -100)
    elif how != "no rows":
        named["mask"] = torch.zeros(4, dtype=torch.bool)
    record = objective(**named)
    assert record.total.item() == 0
    assert record.total.requires_grad
    assert int(record.num_valid) == 0
    grads = gradients(record, named)
    assert grads
    for name, grad in grads.items():
        assert torch.count_nonzero(grad) == 0, name
    assert all(not value.isnan() for value in record.terms.values())


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("key", ROWWISE)
def test_rows_that_do_not_count_may_hold_anything(key: str, bad: float) -> None:
    """Same value and gradients as without the row, and none for the row."""
    objective = build(key)
    named = inputs(objective, rows=6)
    keep = torch.tensor([True, True, False, True, True, True])
    spoilt, rest = dict(named), dict(named)
    if key == "metric_mixup":
        pytest.skip("what is mixed is drawn by place, and a row less is another draw")
    for name, value in named.items():
        if name in WHOLE:
            continue
        rest[name] = value[keep].detach().requires_grad_(value.requires_grad)
        if value.is_floating_point():
            spoilt[name] = value.detach().clone()
            spoilt[name][2] = bad
            spoilt[name].requires_grad_(value.requires_grad)
    found, expected = objective(**spoilt, mask=keep), objective(**rest)
    torch.testing.assert_close(found.total, expected.total)
    grads, others = gradients(found, spoilt), gradients(expected, rest)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        if name not in WHOLE:
            assert torch.count_nonzero(grad[2]) == 0, name
            grad = grad[keep]
        torch.testing.assert_close(grad, others[name])


@pytest.mark.parametrize(("rows", "classes"), [(1, 5), (1, 1), (4, 1)])
@pytest.mark.parametrize("key", LOSSES)
def test_one_row_and_one_class(key: str, rows: int, classes: int) -> None:
    objective = build(key, classes=classes)
    named = inputs(objective, rows=rows, classes=classes)
    contract = objective.terms[key].contract
    about_classes = contract.head == "softmax" or "class" in contract.target
    if classes == 1 and "logits" in named and about_classes and "binary" not in contract.target:
        with pytest.raises(ValueError, match="one column of logits"):
            objective(**named)
        return
    record = objective(**named)
    assert record.total.isfinite()
    for name, grad in gradients(record, named).items():
        assert grad.isfinite().all(), name


@pytest.mark.parametrize("key", LOSSES)
def test_kernels_agree(key: str) -> None:
    totals, grads = [], []
    for kernel in ("reference", "chunked", "auto"):
        objective = build(key, kernel=kernel)
        named = inputs(objective)
        record = objective(**named)
        totals.append(record.total)
        grads.append(gradients(record, named))
    for total, grad in zip(totals[1:], grads[1:], strict=True):
        torch.testing.assert_close(total, totals[0], atol=1e-10, rtol=1e-10)
        assert grad.keys() == grads[0].keys()
        for name in grad:
            torch.testing.assert_close(grad[name], grads[0][name], atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("key", LOSSES)
def test_hidden_and_head_give_the_numbers_of_logits(key: str) -> None:
    objective = build(key)
    named = inputs(objective)
    if "logits" not in named or any("logits" in t.required for _, t in objective.named_terms()):
        pytest.skip("reads no softmax statistics, or whole rows of logits")
    g = torch.Generator().manual_seed(3)
    hidden = torch.randn(6, 3, generator=g, dtype=torch.float64).requires_grad_()
    head = torch.randn(
        named["logits"].shape[1], 3, generator=g, dtype=torch.float64
    ).requires_grad_()
    rest = {name: value for name, value in named.items() if name != "logits"}
    a = objective(**rest, hidden=hidden, head_weight=head).total
    b = objective(**rest, logits=hidden @ head.T).total
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)
    for x, y in zip(*(torch.autograd.grad(t, (hidden, head)) for t in (a, b)), strict=True):
        torch.testing.assert_close(x, y, atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("key", LOSSES)
def test_gradcheck(key: str) -> None:
    objective = build(key)
    named = inputs(objective, rows=5)
    wrt = leaves(named)
    if "module" in named:
        pytest.skip("reads parameters: see test_losses")
    if any(term.weighs_rows for _, term in objective.named_terms()):
        pytest.skip("row weights are detached: the value is not what the gradient belongs to")
    if key in PARTLY_DETACHED:
        pytest.skip("a part of the value is detached: see the loss's own tests")
    if key == "cispo":  # its detached weight, clipped to 1 everywhere, is a constant
        loss = objective.terms[key].loss
        loss.clip_low = loss.clip_high = 0.0

    def total(*values: Tensor) -> Tensor:
        return objective(**(named | dict(zip(wrt, values, strict=True)))).total

    # Of maps along random directions: an evaluation an entry takes half a minute a loss.
    entries = sum(value.numel() for value in wrt.values())
    assert torch.autograd.gradcheck(total, tuple(wrt.values()), fast_mode=entries > 200)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("key", LOSSES)
def test_half_precision_tensors_compute_in_float32(key: str, dtype: torch.dtype) -> None:
    objective = build(key)
    half = inputs(objective, dtype=dtype)
    single = {
        n: v.detach().float() if isinstance(v, Tensor) and v.is_floating_point() else v
        for n, v in half.items()
    }
    if "module" in half:
        single["module"] = copy.deepcopy(half["module"]).float()
    if half.get("target") is not None and half["target"].is_floating_point():
        single["target"] = half["target"]
    with torch.no_grad():
        a, b = objective(**half).total, objective(**single).total
    assert a.dtype == torch.float32
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_island(dtype: torch.dtype) -> None:
    """Nothing inside computes in half precision, whatever is switched on around the objective."""
    objective = build_objective(["ce", "opl", "kd"])
    named = inputs(objective, dtype=torch.float32)
    outside = objective(**named).total
    with torch.autocast("cpu", dtype=dtype):
        inside = objective(**named).total
    assert torch.equal(inside, outside)


# -- equalities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ignored", [0, 2, N])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cross_entropy_is_torchs_to_the_last_bit(ignored: int, dtype: torch.dtype) -> None:
    y = labels(64)
    y[:ignored] = -100
    a, b = logits(64, dtype=dtype), logits(64, dtype=dtype)
    ours = build("ce")(a, y).total
    theirs = F.cross_entropy(b.float() if dtype == torch.bfloat16 else b, y)
    assert torch.equal(ours, theirs)
    ours.backward()
    theirs.backward()
    assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("key", [k for k in LOSSES if k not in ABSOLUTE])
def test_shift_invariance(key: str) -> None:
    """A softmax does not see a constant added to its logits; z-loss and StableMax do."""
    objective = build(key).eval()  # in which no state moves from call to call

    @settings(max_examples=5, deadline=None)
    @given(offset=st.floats(-50, 50), seed=st.integers(0, 50))
    def check(offset: float, seed: int) -> None:
        named = inputs(objective, seed=seed)
        moved = {n: v + offset if "logits" in n else v for n, v in named.items()}
        a, b = objective(**moved).total, objective(**named).total
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)

    check()


@pytest.mark.parametrize("key", [k for k in ROWWISE if k not in ORDERED])
def test_class_permutation_invariance(key: str) -> None:
    objective = build(key)

    @settings(max_examples=5, deadline=None)
    @given(order=st.permutations(range(C)), seed=st.integers(0, 50))
    def check(order: list[int], seed: int) -> None:
        named = inputs(objective, seed=seed)
        permuted = dict(named)
        for name, value in named.items():
            if "logits" in name:
                permuted[name] = value[:, order]
            elif name == "head_weight":
                permuted[name] = value[order]
            elif name == "target":
                moved = torch.argsort(torch.tensor(order))[value]
                permuted[name] = torch.where(value < 0, value, moved)  # of rows without a label
        torch.testing.assert_close(objective(**permuted).total, objective(**named).total)

    check()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 20))
def test_limits_are_cross_entropy(seed: int, scale: float) -> None:
    z, y = scale * logits(seed=seed), labels(seed=seed)
    ce = F.cross_entropy(z, y)

    def total(loss: nn.Module | Term) -> Tensor:
        return Objective({"x": loss})(z, y).total

    torch.testing.assert_close(total(Focal(gamma=0.0)), ce)
    torch.testing.assert_close(total(CompSum(tau=1.0)), ce)
    # First order in tau - 1: the next term is (tau - 1) nll^2 / 2.
    for step in (-1e-5, 1e-5):
        torch.testing.assert_close(total(CompSum(tau=1 + step)), ce, rtol=1e-3, atol=1e-5)
    dro = Term(CrossEntropy(), row_weighting=KLDRO(radius=1e7))
    torch.testing.assert_close(total(dro), ce, rtol=1e-4, atol=1e-6)
    one = {"t": KnowledgeDistillation(temperature=2.0)}
    assert Objective(one)(z, teacher_logits=z).total.abs() < 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), radius=st.floats(0.2, 50))
def test_kl_dro_has_the_gradient_of_the_worst_case(seed: int, radius: float) -> None:
    z, y = logits(seed=seed), labels(seed=seed)
    total = Objective({"x": Term(CrossEntropy(), row_weighting=KLDRO(radius))})(z, y).total
    rows = F.cross_entropy(z, y, reduction="none")
    worst = radius * (torch.logsumexp(rows / radius, 0) - math.log(N))
    found, expected = (torch.autograd.grad(t, z)[0] for t in (total, worst))
    torch.testing.assert_close(found, expected)


# -- weights, records, copies ----------------------------------------------------------------------


def test_weights_are_no_state_and_survive_dtypes() -> None:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as under Trainer.init_module with bf16-true
    try:
        with torch.device("meta"):
            objective = Objective({"ce": Term(CrossEntropy(), 0.055), "z": LogsumexpPenalty()})
    finally:
        torch.set_default_dtype(default)
    objective.to(torch.bfloat16).half()
    weight = objective.terms["ce"].weight
    assert (weight.dtype, weight.device.type, weight.ndim) == (torch.float64, "cpu", 0)
    assert weight.item() == pytest.approx(0.055, rel=1e-7)
    assert objective.state_dict() == {}
    record = objective(logits(), labels())
    assert record.weights["ce"].item() == pytest.approx(0.055, rel=1e-7)


def test_weights_follow_schedule_times_scale() -> None:
    objective = Objective({"a": Term(CrossEntropy(), Linear(0.0, 1.0, steps=10)), "b": Focal()})
    for step, expected in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0), (5, 0.5)):
        objective.set_step(step)
        record = objective(logits(), labels())
        assert record.weights["a"].item() == expected
        total = expected * record.terms["a"] + record.terms["b"]
        torch.testing.assert_close(record.total.detach(), total)
    objective.terms["a"].scale = 0.5
    objective.set_step(10)
    assert objective.terms["a"].weight.item() == 0.5
    objective.terms["a"].scale = -1
    with pytest.raises(ValueError, match="at least 0"):
        objective.set_step(10)


def test_copies_and_pickles_keep_weights() -> None:
    objective = Objective({"a": Term(CrossEntropy(), Linear(0.0, 1.0, steps=10))})
    for copied in (copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))):
        copied.set_step(10)
        assert copied(logits(), labels()).weights["a"].item() == 1
    assert objective.terms["a"].weight.item() == 0  # not shared


def test_record() -> None:
    objective = build_objective(["ce", "entropy_bonus"])
    objective.watch("a", "confidence", "features")
    objective.watch("b", "prediction")
    y = labels()
    y[1] = -100
    x = torch.randn(N, 2, requires_grad=True)
    record = objective(logits(), y, features=x)
    assert record.total.requires_grad
    assert not any(v.requires_grad for v in record.terms.values())
    found = record.stats.as_dict()
    assert {"log_prob", "entropy", "confidence", "prediction", "valid"} <= found.keys()
    assert not any(v.requires_grad for v in found.values())
    assert record.captured.keys() == {"features"}
    assert record.captured["features"].data_ptr() == x.data_ptr()
    assert not record.captured["features"].requires_grad
    assert not record.detach().total.requires_grad
    objective.watch("a")
    objective.watch("b")
    record = objective(logits(), y, features=x)
    assert record.captured == {}
    assert record.stats.confidence is None


def test_optional_tensors_that_a_loss_does_not_read_are_not_converted() -> None:
    """Cross-entropy has an optional target, read only for class weights."""
    assert build("ce").terms["ce"].read == {"log_prob"}
    assert "target" in Term(CrossEntropy(0.0, [1.0] * C)).read


# -- compile ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_compiled_once_over_changing_weights(route: str) -> None:
    torch._dynamo.reset()
    terms = {
        "ce": CrossEntropy(0.1),
        "focal": Term(Focal(), Linear(0.0, 1.0, steps=7)),
        "entropy": Term(EntropyBonus(), 0.055),
    }
    if route == "logits":
        terms["stablemax"] = StableMax()
    objective = Objective(terms)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(objective, fullgraph=True, backend=counter)
    y = labels()
    y[0] = -100
    if route == "logits":
        named = {"logits": logits(dtype=torch.float32)}
    else:
        g = torch.Generator().manual_seed(0)
        named = {
            "hidden": torch.randn(N, 3, generator=g).requires_grad_(),
            "head_weight": torch.randn(C, 3, generator=g).requires_grad_(),
        }
    for step in range(8):
        objective.set_step(step)
        found, expected = compiled(**named, target=y), objective(**named, target=y)
        torch.testing.assert_close(found.total, expected.total)
        for a, b in zip(
            torch.autograd.grad(found.total, list(named.values())),
            torch.autograd.grad(expected.total, list(named.values())),
            strict=True,
        ):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 1
