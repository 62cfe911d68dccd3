# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of whole rows from hidden states and heads: what they are of the logits that these make.

That no tensor of all logits exists is shown in `test_catalogue_fused.py`, several ranks in
`test_distributed.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factory import LOSSES, build
from torch import Tensor, nn

from lightning_losses import Objective, build_objective
from lightning_losses.contract import Contract
from lightning_losses.kernels.eager import chunked
from lightning_losses.losses import CrossEntropy, Dist, KnowledgeDistillation
from lightning_losses.softmax import ClassRange

ROWS, CLASSES, DIM, TEACHER_DIM = 10, 5, 4, 3
KEYS = [key for key in LOSSES if getattr(build(key).terms[key].contract, "by_chunks", False)]


@pytest.fixture(autouse=True)
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten rows: four chunks, the last of which is smaller."""
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 0)
    monkeypatch.setattr(chunked, "MIN_CHUNK_ROWS", 3)


def models(dtype: torch.dtype = torch.float64, rows: int = ROWS) -> dict[str, Tensor]:
    """Student and teacher, whose last class but one is masked."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape: int, grad: bool = False) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_(grad)

    bias = 0.5 * normal(CLASSES)
    bias[3] = -torch.inf
    return {
        "hidden": normal(rows, DIM, grad=True),
        "head_weight": normal(CLASSES, DIM, grad=True),
        "head_bias": bias.requires_grad_(),
        "teacher_hidden": normal(rows, TEACHER_DIM),
        "teacher_head_weight": normal(CLASSES, TEACHER_DIM),
        "teacher_head_bias": bias.detach() / 2,
    }


def rest(rows: int = ROWS) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    target = torch.randint(3, (rows,), generator=g)
    target[4 % max(rows, 1) : 5] = -100
    return {"target": target, "mask": torch.arange(rows) != 1}


def as_logits(named: dict[str, Tensor], cap: float | None = None) -> dict[str, Tensor]:
    """What the two pairs stand for."""
    z = named["hidden"] @ named["head_weight"].T + named["head_bias"]
    teacher = named["teacher_hidden"] @ named["teacher_head_weight"].T + named["teacher_head_bias"]
    if cap is not None:
        teacher = cap * torch.tanh(teacher / cap)
    return {"logits": z, "teacher_logits": teacher}


def gradients(total: Tensor, named: dict[str, Any]) -> list[Tensor]:
    leaves = [x for x in named.values() if isinstance(x, Tensor) and x.requires_grad]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def test_which_they_are() -> None:
    assert {"adaptive_alpha_kd", "dist", "dkd", "f_divergence", "gpg_kd", "kd", "pld"} <= {*KEYS}


def test_equal_to_logits_in_value_and_gradient() -> None:
    """Every key, alone and beside a term of the one pass, and with weights of rows."""
    for key in KEYS:
        for beside in (False, True):
            terms: dict[str, Any] = {"x": build(key).terms[key]}
            if beside:
                terms["ce"] = CrossEntropy()
            objective = Objective(terms)
            named, more = models(), rest()
            if objective.terms["x"].loss.scope == "rows" and beside:
                more["sample_weight"] = torch.linspace(0, 1, ROWS, dtype=torch.float64)
            both: dict[str, Tensor] = as_logits(named)
            if key == "dual_head_kd":  # its student is a head of its own, which gives logits
                more["aux_logits"] = both["logits"].detach().requires_grad_()
            expected = objective(**both, **more).total
            found = objective(**named, **more).total
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, msg=key)
            leaves = named | more
            pairs = zip(gradients(found, leaves), gradients(expected, leaves), strict=True)
            for a, b in pairs:
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=key)
                assert key == "dual_head_kd" or b.abs().max() > 0, key


def test_either_may_be_logits() -> None:
    for key in ("kd", "dist"):
        named, both = models(), as_logits(models())
        expected = build_objective(key)(**both).total
        for student in ("hidden", "logits"):
            of_student = {n: x for n, x in named.items() if not n.startswith("teacher")}
            of_teacher = {n: x for n, x in named.items() if n.startswith("teacher")}
            if student == "hidden":
                mixed = of_student | {"teacher_logits": both["teacher_logits"]}
            else:
                mixed = of_teacher | {"logits": both["logits"]}
            torch.testing.assert_close(build_objective(key)(**mixed).total, expected)


def test_options_of_the_head() -> None:
    """Temperature, scale and soft-cap are the student's; the teacher has a soft-cap of its own."""
    named = models()
    z = as_logits(named)["logits"]
    options = {"softcap": 2.0, "logit_scale": 0.7, "temperature": 1.3}
    z = 2 * torch.tanh(0.7 * z / 2) / 1.3
    expected = build_objective("kd")(z, teacher_logits=as_logits(named, cap=3.0)["teacher_logits"])
    found = build_objective("kd")(**named, **options, teacher_softcap=3.0)
    torch.testing.assert_close(found.total, expected.total)


def test_first_and_second_derivatives() -> None:
    """Of four rows, which are two chunks; small, for all is computed again for each entry."""
    rows, classes = 4, 3
    g = torch.Generator().manual_seed(0)
    hidden, teacher = torch.randn(2, rows, 2, generator=g, dtype=torch.float64)
    weight, of_teacher = torch.randn(2, classes, 2, generator=g, dtype=torch.float64)
    for loss in (KnowledgeDistillation(2.0), Dist()):
        objective = Objective({"x": loss})

        def f(hidden: Tensor, weight: Tensor, objective: Objective = objective) -> Tensor:
            two = {"teacher_hidden": teacher, "teacher_head_weight": of_teacher}
            total: Tensor = objective(hidden=hidden, head_weight=weight, **two).total
            return total

        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        assert torch.autograd.gradcheck(f, leaves)
        assert torch.autograd.gradgradcheck(f, leaves)


def test_the_teacher_gets_no_gradient() -> None:
    named = models()
    for name in ("teacher_hidden", "teacher_head_weight"):
        named[name].requires_grad_()
    build_objective("kd")(**named).total.backward()
    assert named["teacher_hidden"].grad is None
    assert named["teacher_head_weight"].grad is None
    assert named["hidden"].grad is not None


def test_a_head_that_moved_before_the_gradient_is_noticed() -> None:
    """As torch notices it of logits: the gradient would be of other numbers, in silence."""
    for name in ("head_weight", "teacher_head_weight"):
        named = models()
        total = build_objective("kd")(**named).total
        with torch.no_grad():
            named[name].add_(1.0)
        with pytest.raises(RuntimeError, match="changed in place after the loss"):
            total.backward()


def test_ignored_rows_may_hold_anything() -> None:
    for key in ("kd", "dist", "pld"):
        found = []
        for junk in (0.0, torch.nan):
            named, more = models(), rest()
            counted = more["mask"] & (more["target"] >= 0)
            for name in ("hidden", "teacher_hidden"):
                rows = torch.where(counted[:, None], named[name].detach(), junk)
                named[name] = rows.requires_grad_(name == "hidden")
            total = build_objective(key)(**named, **more).total
            found.append([total, *gradients(total, named)])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)


def test_ignored_rows_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where asking which they are is free: of prompts, most rows of a batch."""
    seen = []
    forward = KnowledgeDistillation.forward

    def counting(self: KnowledgeDistillation, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        seen.append(len(logits))
        return forward(self, logits, teacher_logits)

    monkeypatch.setattr(KnowledgeDistillation, "forward", counting)
    build_objective("kd")(**models(), mask=torch.arange(ROWS) % 2 == 0)
    assert sum(seen) == ROWS / 2


def test_nothing_and_one_row() -> None:
    for key in KEYS:
        if key == "dual_head_kd":
            continue
        for rows in (0, 1):
            named, more = models(rows=rows), {"target": torch.zeros(rows, dtype=torch.int64)}
            for mask in (torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool)):
                total = build_objective(key)(**named, **more, mask=mask).total
                for gradient in gradients(total, named):
                    assert bool(gradient.isfinite().all()), key
                if not mask.any():
                    assert total == 0, key


def test_half_precision() -> None:
    """Products in the dtype of the hidden states, all else in float32: near what is exact."""
    for dtype, near in ((torch.float16, 2e-2), (torch.bfloat16, 1e-1)):
        named = models(dtype)
        exact = {n: x.detach().double().requires_grad_(x.requires_grad) for n, x in named.items()}
        for key in ("kd", "f_divergence", "dist"):
            totals = []
            for each in (named, exact):
                total = build_objective(key)(**each).total
                totals.append((total.double(), *gradients(total, each)))
            assert totals[0][1].dtype == dtype
            for a, b in zip(*totals, strict=True):
                torch.testing.assert_close(a.double(), b, rtol=near, atol=near)


def test_both_directions_of_kl() -> None:
    """Alpha 1 is KL(teacher || student), 0 the other one."""
    named = models()
    both = {n: z.detach()[:, [0, 1, 2, 4]].log_softmax(1) for n, z in as_logits(named).items()}
    t, s = both["teacher_logits"], both["logits"]
    for alpha, kl in ((1.0, (t.exp() * (t - s)).sum(1)), (0.0, (s.exp() * (s - t)).sum(1))):
        found = build_objective({"f_divergence": {"alpha": alpha}})(**named).total
        torch.testing.assert_close(found, kl.mean())


class OneOfUs(nn.Module):
    """A loss of a user's, which names a word of its own."""

    scope = "rows"
    contract = Contract(target=("none",), by_chunks=True)

    def forward(self, logits: Tensor, mine: Tensor) -> Tensor:
        return (logits.softmax(1) - mine).square().sum(1)


@pytest.mark.parametrize(
    ("objective", "change", "words"),
    [
        ("kd", {"teacher_head_weight": None}, "teacher_hidden was given without teacher_head_weig"),
        ("kd", {"teacher_head_weight": torch.zeros(CLASSES, 2)}, "D=3 as in teacher_hidden"),
        ("kd", {"teacher_head_bias": torch.zeros(2)}, r"teacher_head_bias must be \(5,\)"),
        (
            "kd",
            {"teacher_head_weight": torch.zeros(4, TEACHER_DIM), "teacher_head_bias": None},
            r"as many columns, got head_weight \(5, 4\), teacher_head_weight \(4, 3\)",
        ),
        ("kd", {"teacher_softcap": -1.0}, "teacher_softcap must be positive"),
        (
            "kd",
            {"teacher_hidden": torch.full((ROWS, TEACHER_DIM), torch.nan)},
            "teacher_hidden.*Na",
        ),
        ("kd", {"teacher_hidden": torch.zeros(ROWS - 1, TEACHER_DIM)}, "teacher_hidden must have"),
        ("kd", {"teacher_hidden": torch.zeros(ROWS, TEACHER_DIM).long()}, "teacher_hidden float"),
        ("kd", {"head_weight": None}, "hidden was given without head_weight"),
        ("kd", {"class_range": ClassRange(0, 5, 10)}, "rank has the head of some classes"),
        ("dkd", {"target": torch.full((ROWS,), 7)}, r"target must be in \[0, 5\)"),
        ("rmt_sce", {}, "teacher_hidden and teacher_head_weight never hold"),
        ("stablemax", {}, "hidden and head_weight never hold"),
        (OneOfUs(), {"mine": torch.zeros(ROWS, CLASSES)}, "hidden and head_weight never hold"),
    ],
)
def test_refused(objective: Any, change: dict[str, Any], words: str) -> None:
    named = {**models(), "target": torch.zeros(ROWS, dtype=torch.int64), **change}
    named = {
        n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
        for n, x in named.items()
        if x is not None
    }
    with pytest.raises((TypeError, ValueError), match=words):
        build_objective(objective)(**named)
