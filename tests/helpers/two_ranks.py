# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the processes of test_distributed run; a file of its own, so that they can import it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from factory import LOSSES, ONE_SCORE, build, inputs, leaves
from torch import Tensor, nn

from lightning_losses import Objective, Term
from lightning_losses.distributed import gather_with_gradient, row_offset
from lightning_losses.losses import CrossEntropy, EntropyBonus, Focal, LogsumexpPenalty
from lightning_losses.weighting import KLDRO

ROWS = 9
#: Rows of each rank. Unequal, all rows that do not count on one; a rank without one that counts;
#: a rank without rows.
SPLITS = {"unequal": (6, 3), "none valid": (7, 2), "no rows": (9, 0)}
IGNORED = {"unequal": (6, 8), "none valid": (7, 8), "no rows": (3,)}

#: A loss of every scope, which share a class target.
EVERY_SCOPE = ("ce", "focal", "kd", "opl", "multi_similarity", "trades", "weight_distribution")

Case = tuple[Objective, dict[str, Any]]


def one(key: str) -> Case:
    """A key on its own."""
    objective = build(key)
    named = inputs(objective, rows=ROWS, seed=5)
    if key in ONE_SCORE:  # of one label alone there is nothing to rank: both among rows that count
        named["target"] = torch.arange(ROWS) % 2
    return objective, named


def head(kernel: str = "chunked", **options: Any) -> Case:
    """Hidden states and a head: the one-pass entry unless the kernel is `reference`."""
    terms = {
        "ce": Term(CrossEntropy(0.1), 0.7),
        "focal": Focal(),
        "z": Term(LogsumexpPenalty(), 0.1),
        "weighted": CrossEntropy(class_weight=[1.0, 2.0, 0.5, 3.0, 0.1]),
        "h": Term(EntropyBonus(), 0.3),
    }
    g = torch.Generator().manual_seed(0)
    named = {
        "hidden": torch.randn(ROWS, 3, generator=g, dtype=torch.float64).requires_grad_(),
        "head_weight": torch.randn(5, 3, generator=g, dtype=torch.float64).requires_grad_(),
        "target": torch.randint(5, (ROWS,), generator=g),
        "sample_weight": torch.rand(ROWS, generator=g, dtype=torch.float64),
    }
    normalizer = options.pop("normalizer", None)
    if normalizer is not None:
        named["normalizer"] = normalizer
    return Objective(terms, kernel=kernel, **options), named


def everything() -> Case:
    """Losses of every scope in one objective."""
    terms: dict[str, Term | nn.Module] = {k: build(k).terms[k] for k in EVERY_SCOPE}
    terms["dro_focal"] = Term(Focal(), row_weighting=KLDRO(0.5))
    objective = Objective(terms)
    return objective, inputs(objective, rows=ROWS, seed=6)


def learned_weights() -> Case:
    """Sample weights with a gradient, through the divisor too, which class weights enter."""
    named = head()[1]
    named["sample_weight"] = named["sample_weight"].requires_grad_()
    terms = {"ce": CrossEntropy(), "weighted": CrossEntropy(class_weight=[1.0, 2.0, 0.5, 3.0, 0.1])}
    return Objective(terms), named


CASES: dict[str, Callable[[], Case]] = {
    **{key: (lambda key=key: one(key)) for key in LOSSES},  # type: ignore[misc]
    "one pass": head,
    "two passes": lambda: head("reference"),
    "sum": lambda: head(reduction="sum"),
    "normalizer": lambda: head(normalizer=4.0),
    "everything": everything,
    "learned weights": learned_weights,
}


def masked(named: dict[str, Any], split: str) -> dict[str, Any]:
    """With the rows of the split that do not count."""
    mask = torch.ones(ROWS, dtype=torch.bool)
    mask[list(IGNORED[split])] = False
    return {**named, "mask": mask}


def local(named: dict[str, Any], split: str, rank: int) -> dict[str, Any]:
    """The rows of one rank, as leaves of its own; what has no rows stays whole."""
    sizes = SPLITS[split]
    start = sum(sizes[:rank])
    out: dict[str, Any] = {}
    for name, value in named.items():
        if isinstance(value, Tensor) and name != "head_weight":
            cut = value.detach()[start : start + sizes[rank]].clone()
            out[name] = cut.requires_grad_(value.requires_grad)
        else:
            out[name] = value
    return out


def evaluate(objective: Objective, named: dict[str, Any]) -> dict[str, Any]:
    """Values and gradients of one call."""
    record = objective(**named)
    wrt = leaves(named)
    grads = torch.autograd.grad(record.total, list(wrt.values()), allow_unused=True)
    return {
        "total": record.total.detach(),
        "terms": record.terms,
        "grads": {n: g for n, g in zip(wrt, grads, strict=True) if g is not None},
        "count": record.num_valid,
    }


def work(rank: int, folder: str) -> None:
    """One rank: every case, written to the folder."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/sync",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=300),
    )
    out: dict[str, Any] = {}
    for split in SPLITS:
        for name, make in CASES.items():
            try:
                objective, named = make()
                out[split, name] = evaluate(objective, local(masked(named, split), split, rank))
            except Exception as error:
                out[split, name] = error  # one key must not take the others with it
    rows = torch.arange(3.0 * (rank + 1)).reshape(-1, 3).requires_grad_()
    together = gather_with_gradient(rows)
    (together.square().sum() * (rank + 1)).backward()
    out["gather"] = (rows.detach(), together.detach(), rows.grad, row_offset(rows))
    # Validation: ranks may have different numbers of batches, so nothing may wait for the other.
    if rank == 0:
        objective, named = one("opl")
        with torch.no_grad():
            out["alone"] = objective(**local(named, "unequal", 0)).total
    torch.save(out, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
