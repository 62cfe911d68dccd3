# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One pass over the classes gives the numbers of two passes, whatever the row losses are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import LossRecord, Objective, Term
from lightning_losses.evaluation import plan
from lightning_losses.evaluation import terms as evaluation
from lightning_losses.kernels.eager import chunked, reference
from lightning_losses.kernels.eager.chunked import TORCH
from lightning_losses.kernels.eager.inplace_passes import INPLACE, torch_passes
from lightning_losses.kernels.eager.row_fused import row_fused
from lightning_losses.kernels.problem import STATISTICS, Problem
from lightning_losses.losses import (
    CompSum,
    CrossEntropy,
    EntropyBonus,
    Focal,
    LogsumexpPenalty,
    StableMax,
)
from lightning_losses.weighting import KLDRO

N, D, V = 7, 4, 9  # chunks of 3 rows: the last one is short


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "MIN_CHUNK_ROWS", 1)
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 3 * 4 * V)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the objective took the one-pass entry, so that no test compares it with itself."""
    made: list[int] = []
    original = evaluation.row_fused

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(evaluation, "row_fused", counted)
    return made


def tensors(seed: int = 0, dtype: torch.dtype = torch.float64, bias: bool = True) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    made = {
        "hidden": torch.randn(N, D, generator=g, dtype=torch.float64),
        "head_weight": torch.randn(V, D, generator=g, dtype=torch.float64),
    }
    if bias:
        made["head_bias"] = torch.randn(V, generator=g, dtype=torch.float64)
    made = {name: value.to(dtype).requires_grad_() for name, value in made.items()}
    target = torch.randint(V, (N,), generator=g)
    target[4] = -100
    return {**made, "target": target}


def gradients(record: LossRecord, named: dict[str, Any]) -> list[Tensor]:
    leaves = [t for t in named.values() if isinstance(t, Tensor) and t.requires_grad]
    return list(torch.autograd.grad(record.total, leaves, retain_graph=True))


def assert_same(a: LossRecord, b: LossRecord, named: dict[str, Any], tol: float = 1e-12) -> None:
    torch.testing.assert_close(a.total, b.total, atol=tol, rtol=tol)
    assert a.terms.keys() == b.terms.keys()
    for name in a.terms:
        torch.testing.assert_close(a.terms[name], b.terms[name], atol=tol, rtol=tol)
    for x, y in zip(gradients(a, named), gradients(b, named), strict=True):
        torch.testing.assert_close(x, y, atol=tol, rtol=tol)


class TwoPasses(Objective):
    """An objective that is kept off the one-pass entry."""

    def forward(self, *args: Any, **named: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "_one_pass", lambda *_: False)
            return super().forward(*args, **named)


def two_pass(terms: dict[str, Term | nn.Module], **options: Any) -> Objective:
    return TwoPasses(terms, kernel="chunked", **options)


ROW_LOSSES = {
    "ce": lambda x: CrossEntropy(label_smoothing=x),
    "class_weight": lambda x: CrossEntropy(class_weight=[0.3 + x + j / V for j in range(V)]),
    "focal": lambda x: Focal(gamma=4 * x, alpha=[1 + j / V for j in range(V)]),
    "comp_sum": lambda x: CompSum(tau=2 * x),
    "logsumexp": lambda x: LogsumexpPenalty(),
    "entropy": lambda x: EntropyBonus(),
}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    chosen=st.dictionaries(
        st.sampled_from(sorted(ROW_LOSSES)),
        st.tuples(st.floats(0, 3), st.floats(0, 1)),
        min_size=1,
    ),
    reduction=st.sampled_from(["mean", "sum"]),
    weighted=st.booleans(),
    masked=st.booleans(),
    normalizer=st.sampled_from([None, 3.0, 11]),
    seed=st.integers(0, 20),
)
def test_every_composition_equals_two_passes(
    calls: list[int],
    chosen: dict[str, tuple[float, float]],
    reduction: str,
    weighted: bool,
    masked: bool,
    normalizer: float | None,
    seed: int,
) -> None:
    terms = {name: Term(ROW_LOSSES[name](x), weight) for name, (weight, x) in chosen.items()}
    named = tensors(seed)
    g = torch.Generator().manual_seed(seed)
    if weighted:
        named["sample_weight"] = torch.rand(N, generator=g, dtype=torch.float64)
    if masked:
        named["mask"] = torch.rand(N, generator=g) > 0.4
    calls.clear()
    fused = Objective(terms, kernel="chunked", reduction=reduction)
    one = fused(**named, normalizer=normalizer)
    assert len(calls) == 1
    two = two_pass(terms, reduction=reduction)(**named, normalizer=normalizer)
    assert len(calls) == 1
    assert_same(one, two, named)
    reference = Objective(terms, kernel="reference", reduction=reduction)
    assert_same(one, reference(**named, normalizer=normalizer), named, tol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"softcap": 2.0, "logit_scale": 0.7},
        {"temperature": torch.linspace(0.5, 2, N, dtype=torch.float64)},
        {"head_bias": None},
    ],
    ids=lambda o: "-".join(o),
)
def test_how_logits_are_made(calls: list[int], options: dict[str, Any]) -> None:
    terms = {"ce": CrossEntropy(0.1), "focal": Focal(), "entropy": EntropyBonus()}
    named = {**tensors(), **options}
    one = Objective(terms)(**named)
    assert calls
    assert_same(one, Objective(terms, kernel="reference")(**named), named, tol=1e-10)


def test_soft_targets(calls: list[int]) -> None:
    named = tensors()
    g = torch.Generator().manual_seed(1)
    named["target"] = torch.rand(N, V, generator=g, dtype=torch.float64)
    one = Objective({"ce": CrossEntropy(0.2)})(**named)
    assert calls
    two = Objective({"ce": CrossEntropy(0.2)}, kernel="reference")(**named)
    assert_same(one, two, named, tol=1e-10)


def test_plain_cross_entropy_is_torchs() -> None:
    named = tensors(dtype=torch.float32)
    record = Objective({"ce": CrossEntropy()})(**named)
    z = F.linear(named["hidden"], named["head_weight"], named["head_bias"])
    expected = F.cross_entropy(z, named["target"])
    torch.testing.assert_close(record.total, expected)
    leaves = [named[n] for n in ("hidden", "head_weight", "head_bias")]
    for a, b in zip(
        torch.autograd.grad(record.total, leaves),
        torch.autograd.grad(expected, leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_backward_twice_and_scaled_upstream(calls: list[int]) -> None:
    named = tensors()
    record = Objective({"ce": CrossEntropy(), "entropy": EntropyBonus()})(**named)
    assert calls
    first = gradients(record, named)
    again = gradients(record, named)
    leaves = [named[n] for n in ("hidden", "head_weight", "head_bias")]
    scaled = torch.autograd.grad(-2.5 * record.total, leaves)
    for a, b, c in zip(first, again, scaled, strict=True):
        assert torch.equal(a, b)  # the stored gradients were not scaled in place
        torch.testing.assert_close(c, -2.5 * a)


def test_second_derivative_raises() -> None:
    named = tensors()
    record = Objective({"ce": CrossEntropy()})(**named)
    with pytest.raises(RuntimeError, match=r"second derivative.*kernel='reference'"):
        torch.autograd.grad(record.total, named["hidden"], create_graph=True)
    record = Objective({"ce": CrossEntropy()}, kernel="reference")(**named)
    (first,) = torch.autograd.grad(record.total, named["hidden"], create_graph=True)
    assert torch.autograd.grad(first.square().sum(), named["hidden"])[0].abs().max() > 0


@pytest.mark.parametrize("frozen", ["hidden", "head_weight", "head_bias"])
def test_frozen_parts_get_no_gradient(calls: list[int], frozen: str) -> None:
    named = tensors()
    named[frozen] = named[frozen].detach()
    terms = {"ce": CrossEntropy(), "z": LogsumexpPenalty()}
    one = Objective(terms)(**named)
    assert calls
    assert_same(one, Objective(terms, kernel="reference")(**named), named, tol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(calls: list[int], dtype: torch.dtype) -> None:
    named = tensors(dtype=dtype)
    terms = {"ce": CrossEntropy(0.1), "focal": Focal()}
    one = Objective(terms)(**named)
    assert bool(calls) == (dtype != torch.float16)  # see the next test
    assert one.total.dtype == torch.float32
    exact = {k: v.detach().double() if v.is_floating_point() else v for k, v in named.items()}
    exact = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in exact.items()}
    two = Objective(terms, kernel="reference")(**exact)
    assert abs(one.total.item() - two.total.item()) < 0.05
    for a, b in zip(gradients(one, named), gradients(two, exact), strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).abs().max() < 8 * torch.finfo(dtype).eps


# Over chunks of 3 rows the head's gradient would be summed in float32, 4 x 4 bytes a class; the
# logits of 11 rows in bfloat16 are 22 bytes a class, and 3 rows and the sum are 6 + 16.
@pytest.mark.parametrize(("rows", "dtype", "whole"), [
    (11, torch.bfloat16, True), (12, torch.bfloat16, False), (7, torch.float32, False)
])  # fmt: skip
def test_all_rows_at_once_where_a_sum_over_chunks_takes_more_memory(
    rows: int, dtype: torch.dtype, whole: bool
) -> None:
    sizes: list[int] = []

    hidden = torch.randn(rows, D, dtype=dtype, requires_grad=True)
    for frozen in (False, True):  # without a gradient of the head there is no sum
        head = torch.randn(V, D, dtype=dtype, requires_grad=not frozen)
        problem = Problem(None, hidden, head, None, torch.arange(rows) % V)
        passes = torch_passes(problem)

        def logits(chunk: Problem, used: Tensor | None, inner: Any = passes.logits) -> Tensor:
            sizes.append(len(chunk.source))
            return inner(chunk, used)

        row_fused(
            problem,
            ("log_prob",),
            lambda stats, _: (-stats["log_prob"].sum(), -stats["log_prob"][None]),
            {},
            passes._replace(logits=logits),
        )
        assert (max(sizes) == rows) == (whole and not frozen), sizes
        sizes.clear()


def test_float16_gradients_of_a_mean_survive_a_loss_scale(calls: list[int]) -> None:
    """p / N below 6e-8 is 0 in float16, and 65,536 is inf: the scale must come first."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(512, 16, generator=g).half().requires_grad_()
    head = torch.randn(1000, 16, generator=g).mul(0.1).half().requires_grad_()
    target = torch.randint(1000, (512,), generator=g)
    found = []
    for kernel in ("chunked", "reference"):
        objective = Objective({"ce": CrossEntropy()}, kernel=kernel)
        total = objective(hidden=hidden, head_weight=head, target=target).total * 2.0**14
        found.append(torch.autograd.grad(total, (hidden, head)))
    assert not calls
    for ours, torchs in zip(*found, strict=True):
        assert ours.isfinite().all()
        assert (ours.float() - torchs.float()).norm() < 2e-3 * torchs.float().norm()


