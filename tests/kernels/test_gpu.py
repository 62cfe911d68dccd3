# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels on a GPU, with the tiles that ship: `make gpu`, or `pytest -m gpu`.

What the interpreter cannot say: bfloat16, real tiles, 64-bit offsets, CUDA graphs, host stalls.
`benchmarks/gpu_hour.py --dry` runs these lines on a CPU, small and under the interpreter, so that
none of them is run for the first time on a GPU.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_losses import Objective, build_objective
from lightning_losses.kernels.eager import reference
from lightning_losses.kernels.triton import tiles
from lightning_losses.losses import CrossEntropy
from lightning_losses.softmax import make_problem
from lightning_losses.softmax.compute import restore_neg_inf

DRY = "GPU_HOUR_DRY" in os.environ
DEVICE = "cpu" if DRY else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() or DRY), reason="needs a CUDA device"),
]
MODES = ("fast", "keep", "lean")
#: Beyond plain torch's own error in the same dtype, relative to the largest entry.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
if DRY:  # bfloat16 the interpreter computes wrong, and float16 takes the same lines as float32
    TOLERANCE = {torch.float32: 1e-4}
HALF = next(reversed(TOLERANCE))
WANT = ("log_prob", "logsumexp", "entropy", "mean_logit", "collision", "confidence", "prediction")


def leaves(n: int, d: int, v: int, dtype: torch.dtype) -> list[Tensor]:
    """hidden, head weight, bias; next to none of each where the interpreter computes with them."""
    n, d, v = (min(n, 4), min(d, 24), min(v, 40)) if DRY else (n, d, v)
    g = torch.Generator(DEVICE).manual_seed(0)
    hidden = torch.randn(n, d, device=DEVICE, generator=g)
    head = torch.randn(v, d, device=DEVICE, generator=g) * d**-0.5
    bias = torch.randn(v, device=DEVICE, generator=g)
    return [x.to(dtype).requires_grad_() for x in (hidden, head, bias)]


def evaluate(
    own: list[Tensor], target: Tensor, run: Any, options: dict[str, Any]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Statistics and gradients for one random upstream gradient a statistic."""
    names = ("hidden", "head_weight", "head_bias")
    valid = target != -100
    problem = make_problem(
        **dict(zip(names, own, strict=False)), target=target, valid=valid, **options
    )
    stats = restore_neg_inf(run(problem), problem.valid)
    g = torch.Generator(DEVICE).manual_seed(1)
    total = torch.zeros((), device=DEVICE, dtype=torch.float64)
    for name, value in stats.items():
        weight = torch.randn(value.shape, device=DEVICE, generator=g)
        if name != "prediction":
            total = total + (value.double() * weight).sum()
    return stats, list(torch.autograd.grad(total, own))


def error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1))


# N is no multiple of a row block, D = 520 is deeper than every block and no multiple of one,
# V = 5003 is ragged in every tile; the soft-cap of 1 makes a padded class count. Chunks of 256 rows
# and slabs of 1024 classes, because half-precision products are summed over them by other code.
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("with_options", [False, True])
def test_no_less_exact_than_plain_torch(
    mode: str, dtype: torch.dtype, with_options: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_losses.kernels.triton import modes

    monkeypatch.setattr(tiles, "CHUNK_BYTES", 1)
    monkeypatch.setattr(tiles, "MIN_CHUNK_ROWS", 256)
    monkeypatch.setattr(tiles, "SLAB_BYTES", 2**21)
    own = leaves(1003, 520, 5003, dtype)[: 3 if with_options else 2]
    target = torch.arange(len(own[0]), device=DEVICE) * 4
    target[::7] = -100
    options = {"softcap": 1.0, "logit_scale": 1.3} if with_options else {}
    truth = evaluate(
        [x.detach().double().requires_grad_() for x in own],
        target,
        lambda p: reference.statistics(p, WANT),
        options,
    )
    plain = evaluate(own, target, lambda p: reference.statistics(p, WANT), options)
    ours = evaluate(own, target, lambda p: modes.statistics(p, WANT, mode), options)
    for name in WANT[:-1]:
        allowed = error(plain[0][name], truth[0][name]) + TOLERANCE[dtype]
        assert error(ours[0][name], truth[0][name]) <= allowed, name
    for mine, theirs, right in zip(ours[1], plain[1], truth[1], strict=True):
        assert mine.isfinite().all()
        assert error(mine, right) <= error(theirs, right) + TOLERANCE[dtype]


# 20,000 x 128,256 entries are more than 2^31: an int32 offset would wrap.
@pytest.mark.parametrize("kernel", ["triton", "triton_keep", "triton_lean"])
def test_more_logits_than_an_int32_counts(kernel: str) -> None:
    hidden, head, _ = leaves(20_000, 64, 128_256, HALF)
    target = torch.randint(len(head), (len(hidden),), device=DEVICE)
    objective = Objective({"ce": CrossEntropy()}, kernel=kernel, reduction="sum")
    objective(hidden=hidden, head_weight=head, target=target).total.backward()
    last = slice(-64, None)  # the rows whose offsets are the largest
    alone = hidden.detach()[last].requires_grad_()
    objective(hidden=alone, head_weight=head.detach(), target=target[last]).total.backward()
    assert hidden.grad is not None
    assert alone.grad is not None
    assert error(hidden.grad[last], alone.grad) <= TOLERANCE[HALF]


@pytest.mark.parametrize("kernel", ["triton", "triton_keep", "triton_lean"])
def test_all_ignored_is_a_connected_zero(kernel: str) -> None:
    hidden, head, _ = leaves(300, 64, 1000, HALF)
    target = torch.full((len(hidden),), -100, device=DEVICE)
    objective = build_objective(["ce", "entropy_bonus"], kernel=kernel)
    total = objective(hidden=hidden, head_weight=head, target=target).total
    total.backward()
    assert total == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()


@pytest.mark.parametrize("kernel", ["triton", "triton_keep", "triton_lean"])
@pytest.mark.parametrize("max_valid", [None, 341])  # of 512 rows every third is ignored: 171
def test_a_step_waits_for_nothing(kernel: str, max_valid: int | None) -> None:
    """No host synchronisation, whether the number of rows that count is known there or not."""
    hidden, head, _ = leaves(512, 64, 1000, HALF)
    target = torch.arange(len(hidden), device=DEVICE)
    target[::3] = -100
    objective = build_objective(["ce", "logsumexp_penalty"], kernel=kernel)

    def step() -> tuple[Tensor, Tensor]:
        hidden.grad = None
        named = {"hidden": hidden, "head_weight": head, "target": target}
        total = objective(**named, max_valid=max_valid, normalizer=341.0).total
        total.backward()
        assert hidden.grad is not None
        return total.detach(), hidden.grad

    step()  # compile first
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        total, slope = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total.isfinite()
    assert not slope[::3].any()
    assert slope[1::3].any(1).all()


def test_lean_in_a_cuda_graph() -> None:
    hidden, head, _ = leaves(512, 64, 1000, HALF)
    target = torch.arange(len(hidden), device=DEVICE)
    objective = build_objective("ce", kernel="triton_lean")

    def step() -> list[Tensor]:
        hidden.grad = head.grad = None
        total = objective(hidden=hidden, head_weight=head, target=target).total
        total.backward()
        assert hidden.grad is not None
        assert head.grad is not None
        return [total.detach(), hidden.grad, head.grad]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            eager = step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, eager, strict=True))
