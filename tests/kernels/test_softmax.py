# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Softmax statistics against a loop over rows and classes in float64, by every torch kernel."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_losses import Objective, SoftmaxStats, softmax_stats
from lightning_losses.kernels.eager import chunked
from lightning_losses.kernels.valid_rows import front, restore
from lightning_losses.losses import CrossEntropy, EntropyBonus
from lightning_losses.softmax import (
    STATISTICS,
    compute,
    make_problem,
    resolve_kernel,
    shift_left,
)
from lightning_losses.softmax.compute import restore_neg_inf

KERNELS = ("reference", "chunked")
FLOATING = tuple(name for name in STATISTICS if name != "prediction")
MEANS = ("mean_logit", "mean_log_prob", "weighted_log_prob")  # -inf with a class at -inf
FINITE = tuple(name for name in FLOATING if name not in MEANS)

# 7 rows and chunks of 3 with blocks of 2: whole chunks, a short last chunk, and blocks that end
# within a chunk. 11 classes: not a multiple of anything.
N, D, V = 7, 5, 11


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "MIN_CHUNK_ROWS", 1)
    monkeypatch.setattr(chunked, "CHUNK_BYTES", 3 * 4 * V)
    monkeypatch.setattr(chunked, "BLOCK_BYTES", 2 * 4 * V)


def class_weight(classes: int = V) -> Tensor:
    """One of them 0, and none of the others alike."""
    return torch.arange(classes, dtype=torch.float64) / 3


def weighted_stats(logits: Tensor | None = None, **named: Any) -> SoftmaxStats:
    """`softmax_stats` with class weights, so that every statistic is there."""
    classes = named["head_weight"].shape[0] if logits is None else logits.shape[-1]
    return softmax_stats(logits, class_weight=class_weight(classes), **named)


def by_loop(
    z: Tensor,
    target: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    temperature: Tensor | None = None,
    ignore_index: int = -100,
) -> dict[str, list[float]]:
    """Every statistic of rows ``(N, V)`` of raw logits, one number at a time."""
    out: dict[str, list[float]] = {name: [] for name in STATISTICS}
    for i, row in enumerate(z.tolist()):
        y = None if target is None else target[i].tolist()
        if y == ignore_index:
            for values in out.values():
                values.append(0)
            continue
        x = []
        for j, value in enumerate(row):
            value = (value + (0 if bias is None else bias[j].item())) * scale
            value = value if softcap is None else softcap * math.tanh(value / softcap)
            x.append(value / (1 if temperature is None else temperature[i].item()))
        top = max(x)
        e = [math.exp(value - top) for value in x]
        p = [value / sum(e) for value in e]
        lse = top + math.log(sum(e))
        out["logsumexp"].append(lse)
        out["entropy"].append(-sum(q * math.log(q) for q in p if q > 0))
        out["mean_logit"].append(sum(x) / len(x))
        out["mean_log_prob"].append(sum(v - lse for v in x) / len(x))
        pairs = zip(class_weight(len(x)).tolist(), x, strict=True)
        out["weighted_log_prob"].append(sum(w * (v - lse) for w, v in pairs) / len(x))
        out["collision"].append(sum(q * q for q in p))
        out["confidence"].append(max(p))
        out["prediction"].append(x.index(top))
        if isinstance(y, list):
            out["log_prob"].append(sum(t * (v - lse) for t, v in zip(y, x, strict=True) if t))
        elif y is not None:
            out["log_prob"].append(x[y] - lse)
    return out


