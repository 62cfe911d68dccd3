# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels, under the interpreter, against float64 references and the golden file.

Tiny blocks (16 rows and classes, 32 deep) stand for the real ones: every loop runs several times
and ends raggedly at sizes the interpreter finishes in a second. bfloat16 cannot be tested here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch import Tensor

from lightning_losses.kernels.availability import unavailable
from lightning_losses.kernels.eager import reference
from lightning_losses.kernels.problem import STATISTICS, Problem
from lightning_losses.kernels.triton import tiles
from lightning_losses.softmax import make_problem
from lightning_losses.softmax.compute import restore_neg_inf

modes = pytest.importorskip("lightning_losses.kernels.triton.modes")
from lightning_losses.kernels.triton import (  # noqa: E402
    fast_keep,
    lean_backward_op,
    lean_forward_op,
    row_ops,
)

# The interpreter computes lanes that are then masked away: 0 times inf among them.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DIFFERENTIABLE = STATISTICS[:-1]
#: What mode lean makes: no sum over class weights.
LEAN = tuple(name for name in STATISTICS if name != "weighted_log_prob")
#: -inf where a class is masked.
MEANS = {"mean_logit", "mean_log_prob", "weighted_log_prob"}
MODES = ("fast", "keep", "lean")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "linear_ce.json").read_text())["cases"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks far below the sizes tested, and several chunks, slabs and spans."""
    monkeypatch.setattr(tiles, "MIN_CHUNK_ROWS", 5)
    monkeypatch.setattr(tiles, "CHUNK_BYTES", 1)
    monkeypatch.setattr(row_ops, "BLOCK", 32)
    monkeypatch.setattr(lean_forward_op, "MERGE_ROWS", 16)
    tile = tiles.Tile(rows=16, classes=16, depth=32, warps=4, stages=2)
    monkeypatch.setattr(tiles, "forward_tile", lambda *_: tile)
    monkeypatch.setattr(tiles, "backward_tile", lambda *_: tile)
    monkeypatch.setattr(tiles, "slab_classes", lambda *_: 32)


def read_by(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "pointers" or "descriptors", where the layout allows either."""
    arch = tiles.architecture(torch.device(DEVICE))
    if how == "pointers":
        monkeypatch.setattr(tiles, "COPY_ENGINE", ())
    elif DEVICE == "cpu":  # the interpreter asserts what the copy engine asks for
        monkeypatch.setattr(tiles, "COPY_ENGINE", (arch,))
    elif arch not in tiles.COPY_ENGINE:
        pytest.skip("no copy engine")


@pytest.fixture
def use_tma(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each matrix product that was launched read by descriptor."""
    seen: list[bool] = []
    for op in (lean_forward_op, lean_backward_op):

        def launch(*where: Any, inner: Any = op.launch, **arguments: Any) -> None:
            if "USE_TMA" in arguments:
                seen.append(arguments["USE_TMA"])
            inner(*where, **arguments)

        monkeypatch.setattr(op, "launch", launch)
    return seen


def inputs(n: int, d: int, v: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """hidden, head weight, bias."""
    g = torch.Generator().manual_seed(n * 100 + v)
    shapes = ((n, d), (v, d), (v,))
    return [torch.randn(s, generator=g).to(DEVICE, dtype).requires_grad_() for s in shapes]


def problem(leaves: list[Tensor], target: Tensor | None, **options: Any) -> Problem:
    """hidden, head weight and perhaps bias; or logits alone."""
    names = ("logits",) if len(leaves) == 1 else ("hidden", "head_weight", "head_bias")
    valid = None
    if target is not None and target.ndim == 1:
        valid = target != -100
    classes = leaves[0].shape[1] if len(leaves) == 1 else leaves[1].shape[0]
    weight = torch.arange(classes, device=DEVICE) / 10
    return make_problem(
        **dict(zip(names, leaves, strict=False)),
        target=target,
        valid=valid,
        class_weight=weight,
        **options,
    )


def both(
    mode: str,
    leaves: list[Tensor],
    target: Tensor | None,
    want: tuple[str, ...] | None = None,
    **options: Any,
) -> tuple[dict[str, Tensor], list[Tensor], dict[str, Tensor], list[Tensor]]:
    """(statistics, gradients) of the kernel, then of the float64 reference, for one random
    upstream gradient a statistic.
    """
    want = want or (LEAN if mode == "lean" else STATISTICS)
    found: list[Any] = []
    ours = {"mode": mode}
    for module, cast, extra in ((modes, lambda x: x, ours), (reference, torch.Tensor.double, {})):
        own = [cast(leaf.detach()).requires_grad_() for leaf in leaves]
        p = problem(own, target, **options)
        stats = restore_neg_inf(module.statistics(p, want, **extra), p.valid)
        g = torch.Generator().manual_seed(1)
        total = sum(
            (stats[n] * torch.randn(stats[n].shape, generator=g).to(DEVICE)).sum()
            for n in want
            if n != "prediction"
        )
        grads = torch.autograd.grad(total, own)
        found += [{n: s.detach() for n, s in stats.items()}, list(grads)]
    return tuple(found)  # type: ignore[return-value]


def worst(a: Tensor, b: Tensor) -> float:
    """Largest error relative to the largest entry (at least 1)."""
    assert a.shape == b.shape
    if a.numel() == 0:
        return 0.0
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1))


def check(found: Any, values: float, gradients: float, skip: tuple[str, ...] = ()) -> None:
    stats, grads, right, right_grads = found
    for name, value in stats.items():
        if name not in skip:
            assert worst(value, right[name]) <= values, name
    for grad, right_grad in zip(grads, right_grads, strict=True):
        assert torch.isfinite(grad).all()
        assert worst(grad, right_grad) <= gradients


# D = 40 becomes 48, 1.5 blocks; V = 37 and 67 are ragged in classes and in slabs of 32, N = 11 in
# chunks of 5. The soft-cap of 1 makes a padded class worth e^-1 of a real one: peers pass with 20.
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("with_options", [False, True])
def test_all_statistics_and_any_upstream(mode: str, with_options: bool) -> None:
    leaves = inputs(11, 40, 67 if mode == "lean" else 37)
    target = torch.arange(11, device=DEVICE) * 3
    target[[0, 7]] = -100
    options: dict[str, Any] = {}
    if with_options:
        temperature = torch.linspace(0.5, 2, 11, device=DEVICE)
        options = {"softcap": 1.0, "logit_scale": 1.3, "temperature": temperature}
    found = both(mode, leaves if with_options else leaves[:2], target, **options)
    # Under so small a cap logits tie in float32 that do not in float64.
    check(found, 2e-6, 5e-6, skip=("prediction",) if with_options else ())


# One at a time, so that outputs that are None and coefficients that are None are compiled too.
@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("mode", ["fast", "lean"])
def test_one_statistic_alone(mode: str, name: str) -> None:
    if mode == "lean" and name not in LEAN:
        pytest.skip("mode lean knows no class weights")
    leaves = inputs(3, 8, 35)
    target = torch.tensor([0, 34, 5], device=DEVICE)
    check(both(mode, leaves[:2], target, (name,)), 2e-6, 5e-6)


# D = 40 is padded to 48, 1.5 blocks; 64 is two whole blocks; 13 is odd, and padded to 16, half a
# block. The last block of classes holds 3 of 16, the only block of rows 11, the last slab 3 of 32:
# lanes past the end are 0 by descriptor, and the last row or class again by pointer.
@pytest.mark.parametrize("reading", ["pointers", "descriptors"])
@pytest.mark.parametrize(
    ("case", "d"),
    [
        ("plain", 13),
        ("plain", 64),
        ("float16", 40),
        ("soft-cap", 40),
        ("-inf bias", 40),
        ("nothing counts", 13),
    ],
)
def test_tiles_by_pointer_and_by_descriptor(
    case: str, d: int, reading: str, use_tma: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_by(reading, monkeypatch)
    leaves = inputs(11, d, 67, torch.float16 if case == "float16" else torch.float32)
    target = torch.arange(11, device=DEVICE) * 3
    target[[0, 7]] = -100
    options: dict[str, Any] = {}
    want, skip = LEAN, ()
    if case == "soft-cap":
        temperature = torch.linspace(0.5, 2, 11, device=DEVICE)
        options = {"softcap": 1.0, "logit_scale": 1.3, "temperature": temperature}
        skip = ("prediction",)  # logits tie in float32 that do not in float64
    elif case == "-inf bias":
        with torch.no_grad():
            leaves[2][[4, 66]] = -torch.inf
        want = tuple(n for n in LEAN if n not in MEANS)
    elif case == "nothing counts":
        target = torch.full_like(target, -100)
    else:
        leaves = leaves[:2]
    found = both("lean", leaves, target, want, **options)
    check(found, 2e-6, 1e-3 if case == "float16" else 5e-6, skip)
    if case == "nothing counts":
        assert not any(x.any() for x in (*found[0].values(), *found[1]))
    assert use_tma == [reading == "descriptors"] * 4  # forward, and three slabs


# Rows 17 numbers apart, a first number off 16 bytes: the copy engine refuses each. A D of 17
# itself is padded, a transposed head copied, and on a GPU hidden states are where rows may be
# ignored, before any kernel sees them.
@pytest.mark.parametrize("layout", ["odd rows", "transposed", "offset"])
def test_what_no_descriptor_can_read_is_read_by_pointer(
    layout: str, use_tma: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_by("descriptors", monkeypatch)
    hidden, head, _ = (x.detach() for x in inputs(5, 16, 35))
    if layout == "odd rows":
        head = torch.zeros(35, 17, device=DEVICE)[:, :16].copy_(head)
    elif layout == "offset":
        head = torch.zeros(35, 32, device=DEVICE)[:, 1:17].copy_(head)
    else:
        head = head.t().contiguous().t()
    check(both("lean", [hidden, head], torch.arange(5, device=DEVICE)), 2e-6, 5e-6)
    assert use_tma == [layout == "transposed"] * 3


def test_descriptors_are_a_matter_of_device_dtype_and_layout() -> None:
    x = torch.zeros(4, 32, dtype=torch.bfloat16)
    assert [tiles.descriptors(a, x, x) for a in tiles.TARGETS] == [False, True, True, False]
    assert tiles.descriptors("sm_90", x.float(), x[:, 8:24])
    odd = torch.zeros(4, 33, dtype=torch.bfloat16)
    for y in (
        odd,
        odd[:, :32],
        x.double(),
        x[:, 1:17],
        x[:, ::2],
        x.t(),
        x[:1].expand(4, 32),
        x[:0],
    ):
        assert not tiles.descriptors("sm_90", x, y)
        assert not tiles.descriptors("sm_90", y, x)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
@pytest.mark.parametrize("mode", ["fast", "lean"])
def test_golden(mode: str, case: dict[str, Any]) -> None:
    data, options, expected = case["inputs"], case["options"], case["expected"]

    def tensor(name: str) -> Tensor | None:
        value = data[name]
        return None if value is None else torch.tensor(value, dtype=torch.float32, device=DEVICE)

    leaves = [t.requires_grad_() for n in ("e", "c", "bias") if (t := tensor(n)) is not None]
    target = torch.tensor(data["target"], device=DEVICE)
    shift = options["shift"]
    weight, class_weight = tensor("token_weight"), tensor("class_weight")
    hidden = leaves[0]
    if shift:
        hidden, target = hidden[..., :-shift, :], target[..., shift:]
        weight = None if weight is None else weight[..., shift:]
    lead = target.shape
    target = target.reshape(-1)
    valid = target != options["ignore_index"]
    own = [hidden.reshape(-1, hidden.shape[-1]), *leaves[1:]]
    extra = {"softcap": options["softcap"], "logit_scale": options["logit_scale"]}
    p = problem(own, torch.where(valid, target, -100), **extra)
    stats = restore_neg_inf(modes.statistics(p, LEAN, mode), p.valid)
    tolerance = {"rtol": 1e-5, "atol": 1e-5}

    def close(a: Tensor, b: Any, where: Tensor | None = None, **wider: float) -> None:
        right = torch.tensor(b, dtype=torch.float64, device=DEVICE).reshape(a.shape)
        if where is not None:
            a, right = a[where], right[where]
        torch.testing.assert_close(a.double(), right, **(tolerance | wider))

    close(stats["logsumexp"], expected["lse"], valid)
    close(stats["entropy"], expected["entropy"], valid)
    close(stats["log_prob"], expected["target_logprob"], valid)
    if case["name"] != "softcap_ragged_V":  # saturated logits tie in float32
        close(stats["prediction"], expected["argmax"], valid)

    smoothing = options["label_smoothing"]
    counts = valid.float() if weight is None else valid * weight.reshape(-1)
    scale = torch.ones_like(counts) if class_weight is None else class_weight[p.target]
    row = -stats["log_prob"] * scale
    if smoothing:
        # Class-weighted smoothing is a soft target, which mode lean refuses (tested below).
        classes = leaves[1].shape[0]
        assert class_weight is not None
        soft = (1 - smoothing) * F.one_hot(p.target, classes) * scale[:, None]
        soft = soft + smoothing / classes * class_weight
        q = problem(own, torch.where(valid[:, None], soft, 0.0), **extra)
        row = -torch.where(valid, modes.statistics(q, ("log_prob",), "fast")["log_prob"], 0)
    z = options["z_loss"] * stats["logsumexp"].square()
    if options["reduction"] == "mean" and options["num_items"] is None:
        loss = (counts * row).sum() / (counts * scale).sum().clamp(min=1e-30)
        loss = loss + (counts * z).sum() / counts.sum().clamp(min=1e-30)
    elif options["reduction"] == "mean":
        loss = (counts * (row + z)).sum() / options["num_items"]
    else:
        loss = counts * (row + z)
        loss = loss.reshape(lead) if options["reduction"] == "none" else loss.sum()
    close(loss, expected["loss"])
    total = (loss * torch.tensor(data["grad_loss"], device=DEVICE)).sum()
    if data["grad_lse"] is not None:
        total = total + (stats["logsumexp"] * tensor("grad_lse").reshape(-1)).sum()  # type: ignore[union-attr]
    grads = torch.autograd.grad(total, leaves)
    # Of the largest entry: with logits of hundreds the float32 product itself is off by 1e-5.
    for grad, name in zip(grads, ("grad_e", "grad_c", "grad_bias"), strict=False):
        largest = torch.tensor(expected[name]).abs().max().item()
        close(grad, expected[name], atol=5e-5 * largest + 1e-7, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_is_as_good_as_torch_in_half_precision(mode: str) -> None:
    leaves = inputs(5, 24, 35, torch.float16)
    target = torch.arange(5, device=DEVICE)
    stats, grads, right, right_grads = both(mode, leaves, target, softcap=5.0)
    half = problem([x.detach().requires_grad_() for x in leaves], target, softcap=5.0)
    torch_stats = reference.statistics(half, STATISTICS)
    for name in set(LEAN) - {"prediction"}:
        assert worst(stats[name], right[name]) <= worst(torch_stats[name], right[name]) + 1e-4, name
    for grad, right_grad in zip(grads, right_grads, strict=True):
        assert grad.dtype == torch.float16
        assert worst(grad, right_grad) <= 1e-3  # one rounding of dlogits and one of the gradient


def test_given_logits_with_masked_classes() -> None:
    z = torch.randn(4, 45, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    z[0, ::2] = -torch.inf
    z[1, 33:] = -torch.inf  # all of the ragged end
    z[2, :] = -torch.inf
    z[2, 7] = 3.0
    target = torch.tensor([1, 2, 7, -100], device=DEVICE)
    stats, (grad,), right, (right_grad,) = both("auto", [z], target)
    for name in MEANS:
        assert stats[name][:3].tolist() == [-torch.inf] * 3
    finite = (torch.isfinite(z) | (target == -100)[:, None]).double()
    for name in set(STATISTICS) - MEANS:
        assert worst(stats[name], right[name]) <= 2e-6, name
    assert torch.equal(grad * (1 - finite), torch.zeros_like(grad).double())
    assert worst(grad * finite, right_grad * finite) <= 5e-6


@pytest.mark.parametrize("mode", ["fast", "lean"])
def test_a_bias_of_minus_infinity_masks_a_class(mode: str) -> None:
    leaves = inputs(3, 8, 35)
    with torch.no_grad():
        leaves[2][[4, 34]] = -torch.inf
    target = torch.tensor([0, 33, 5], device=DEVICE)
    want = ("log_prob", "logsumexp", "entropy", "collision", "confidence", "prediction")
    check(both(mode, leaves, target, want), 2e-6, 5e-6)


@pytest.mark.parametrize("mode", ["fast", "lean"])
def test_rows_without_any_class_are_nan(mode: str) -> None:
    leaves = inputs(2, 8, 35)
    with torch.no_grad():
        leaves[2].fill_(-torch.inf)
    stats, grads, _, _ = both(mode, leaves, None, ("logsumexp", "entropy", "confidence"))
    assert torch.stack(list(stats.values())).isnan().all()
    assert all(grad.isnan().all() for grad in grads)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_counts(mode: str) -> None:
    leaves = inputs(6, 8, 35)
    stats, grads, _, _ = both(mode, leaves, torch.full((6,), -100, device=DEVICE))
    assert all(not value.any() for value in stats.values())
    assert all(not grad.any() for grad in grads)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("n", "v"), [(3, 1), (0, 7), (1, 32), (1, 33)])
def test_degenerate_sizes(mode: str, n: int, v: int) -> None:
    leaves = inputs(n, 5, v)
    target = torch.zeros(n, dtype=torch.int64, device=DEVICE)
    check(both(mode, leaves[:2], target), 2e-6, 5e-6)


# The same maximum in one lane, in two lanes, in two blocks and (lean) in two spans.
@pytest.mark.parametrize("columns", [(8, 9), (9, 30), (3, 40), (17, 66)])
def test_ties_go_to_the_lowest_class(columns: tuple[int, int]) -> None:
    z = torch.zeros(1, 67, device=DEVICE)
    z[0, list(columns)] = 2.0
    assert modes.statistics(problem([z], None), ("prediction",))["prediction"].item() == columns[0]
    hidden, head = torch.ones(1, 1, device=DEVICE), z.t().contiguous()
    found = modes.statistics(problem([hidden, head], None), ("prediction",), "lean")
    assert found["prediction"].item() == columns[0]


def test_entropy_of_large_logits_does_not_cancel() -> None:
    z = torch.randn(3, 67, generator=torch.Generator().manual_seed(0)).to(DEVICE) + 5000
    got = modes.statistics(problem([z], None), ("entropy",))["entropy"]
    right = reference.statistics(problem([z.double()], None), ("entropy",))["entropy"]
    assert worst(got, right) < 5e-6  # lse - sum p z is off by 1 here


def test_rows_that_do_not_count_are_harmless_to_any_function() -> None:
    """They hold the statistics of equal logits, so that log(1 - p) and its like stay finite."""
    leaves = inputs(3, 8, 35)
    target = torch.tensor([3, -100, 4], device=DEVICE)
    for mode in MODES:
        stats = modes.statistics(problem(leaves, target), LEAN, mode)
        right = torch.tensor([-(35.0**-1) * 0 - torch.tensor(35.0).log(), 1 / 35, 1 / 35])
        got = torch.stack([stats[n][1] for n in ("log_prob", "collision", "confidence")])
        torch.testing.assert_close(got.detach().cpu(), right)


def test_transposed_and_strided_tensors_need_no_copy_by_the_caller() -> None:
    hidden, head, _ = inputs(5, 16, 35)
    plain = both("lean", [hidden, head], torch.arange(5, device=DEVICE))
    wide = torch.zeros(5, 32, device=DEVICE)
    wide[:, ::2] = hidden.detach()
    strided = [wide[:, ::2], head.detach().t().contiguous().t()]
    assert not strided[1].is_contiguous()
    p = problem(strided, torch.arange(5, device=DEVICE))
    for mode in MODES:
        got = modes.statistics(p, LEAN, mode)
        assert max(worst(got[n], plain[0][n]) for n in LEAN) < 2e-6


def test_lean_is_the_same_bits_every_time_and_the_same_numbers_for_any_spans(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = problem(inputs(5, 16, 67)[:2], torch.arange(5, device=DEVICE))
    runs = []
    for span in (16, 16, 32, 80):
        monkeypatch.setattr(tiles, "span_classes", lambda *_, span=span: span)
        runs.append(modes.statistics(p, LEAN, "lean"))
    for name in LEAN:
        assert torch.equal(runs[0][name], runs[1][name])
        assert max(worst(run[name], runs[0][name]) for run in runs) < 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_backward_twice_and_second_derivatives(mode: str) -> None:
    """Mode keep overwrites its logits in the first backward pass."""
    leaves = inputs(5, 8, 35)
    target = torch.arange(5, device=DEVICE)

    def total(module: Any, own: list[Tensor], *extra: str) -> Tensor:
        stats = module.statistics(problem(own, target), ("log_prob", "entropy"), *extra)
        return (stats["log_prob"] * stats["entropy"]).sum()

    value = total(modes, leaves, mode)
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    again = torch.autograd.grad(value, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))

    own = [leaf.detach().double().requires_grad_() for leaf in leaves]
    seconds = []
    for module, these, extra in ((modes, leaves, (mode,)), (reference, own, ())):
        grads = torch.autograd.grad(total(module, these, *extra), these, create_graph=True)
        norm = sum(g.square().sum() for g in grads)
        seconds.append(torch.autograd.grad(norm, these))
    assert all(worst(a, b) < 1e-5 for a, b in zip(*seconds, strict=True))


def test_row_fused_equals_autograd() -> None:
    leaves = inputs(11, 24, 37)
    target = torch.arange(11, device=DEVICE)
    target[4] = -100
    weight = torch.linspace(0.1, 2, 11, device=DEVICE)
    want = ("log_prob", "entropy", "collision", "confidence", "mean_logit")

    def function(stats: dict[str, Tensor], rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        p = stats["log_prob"].exp()
        row = -((1 - p) ** 2) * stats["log_prob"] - 0.1 * stats["entropy"]
        row = row + stats["collision"] * stats["confidence"] + stats["mean_logit"].sin()
        row = torch.where(rows["valid"], row * rows["weight"], 0)
        return row.sum(), row[None].detach()

    rows = {"valid": target != -100, "weight": weight}
    total, stats, values = modes.row_fused(problem(leaves, target), want, function, rows)
    grads = torch.autograd.grad(total * 3, leaves)
    own = [leaf.detach().double().requires_grad_() for leaf in leaves]
    right, right_values = function(reference.statistics(problem(own, target), want), rows)
    assert worst(total, right) < 2e-6
    assert worst(values, right_values) < 2e-6
    for grad, right_grad in zip(grads, torch.autograd.grad(right * 3, own), strict=True):
        assert worst(grad, right_grad) < 5e-6
    assert not any(stat.requires_grad for stat in stats.values())


def test_row_fused_without_gradient_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a gradient pass ran")

    monkeypatch.setattr(fast_keep, "row_gradient", refuse)
    with torch.no_grad():
        modes.row_fused(
            problem(inputs(3, 8, 35), torch.arange(3, device=DEVICE)),
            ("log_prob",),
            lambda stats, _: (stats["log_prob"].sum(), stats["log_prob"][None]),
            {},
        )


def test_soft_targets_in_chunks_and_a_clear_refusal_in_lean() -> None:
    hidden, head, _ = inputs(3, 8, 35)
    soft = torch.rand(3, 35, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    soft[1] = 0
    check(both("auto", [hidden, head], soft), 2e-6, 5e-6)
    with pytest.raises(ValueError, match="kernel='triton'"):
        modes.statistics(problem([hidden, head], soft), ("log_prob",), "lean")


@pytest.mark.parametrize("mode", ["fast", "lean", "lean by descriptor", "auto"])
def test_compiles_as_one_graph(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lean, which `auto` takes under compile, once for every N; fast once a number of chunks."""
    mode, _, by = mode.partition(" by ")
    read_by(f"{by or 'pointer'}s", monkeypatch)
    _, head, _ = inputs(5, 8, 35)

    def step(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        valid = target != -100
        safe = torch.where(valid, target, 0)
        # The scale is said: dynamo takes a float default for an input of dynamic value,
        # and starts over once it finds that it is a constant.
        p = Problem(hidden=hidden, head_weight=head, target=safe, valid=valid, logit_scale=1.0)
        stats = modes.statistics(p, ("log_prob", "entropy"), mode)
        return torch.where(valid, stats["log_prob"] * stats["entropy"], 0).sum()

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    dynamic = mode != "fast" or None
    compiled = torch.compile(step, backend=counter, fullgraph=True, dynamic=dynamic)
    for n in (5,) if mode == "fast" else (5, 9, 12):
        hidden = inputs(n, 8, 35)[0]
        target = torch.arange(n, device=DEVICE)
        target[2] = -100
        for a, b in zip(
            torch.autograd.grad(compiled(hidden, head, target), (hidden, head)),
            torch.autograd.grad(step(hidden, head, target), (hidden, head)),
            strict=True,
        ):
            # Compiled, `auto` is lean, and here it is keep: sums in another order.
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert counter.frame_count == 1


def test_what_it_cannot_do_is_said() -> None:
    double = problem([torch.zeros(1, 2, dtype=torch.float64)], None)
    assert "float64" in str(unavailable(double))
    if DEVICE == "cpu":
        half = [x.bfloat16() for x in inputs(2, 3, 4)[:2]]
        assert "bfloat16" in str(unavailable(problem(half, None)))
        with pytest.raises(TypeError, match="bfloat16"):
            modes.statistics(problem(half, None), ("logsumexp",), "lean")


def test_mode_depends_on_shape_and_not_on_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(inputs(4, 3, 8)[:2], None)._replace(class_weight=None)
    assert tiles.statistics_mode(p, gradient=True) == "keep"
    assert tiles.statistics_mode(p, gradient=False) == "lean"
    monkeypatch.setattr(tiles, "_memory", lambda _: 16 * (4 * 4 * 8) - 1)
    assert tiles.statistics_mode(p, gradient=True) == "lean"
    weight = torch.ones(8)  # of which mode lean knows nothing
    assert tiles.statistics_mode(p._replace(class_weight=weight), gradient=True) == "fast"
    assert tiles.statistics_mode(problem([torch.zeros(4, 8)], None), gradient=True) == "fast"


@pytest.mark.slow
def test_the_package_does_not_need_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import lightning_losses, torch\n"
    code += "lightning_losses.softmax_stats(torch.zeros(2, 3))"
    subprocess.run([sys.executable, "-c", code], check=True)