@pytest.mark.parametrize(
    "terms",
    [
        {"ce": Term(CrossEntropy(), row_weighting=KLDRO())},  # weights need all rows first
        {  # a weighted sum over all classes for each
            "a": CrossEntropy(0.1, class_weight=[1.0] * V),
            "b": CrossEntropy(0.1, class_weight=[2.0] * V),
        },
    ],
    ids=["row weighting", "two weighted smoothings"],
)
def test_what_cannot_be_fused_is_not(calls: list[int], terms: dict[str, Any]) -> None:
    named = tensors()
    try:
        Objective(terms)(**named).total.backward()
    except ValueError as error:
        assert "whole rows of logits" in str(error)  # noqa: PT017
    assert not calls


def test_learned_row_weights_keep_their_gradient(calls: list[int]) -> None:
    """The one-pass entry has no gradient for them, so it must stand back."""
    named = {**tensors(), "sample_weight": torch.ones(N, dtype=torch.float64, requires_grad=True)}
    Objective({"ce": CrossEntropy()})(**named).total.backward()
    assert not calls
    assert named["sample_weight"].grad.abs().max() > 0


def test_terms_that_read_other_tensors_stand_beside(calls: list[int]) -> None:
    """A penalty of features needs no pass over the classes, so it must not forbid the fused one."""

    class Norm(nn.Module):
        scope = "rows"

        def forward(self, hidden: Tensor) -> Tensor:
            return hidden.square().sum(1)

    terms = {"ce": CrossEntropy(), "norm": Term(Norm(), 0.1)}
    named = tensors()
    one = Objective(terms)(**named)
    assert calls
    assert_same(one, Objective(terms, kernel="reference")(**named), named, tol=1e-10)