def check(stats: SoftmaxStats, expected: dict[str, list[float]], atol: float = 1e-10) -> None:
    found = stats.as_dict()
    found.pop("valid", None)
    assert found
    for name, value in found.items():
        want = torch.tensor(expected[name], dtype=value.dtype)
        torch.testing.assert_close(
            value.flatten(), want, atol=atol, rtol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def problem(dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> dict[str, Any]:
    """Hidden states with a head, and class targets of which one row is ignored."""
    g = torch.Generator().manual_seed(seed)
    made = {
        "hidden": torch.randn(N, D, generator=g, dtype=torch.float64),
        "head_weight": torch.randn(V, D, generator=g, dtype=torch.float64),
        "head_bias": torch.randn(V, generator=g, dtype=torch.float64),
    }
    made = {name: value.to(dtype).requires_grad_() for name, value in made.items()}
    target = torch.randint(V, (N,), generator=g)
    target[2] = -100
    return {**made, "target": target, **options}


def soft_target(seed: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(N, V, generator=g, dtype=torch.float64)  # rows need not sum to 1


def positive(seed: int = 4) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return 0.5 + torch.rand(N, generator=g, dtype=torch.float64)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "softcap": {"softcap": 2.0},
    "scale": {"logit_scale": 1.7},
    "temperature": {"temperature": positive()},
    "everything": {"softcap": 3.0, "logit_scale": 0.6, "temperature": positive(5)},
}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
class TestValues:
    def test_from_hidden(self, options: dict[str, Any], soft: bool, kernel: str) -> None:
        p = problem()
        if soft:
            p["target"] = soft_target()
        stats = weighted_stats(**p, **options, kernel=kernel)
        loop = {"scale" if k == "logit_scale" else k: v for k, v in options.items()}
        z = p["hidden"] @ p["head_weight"].T
        check(stats, by_loop(z, p["target"], bias=p["head_bias"], **loop))
        assert set(STATISTICS) <= stats.as_dict().keys()

    def test_from_logits(self, options: dict[str, Any], soft: bool, kernel: str) -> None:
        p = problem()
        z = 3 * (p["hidden"] @ p["head_weight"].T).detach()
        target = soft_target() if soft else p["target"]
        stats = weighted_stats(z, target=target, **options, kernel=kernel)
        loop = {"scale" if k == "logit_scale" else k: v for k, v in options.items()}
        check(stats, by_loop(z, target, **loop))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("route", ["logits", "hidden", "hidden+bias"])
@pytest.mark.parametrize("soft", [False, True], ids=["index", "soft"])
def test_gradients_agree_statistic_by_statistic(
    options: dict[str, Any], route: str, soft: bool
) -> None:
    """The formulas of row_math against torch's autograd on materialised logits."""
    for name in FLOATING:
        grads = []
        for kernel in KERNELS:
            p = problem()
            if soft:
                p["target"] = soft_target()
            if route == "logits":
                z = (p["hidden"] @ p["head_weight"].T).detach().requires_grad_()
                p, wrt = {"logits": z, "target": p["target"]}, [z]
            else:
                wrt = [p["hidden"], p["head_weight"]]
                if route == "hidden":
                    p.pop("head_bias")
                else:
                    wrt.append(p["head_bias"])
            out = getattr(weighted_stats(**p, **options, kernel=kernel, want=[name]), name)
            # Every row a weight of its own, so that rows cannot be mixed up.
            up = torch.linspace(0.5, 2, N, dtype=torch.float64)
            grads.append(torch.autograd.grad((out * up).sum(), wrt))
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(
                a, b, atol=1e-12, rtol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
            )


def _function(name: str, route: str, soft: bool, options: dict[str, Any]) -> Any:
    p = problem(seed=1)
    target = soft_target() if soft else p["target"]
    if route == "logits":
        z = (p["hidden"] @ p["head_weight"].T).detach().requires_grad_()
        tensors = (z,)
    else:
        tensors = (p["hidden"], p["head_weight"], p["head_bias"])

    def f(*given: Tensor) -> Tensor:
        made = (
            {"logits": given[0]}
            if route == "logits"
            else dict(zip(("hidden", "head_weight", "head_bias"), given, strict=True))
        )
        if name == "mix":
            s = weighted_stats(**made, target=target, **options, kernel="chunked")
            # Products and powers: each upstream gradient depends on the other statistics.
            mix = s.entropy * s.log_prob + s.logsumexp.square() * s.confidence
            return mix + s.collision * s.mean_logit.tanh() + s.log_prob.exp()
        s = weighted_stats(**made, target=target, **options, kernel="chunked", want=[name])
        return getattr(s, name)

    return f, tensors


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", [*FLOATING, "mix"])
@pytest.mark.parametrize(
    ("route", "soft", "options"),
    [
        ("logits", False, "plain"),
        ("logits", True, "everything"),
        ("hidden", False, "everything"),
        ("hidden", True, "plain"),
    ],
)
def test_gradcheck_one_statistic_at_a_time(name: str, route: str, soft: bool, options: str) -> None:
    f, tensors = _function(name, route, soft, OPTIONS[options])
    assert torch.autograd.gradcheck(f, tensors, fast_mode=route == "hidden")


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", [*FLOATING, "mix"])
@pytest.mark.parametrize(
    ("route", "soft", "options"),
    [("logits", True, "everything"), ("hidden", False, "everything")],
)
def test_second_derivatives(name: str, route: str, soft: bool, options: str) -> None:
    f, tensors = _function(name, route, soft, OPTIONS[options])
    assert torch.autograd.gradgradcheck(f, tensors, fast_mode=True)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(0, 9),
    v=st.integers(1, 9),
    chunk=st.integers(1, 10),
    block=st.integers(1, 10),
    ignored=st.integers(0, 2**9 - 1),
    seed=st.integers(0, 100),
)
def test_any_size_of_pieces_gives_the_same(
    n: int, v: int, chunk: int, block: int, ignored: int, seed: int
) -> None:
    """V = 1, N = 0 and N = 1 included; chunks and blocks of any size against the reference."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 3, generator=g, dtype=torch.float64)
    head = torch.randn(v, 3, generator=g, dtype=torch.float64)
    target = torch.randint(v, (n,), generator=g)
    for i in range(n):
        if ignored >> i & 1:
            target[i] = -100
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "MIN_CHUNK_ROWS", 1)
        patch.setattr(chunked, "CHUNK_BYTES", chunk * 4 * v)
        patch.setattr(chunked, "BLOCK_BYTES", block * 4 * v)
        for kernel in KERNELS:
            h, w = hidden.clone().requires_grad_(), head.clone().requires_grad_()
            s = weighted_stats(hidden=h, head_weight=w, target=target, kernel=kernel)
            total = sum((getattr(s, name).sin().sum() for name in FLOATING), torch.zeros(()))
            grads = torch.autograd.grad(total, (h, w))
            results.append((*(getattr(s, name) for name in STATISTICS), *grads))
    for a, b in zip(*results, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_class_is_certain(kernel: str) -> None:
    z = torch.tensor([[3.0], [-2.0]], requires_grad=True)
    s = softmax_stats(z, target=torch.zeros(2, dtype=torch.long), kernel=kernel)
    assert s.log_prob.tolist() == [0, 0]
    assert s.entropy.tolist() == [0, 0]
    assert s.confidence.tolist() == [1, 1]
    assert s.logsumexp.tolist() == [3, -2]
    (s.log_prob + s.entropy + s.confidence + s.collision).sum().backward()
    assert z.grad.abs().max() < 1e-6


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_ignored_rows_may_hold_anything(
    bad: float, options: dict[str, Any], kernel: str, route: str
) -> None:
    """Padding is often garbage: its statistics are 0, its gradient is 0, second order too."""
    p = problem()
    options = dict(options)
    if "temperature" in options:
        options["temperature"] = options["temperature"].clone()
        options["temperature"][2] = 0 if math.isinf(bad) else bad
    if route == "logits":
        source = (p["hidden"] @ p["head_weight"].T).detach()
        source[2] = bad
        source.requires_grad_()
        made = {"logits": source, "target": p["target"]}
    else:
        source = p["hidden"].detach().clone()
        source[2] = bad
        source.requires_grad_()
        made = {**p, "hidden": source}
    s = weighted_stats(**made, **options, kernel=kernel)
    assert s.valid.tolist() == [i != 2 for i in range(N)]
    for name in STATISTICS:
        assert getattr(s, name)[2] == 0
    total = sum(getattr(s, name).sum() for name in FLOATING)
    # Not the code of create_graph: that has a branch of its own.
    (plain,) = torch.autograd.grad(total, source, retain_graph=True)
    assert plain[2].abs().max() == 0
    assert plain.isfinite().all()
    (first,) = torch.autograd.grad(total, source, create_graph=True)
    torch.testing.assert_close(first, plain)
    assert first[2].abs().max() == 0
    assert first.isfinite().all()
    assert first[0].abs().max() > 0
    (second,) = torch.autograd.grad(first.square().sum(), source)
    assert second[2].abs().max() == 0
    assert second.isfinite().all()


@pytest.mark.parametrize("kernel", ["reference", "chunked", "triton", "triton_keep", "triton_lean"])
@pytest.mark.parametrize("order", ["objective", "first", "second"])
def test_garbage_in_ignored_rows_does_not_reach_the_head(
    kernel: str, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN in hidden outlives dlogits of 0 in the product that makes the head's gradient."""
    # As on a GPU, where nothing is left out beforehand.
    monkeypatch.setattr(compute, "compact", lambda problem: (problem, None))
    p = {name: x.float() if x.is_floating_point() else x for name, x in problem().items()}
    p["head_weight"] = p["head_weight"].detach().requires_grad_()
    clean = p["hidden"].detach().clone()
    clean[2] = 0
    found = []
    for hidden in (clean, clean.index_fill(0, torch.tensor([2]), torch.nan)):
        named = {**p, "hidden": hidden.requires_grad_()}
        if order == "objective":
            terms = {"ce": CrossEntropy(0.1), "entropy": EntropyBonus()}
            total = Objective(terms, kernel=kernel)(**named).total
        else:
            # Mode lean knows no class weights.
            stats = (softmax_stats if kernel == "triton_lean" else weighted_stats)(
                **named, kernel=kernel
            )
            names = [name for name in FLOATING if getattr(stats, name) is not None]
            total = sum((getattr(stats, name) ** 2).sum() for name in names)
        leaves = [hidden, p["head_weight"]]
        slope = torch.autograd.grad(total, leaves, create_graph=order == "second")
        if order == "second":
            slope = torch.autograd.grad(sum((x**2).sum() for x in slope), leaves)
        found.append((total.detach(), slope))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("how", ["logits", "bias"])
def test_masked_classes_of_valid_rows(kernel: str, how: str) -> None:
    """-inf is how users forbid a class: statistics over the others, gradient 0 at the class."""
    z = torch.tensor([[1.0, -math.inf, 0.5], [0.2, -math.inf, -1.0]], dtype=torch.float64)
    target = torch.tensor([0, 2])
    if how == "logits":
        leaf = z.clone().requires_grad_()
        given = {"logits": leaf}
    else:
        leaf = z[:, [0, 2]].clone().requires_grad_()
        hidden = torch.cat([leaf, leaf.new_zeros(2, 1)], 1)[:, [0, 2, 1]]
        bias = torch.tensor([0, -math.inf, 0], dtype=torch.float64)
        given = {"hidden": hidden, "head_weight": torch.eye(3).double(), "head_bias": bias}
    s = weighted_stats(**given, target=target, kernel=kernel)
    rest = by_loop(z[:, [0, 2]], torch.tensor([0, 1]))
    for name in FINITE:
        torch.testing.assert_close(getattr(s, name), torch.tensor(rest[name]).double())
    for name in MEANS:
        assert getattr(s, name).tolist() == [-math.inf, -math.inf], name
    wanted = [getattr(s, name).sum() for name in rest if name in FINITE]
    (grad,) = torch.autograd.grad(sum(wanted), leaf)
    assert grad.isfinite().all()
    if how == "logits":
        assert grad[:, 1].abs().max() == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_target_at_a_masked_class(kernel: str) -> None:
    """log p is -inf, as it is; the gradient stays finite."""
    z = torch.tensor([[1.0, -math.inf, 0.5]], requires_grad=True)
    s = softmax_stats(z, target=torch.tensor([1]), kernel=kernel)
    assert s.log_prob.item() == -math.inf
    s.log_prob.sum().backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_ties_predict_the_lowest_class(kernel: str) -> None:
    z = torch.zeros(3, V)
    assert softmax_stats(z, kernel=kernel).prediction.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_logits_do_not_cancel(kernel: str) -> None:
    """Statistics in log p: an offset of 10,000 in float32 must not eat the entropy's gradient."""
    z = torch.tensor([[0.0, 1.0, 2.0]])
    grads, values = [], []
    for offset in (0.0, 1e4):
        leaf = (z + offset).requires_grad_()
        s = softmax_stats(leaf, kernel=kernel, want=["entropy"])
        grads.append(torch.autograd.grad(s.entropy.sum(), leaf)[0])
        values.append(s.entropy)
    torch.testing.assert_close(values[0], values[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(grads[0], grads[1], atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_half_precision_computes_in_float32(dtype: torch.dtype, kernel: str) -> None:
    z = torch.randn(N, V, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    target = torch.arange(N)
    s = weighted_stats(z, target=target, kernel=kernel)
    check(s, by_loop(z.detach().double(), target), atol=1e-5)
    assert all(getattr(s, name).dtype == torch.float32 for name in FLOATING)
    s.entropy.sum().backward()
    assert z.grad.dtype == dtype
    # Large float16 logits: exp of them overflows float16 and even float32.
    big = torch.tensor([[60000.0, 59000.0]], dtype=torch.float16)
    assert softmax_stats(big, kernel=kernel).entropy.item() == 0


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_head_gradient_is_summed_in_float32(dtype: torch.dtype) -> None:
    """Chunk sums in half precision are what users of other fused losses report as divergence."""
    p = problem(dtype, head_bias=None)
    exact = problem(torch.float64, head_bias=None)
    for name in ("hidden", "head_weight"):
        exact[name] = p[name].detach().double().requires_grad_()
    grads = []
    for q in (p, exact):
        s = softmax_stats(**q, kernel="chunked", want=["log_prob"])
        grads.append(torch.autograd.grad(-s.log_prob.sum(), (q["hidden"], q["head_weight"])))
    for got, want in zip(*grads, strict=True):
        assert got.dtype == dtype
        error = (got.double() - want).abs().max() / want.abs().max()
        assert error < 3 * torch.finfo(dtype).eps


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kernel", KERNELS)
def test_views_and_transposes(kernel: str) -> None:
    p = problem()
    base = weighted_stats(**p, kernel=kernel)
    tied = p["head_weight"].detach().T.contiguous().T.requires_grad_()  # (V, D), column-major
    strided = torch.stack([p["hidden"].detach()] * 2, 1)[:, 1].requires_grad_()
    every_other = torch.stack([p["target"]] * 2, 1)[:, 0]
    assert not tied.is_contiguous()
    assert not strided.is_contiguous()
    assert not every_other.is_contiguous()
    other = weighted_stats(
        hidden=strided,
        head_weight=tied,
        head_bias=p["head_bias"],
        target=every_other,
        kernel=kernel,
    )
    for name in STATISTICS:
        torch.testing.assert_close(getattr(base, name), getattr(other, name))
    a = torch.autograd.grad(base.entropy.sum(), (p["hidden"], p["head_weight"]))
    b = torch.autograd.grad(other.entropy.sum(), (strided, tied))
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y)
    z = (p["hidden"] @ p["head_weight"].T).detach()
    check(
        softmax_stats(z.T.contiguous().T, target=p["target"], kernel=kernel),
        by_loop(z, p["target"]),
    )
    expanded = z[:1].expand(N, V)  # stride 0: must never be written to
    before = expanded.clone()
    leaf = expanded.detach().requires_grad_()
    softmax_stats(leaf, kernel=kernel, want=["entropy"]).entropy.sum().backward()
    assert torch.equal(expanded, before)


@pytest.mark.parametrize("kernel", KERNELS)
def test_leading_dimensions_and_shift(kernel: str) -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, V, generator=g, dtype=torch.float64)
    target = torch.randint(V, (2, 4), generator=g)
    target[1, 3] = -100
    s = weighted_stats(z, target=target, kernel=kernel)
    assert s.entropy.shape == (2, 4)
    check(s, by_loop(z.reshape(8, V), target.reshape(8)))
    for shift in (1, 2):
        s = softmax_stats(z, target=target, shift=shift, kernel=kernel)
        assert s.entropy.shape == (2, 4 - shift)
        aligned = target[:, shift:].reshape(-1)
        check(s, by_loop(z[:, :-shift].reshape(-1, V), aligned))
        assert s.valid.tolist() == (target[:, shift:] != -100).tolist()
    scalar = softmax_stats(z[0, 0], target=target[0, 0], kernel=kernel)
    assert scalar.entropy.shape == ()


@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_autocast_keeps_statistics_in_float32(route: str) -> None:
    p = problem(torch.float32, head_bias=None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if route == "logits":
            z = p["hidden"] @ p["head_weight"].T
            assert z.dtype == torch.bfloat16
            s = softmax_stats(z, target=p["target"], kernel="chunked")
        else:
            s = softmax_stats(**p, kernel="chunked")
    assert s.entropy.dtype == torch.float32
    exact = by_loop(p["hidden"].detach() @ p["head_weight"].detach().T, p["target"])
    check(
        SoftmaxStats(**{n: getattr(s, n) for n in FLOATING}), exact, atol=0.05
    )  # the product is rounded to bfloat16, nothing else
    s.entropy.sum().backward()
    assert p["head_weight"].grad.dtype == torch.float32


# Not every combination: each costs seconds. aot_eager traces the backward too.
@pytest.mark.parametrize(
    ("backend", "route", "kernel"),
    [
        ("eager", "logits", "reference"),
        ("aot_eager", "logits", "chunked"),
        ("aot_eager", "hidden", "chunked"),
    ],
)
def test_compiles_without_graph_breaks(backend: str, route: str, kernel: str) -> None:
    torch._dynamo.reset()
    p = problem(torch.float32, head_bias=None)
    if route == "logits":
        z = (p["hidden"] @ p["head_weight"].T).detach().requires_grad_()
        wrt, given = [z], {"logits": z, "target": p["target"]}
    else:
        wrt, given = [p["hidden"], p["head_weight"]], p

    def f(**named: Any) -> Tensor:
        s = weighted_stats(**named, softcap=4.0, kernel=kernel)
        return (s.entropy * s.log_prob + s.confidence + s.collision + s.mean_logit).sum()

    expected = f(**given)
    found = torch.compile(f, fullgraph=True, backend=backend)(**given)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, wrt), torch.autograd.grad(expected, wrt), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_func_grad_works_and_forward_mode_raises() -> None:
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def f(x: Tensor, kernel: str = "chunked") -> Tensor:
        return softmax_stats(x, want=["entropy"], kernel=kernel).entropy.sum()

    torch.testing.assert_close(
        torch.func.grad(f)(z), torch.func.grad(lambda x: f(x, "reference"))(z)
    )
    hessian = torch.func.grad(lambda x: torch.func.grad(f)(x).square().sum())(z)
    assert hessian.abs().max() > 0
    # Silent zeros here were the trap; an error is the answer.
    with pytest.raises((NotImplementedError, RuntimeError), match=r"jvp|forward"):
        torch.func.jvp(f, (z,), (torch.ones_like(z),))
    _, tangent = torch.func.jvp(lambda x: f(x, "reference"), (z,), (z,))
    torch.testing.assert_close(tangent, (torch.func.grad(f)(z) * z).sum())


def test_only_what_is_wanted() -> None:
    z = torch.randn(2, 3)
    assert softmax_stats(z, want=["entropy"]).as_dict().keys() == {"entropy"}
    assert softmax_stats(z).log_prob is None  # no target
    assert softmax_stats(z, want=[]).as_dict() == {}
    detached = softmax_stats(z.requires_grad_()).detach()
    assert not any(value.requires_grad for value in detached.as_dict().values())


def test_auto_takes_torch_for_small_logits_and_chunks_otherwise() -> None:
    from lightning_losses.softmax import SMALL, make_problem

    small, large = torch.zeros(2, 3), torch.zeros(1).expand(SMALL // 2 + 1, 2)
    head = {"hidden": small, "head_weight": torch.zeros(5, 3)}
    assert resolve_kernel("auto", make_problem(logits=small)) == "reference"
    assert resolve_kernel("auto", make_problem(logits=large)) == "chunked"
    assert resolve_kernel("auto", make_problem(**head)) != "reference"
    for kernel in KERNELS:
        assert resolve_kernel(kernel, make_problem(**head)) == kernel


Z, Y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
H, W = torch.zeros(2, 4), torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either logits"),
        ({"logits": Z, "hidden": H, "head_weight": W}, "it got both"),
        ({"hidden": H}, "without head_weight"),
        ({"hidden": H, "head_weight": torch.zeros(3, 5)}, r"D=4 as in hidden \(2, 4\)"),
        ({"logits": Y[:, None]}, "write logits.float()"),
        ({"hidden": H.long(), "head_weight": W}, "write hidden.float()"),
        ({"logits": Z, "head_bias": torch.zeros(3)}, "add it to the logits"),
        ({"hidden": H, "head_weight": W, "head_bias": torch.zeros(4)}, r"head_bias must be \(3,\)"),
        ({"logits": Z, "target": torch.zeros(3).long()}, r"target must be \(2,\), got \(3,\)"),
        ({"logits": Z, "target": torch.zeros(2, 4)}, r"target must be \(2, 3\), got \(2, 4\)"),
        ({"logits": Z, "target": torch.zeros(2)}, "real-valued target needs a target_transform"),
        ({"logits": Z, "target": Z.clone().requires_grad_()}, "target.detach()"),
        ({"logits": Z, "temperature": torch.ones(3)}, r"temperature must be \(2,\)"),
        ({"logits": Z, "temperature": torch.ones(2).requires_grad_()}, "gets no gradient"),
        ({"logits": Z, "softcap": 0.0}, "softcap must be positive"),
        ({"logits": Z, "logit_scale": torch.ones(())}, "logit_scale must be a number"),
        ({"logits": Z, "want": ["entropie"]}, "Unknown statistics"),
        ({"logits": Z, "want": ["log_prob"]}, "pass target="),
        ({"logits": Z, "kernel": "fast"}, "Unknown kernel 'fast'"),
        ({"logits": Z, "target": Y, "shift": -1}, "shift is a number of positions"),
        ({"logits": Z, "shift": -1}, "shift is a number of positions"),
        ({"logits": Z[0], "shift": 1}, "shift is a number of positions"),
        ({"logits": Z, "target": Z, "shift": 1}, "goes with class indices"),
    ],
)
def test_bad_input_says_what_to_write(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        softmax_stats(**arguments)


def test_shift_left_keeps_the_length() -> None:
    assert shift_left(torch.tensor([1, 2, 3]), 1, -100).tolist() == [2, 3, -100]
    assert shift_left(torch.tensor([[True, False]]), 1, False).tolist() == [[False, False]]


# 90 % and 100 % of rows ignored are left out of the pass; 5 % go through it.
@pytest.mark.parametrize("ignored", [1, 18, 20])
def test_rows_left_out_change_no_number(ignored: int) -> None:
    g = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(20, 4, generator=g), torch.randn(7, 4, generator=g)
    target = torch.randint(7, (20,), generator=g)
    target[torch.randperm(20, generator=g)[:ignored]] = -100
    temperature = torch.linspace(0.5, 2, 20)
    found = []
    for kernel in ("chunked", "reference"):
        leaves = [x.clone().requires_grad_() for x in (hidden, head)]
        stats = weighted_stats(
            hidden=leaves[0],
            head_weight=leaves[1],
            target=target,
            temperature=temperature,
            kernel=kernel,
        )
        values = [getattr(stats, name) for name in STATISTICS]
        total = sum((x.float() * x.float()).sum() for x in values[:-1])
        found.append([*values, *torch.autograd.grad(total, leaves)])
    for ours, right in zip(*found, strict=True):
        assert torch.allclose(ours.double(), right.double(), atol=1e-5)


# -- a promise of how many rows count --------------------------------------------------------------


def some_rows(counting: list[int]) -> dict[str, Tensor]:
    """Twenty rows of which these have a target."""
    g = torch.Generator().manual_seed(0)
    target = torch.full((20,), -100)
    target[counting] = torch.randint(7, (len(counting),), generator=g)
    return {
        "hidden": torch.randn(20, 4, generator=g, dtype=torch.float64),
        "head_weight": torch.randn(7, 4, generator=g, dtype=torch.float64),
        "target": target,
        "temperature": torch.linspace(0.5, 2, 20, dtype=torch.float64),
    }


# As many as promised, fewer, none, and a promise that leaves too little out to be worth a copy.
@pytest.mark.parametrize(("counting", "most"), [(6, 6), (3, 6), (0, 6), (0, 0), (6, 19)])
def test_rows_past_a_promise_are_cut_off_and_change_no_number(counting: int, most: int) -> None:
    # What `compact` does on a GPU, which asks nothing: here on a CPU.
    rows = torch.randperm(20, generator=torch.Generator().manual_seed(1))[:counting].tolist()
    named = some_rows(rows)
    weight = class_weight(len(named["head_weight"]))
    problem = make_problem(**named, valid=named["target"] != -100, class_weight=weight)
    want = STATISTICS[:-1]
    leaves = [x.requires_grad_() for x in (named["hidden"], named["head_weight"])]
    problem = problem._replace(hidden=leaves[0], head_weight=leaves[1])
    cut, kept = front(problem, most)
    assert cut.source.shape[0] == (20 if most == 19 else most)
    whole = restore_neg_inf(chunked.statistics(problem, want), problem.valid)
    found = restore_neg_inf(chunked.statistics(cut, want), cut.valid)
    found = {name: restore(x, kept, 20) for name, x in found.items()}
    torch.testing.assert_close(found, whole)
    grads = [
        torch.autograd.grad(sum(x.square().sum() for x in stats.values()), leaves)
        for stats in (found, whole)
    ]
    torch.testing.assert_close(*grads)


def test_a_promise_holds_in_compiled_code_and_through_the_objective() -> None:
    named = some_rows([2, 3, 11])
    named["hidden"].requires_grad_()
    objective = Objective({"ce": CrossEntropy(), "entropy": EntropyBonus()}, kernel="chunked")
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    totals = [
        objective(**named).total,
        objective(**named, max_valid=5).total,
        compiled(**named, max_valid=5).total,
        compiled(**named, max_valid=3).total,
    ]
    slopes = [torch.autograd.grad(total, named["hidden"])[0] for total in totals]
    for total, slope in zip(totals, slopes, strict=True):
        torch.testing.assert_close(total, totals[0])
        torch.testing.assert_close(slope, slopes[0])


def test_a_broken_promise_is_said() -> None:
    named = some_rows([2, 3, 11])
    with pytest.raises(ValueError, match=r"max_valid is 2 and 3 rows count\. max_valid promises"):
        softmax_stats(**named, max_valid=2)
    with pytest.raises(ValueError, match="max_valid is a number of rows, got -1"):
        softmax_stats(**named, max_valid=-1)
    problem = make_problem(**named, valid=named["target"] != -100)
    with pytest.raises(RuntimeError, match="max_valid promises"):
        front(problem, 2)
