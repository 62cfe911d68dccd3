# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The samples that torch tests its own cross-entropy with: the same number, or a refusal of ours.

Every dtype, kernel and front door; each sample also with label smoothing, which torch's list lacks.
What is counted is printed by ``pytest -s``.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_losses import LossMixin, Objective, build_objective, softmax_stats
from lightning_losses.losses import CrossEntropy

pytest.importorskip("expecttest")  # torch.testing._internal needs it
from torch.testing._internal.common_methods_invocations import (
    sample_inputs_cross_entropy,
)

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
KERNELS = ("auto", "reference", "chunked", "triton", "triton_keep", "triton_lean")
#: The last two differ in who builds and calls the objective, so one kernel will do.
DOORS = [(door, kernel) for door in ("objective", "hidden", "statistics") for kernel in KERNELS]
DOORS += [("key", "auto"), ("mixin", "auto")]
#: Logits as given are exact; what is rounded is the gradient, to the dtype of the logits.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}


class Module(LossMixin, L.LightningModule):
    def __init__(self, loss: Objective) -> None:
        super().__init__()
        self.loss = loss


def samples(dtype: torch.dtype) -> list[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Logits, target and options, classes last; class weights at least 0, as ours must be."""
    found = []
    torch.manual_seed(0)
    random.seed(0)
    for sample in sample_inputs_cross_entropy(None, "cpu", dtype, False):
        z, target, options = sample.input, sample.args[0], dict(sample.kwargs)
        z = z.movedim(1, -1)
        target = target.movedim(1, -1) if target.is_floating_point() else target
        if "weight" in options:
            options["weight"] = options["weight"].abs()
        found += [(z, target, options | {"label_smoothing": s}) for s in (0.0, 0.1)]
    return found


def by_torch(z: Tensor, target: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Loss and gradient in float64."""
    leaf = z.double().requires_grad_()
    soft = target.is_floating_point()
    weight = options.get("weight")
    loss = F.cross_entropy(
        leaf.movedim(-1, 1),
        target.double().movedim(-1, 1) if soft else target,
        **options | {"weight": None if weight is None else weight.double()},
    )
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def by_us(
    door: str, kernel: str, z: Tensor, target: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    leaf = z.detach().clone().requires_grad_()
    options = dict(options)
    reduction, ignored = options.pop("reduction", "mean"), options.pop("ignore_index", -100)
    weight = options.pop("weight", None)
    weight = None if weight is None else weight.tolist()
    smoothing = options.pop("label_smoothing")
    assert not options
    where = {"kernel": kernel, "reduction": reduction, "ignore_index": ignored}
    ce = CrossEntropy(smoothing, weight)
    if door == "objective":
        loss = Objective({"ce": ce}, **where)(leaf, target).total
    elif door == "hidden":
        head = torch.eye(z.shape[-1], dtype=z.dtype)
        loss = Objective({"ce": ce}, **where)(hidden=leaf, head_weight=head, target=target).total
    elif door == "key":
        node = {"_target_": "lightning_losses.losses.CrossEntropy", "label_smoothing": smoothing}
        node["class_weight"] = weight
        loss = build_objective({"ce": node}, **where)(leaf, target).total
    elif door == "mixin":
        loss = Module(Objective({"ce": ce}, **where)).compute_loss(logits=leaf, target=target)
    else:
        stats = softmax_stats(
            leaf,
            target=target,
            ignore_index=ignored,
            class_weight=None if weight is None else torch.tensor(weight, dtype=torch.float64),
            kernel=kernel,
        )
        own = {n: x.reshape(-1) for n, x in stats.as_dict().items()}
        rows = ce(**{n: own.get(n) for n in ("log_prob", *ce.needs)} | {
            n: target.reshape(-1).clamp(min=0) for n in ("target",) if "target" in ce.needs
        })  # fmt: skip
        counts = own.get("valid", torch.ones_like(rows, dtype=torch.bool))
        rows = torch.where(counts, rows, 0)
        divisor = ce.row_divisors(target.reshape(-1)) if weight is not None else counts
        total = rows.sum() / (divisor * counts).sum() if reduction == "mean" else rows.sum()
        loss = rows if reduction == "none" else total
    return loss.detach().reshape(-1), torch.autograd.grad(loss.sum(), leaf)[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("door", "kernel"), DOORS)
def test_agrees_or_refuses(door: str, kernel: str, dtype: torch.dtype) -> None:
    count: Counter[str] = Counter()
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for z, target, options in samples(dtype):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*gives way.*")
                ours = by_us(door, kernel, z, target, options)
        except ValueError as error:
            count["refused"] += 1
            # Nothing else may be: docs/kernels.md says what mode lean is not for.
            by_hand = door == "statistics" and target.is_floating_point() and "weight" in options
            if by_hand or "Mode lean" in str(error):
                continue
            raise
        for found, right in zip(ours, by_torch(z, target, options), strict=True):
            torch.testing.assert_close(
                found.double(),
                right.reshape(found.shape),
                rtol=TOLERANCE[dtype],
                atol=TOLERANCE[dtype] * float(right.abs().max()) + tiny,
                msg=lambda m, o=options: f"{o}: {m}",
            )
        count["equal"] += 1
    print(f"{door}, {kernel}, {dtype}: {dict(count)}")
    assert count["equal"] + count["refused"] == 42
    if kernel != "triton_lean":
        # By hand from statistics: class weights of soft targets are the objective's.
        assert count["equal"] == (36 if door == "statistics" else 42), count
    elif door == "hidden":  # it takes neither logits nor soft targets, nor weights with smoothing
        assert count["equal"] >= 19, count