def test_monitors_get_their_statistics_from_the_same_pass(calls: list[int]) -> None:
    named = tensors()
    objective = Objective({"ce": CrossEntropy()})
    objective.watch("monitor", "entropy", "prediction", "target")
    record = objective(**named)
    assert calls
    assert record.stats.entropy.shape == (N,)
    assert not record.stats.entropy.requires_grad
    assert record.stats.entropy[4] == 0  # the ignored row
    reference = Objective({"ce": CrossEntropy()}, kernel="reference")
    reference.watch("monitor", "entropy", "prediction")
    expected = reference(**named)
    torch.testing.assert_close(record.stats.entropy, expected.stats.entropy)
    assert torch.equal(record.stats.prediction, expected.stats.prediction)
    assert record.captured["target"].shape == (N,)


def test_nothing_valid_and_no_rows() -> None:
    for rows in (0, 3):
        named = {
            "hidden": torch.randn(rows, D, requires_grad=True),
            "head_weight": torch.randn(V, D, requires_grad=True),
            "target": torch.full((rows,), -100),
        }
        record = Objective({"ce": CrossEntropy(0.1), "entropy": EntropyBonus()})(**named)
        assert record.total.item() == 0
        for grad in gradients(record, named):
            assert torch.count_nonzero(grad) == 0


def test_stablemax_asks_for_logits() -> None:
    with pytest.raises(ValueError, match=r"Term 'stablemax' .* whole rows of logits"):
        Objective({"ce": CrossEntropy(), "stablemax": StableMax()})(**tensors())


def test_a_loss_that_reads_a_whole_tensor_gets_it_whole() -> None:
    # A frozen head is no row data: cut along with the rows it would be wrong without an error.
    class Norm(nn.Module):
        scope = "rows"

        def forward(self, log_prob: Tensor, head_weight: Tensor) -> Tensor:
            return -log_prob * head_weight.norm()

    hidden = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    head = torch.randn(9, 4, dtype=torch.float64)  # as many classes as rows
    target = torch.arange(9)
    totals = [
        Objective({"norm": Norm()}, kernel=kernel)(
            hidden=hidden, head_weight=head, target=target
        ).total
        for kernel in ("chunked", "reference")
    ]
    torch.testing.assert_close(*totals)


# One statistic, because each needs other coefficients; all; and the pairs whose gradients share the
# logarithm of a probability (entropy) or its square (collision).
WANTED = [(name,) for name in STATISTICS[:-1]]
WANTED += [STATISTICS[:-1], ("entropy", "collision"), ("log_prob", "entropy")]


@pytest.mark.parametrize("want", WANTED, ids=" ".join)
@pytest.mark.parametrize("masked", ["no class", "two classes", "every class"])
def test_exponentials_are_made_once_and_serve_the_gradient(
    want: tuple[str, ...], masked: str
) -> None:
    named = tensors(seed=3)
    temperature = torch.rand(N, dtype=torch.float64) + 0.1
    bias = named["head_bias"].detach().clone()
    bias[: {"no class": 0, "two classes": 2, "every class": V}[masked]] = -torch.inf
    # Logits so far apart that exponentials are 0: their p log p is 0 too, not NaN.
    head = (1000 * named["head_weight"]).detach().requires_grad_()
    hidden, target = named["hidden"], named["target"].clamp(min=0)
    for made in (named["head_weight"], head):
        problem = Problem(
            hidden=hidden,
            head_weight=made,
            head_bias=bias.requires_grad_(),
            target=target,
            temperature=temperature,
            class_weight=torch.arange(V) / 5,
            logit_scale=0.7,
        )
        assert torch_passes(problem) is INPLACE
        g = torch.Generator().manual_seed(1)
        weights = {name: torch.randn(N, generator=g, dtype=torch.float64) for name in want}

        def total(stats: dict[str, Tensor], rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            terms = [stats[name].clamp(min=-1e9) * rows[name] for name in want]
            return torch.stack(terms).sum(), torch.stack(terms).detach()

        found = []
        for passes in (None, TORCH):
            value, stats, _ = row_fused(problem, want, total, weights, passes)
            found.append((value, stats, torch.autograd.grad(value, [hidden, made, bias])))
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9, equal_nan=True)
        if masked == "every class":  # then there is no softmax
            assert all(x.isnan().all() for x in found[0][1].values())
        if masked == "no class":
            expected = total(reference.statistics(problem, want), weights)[0]
            slope = torch.autograd.grad(expected, [hidden, made, bias])
            torch.testing.assert_close(found[0][2], slope, rtol=1e-9, atol=1e-9)


def test_a_soft_cap_needs_the_logits_themselves() -> None:
    named = tensors()
    problem = Problem(
        hidden=named["hidden"],
        head_weight=named["head_weight"],
        target=named["target"],
        softcap=5.0,
    )
    assert torch_passes(problem) is TORCH
    assert torch_passes(problem._replace(hidden=named["hidden"].half(), softcap=None)) is TORCH
