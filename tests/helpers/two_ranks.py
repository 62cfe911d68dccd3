# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the processes of test_distributed run; a file of its own, so that they can import it.

`work` is two ranks, `work_on_mesh` four: first as a mesh of 2 x 2, data by tensor-parallel ranks
that hold copies of the rows, then three of them as a group without the fourth.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from factory import LOSSES, ONE_SCORE, WHOLE, build, inputs, leaves
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from lightning_losses import Objective, Term
from lightning_losses.distributed import gather_with_gradient, over, ranks_of, row_offset
from lightning_losses.losses import (
    Circle,
    Contrastive,
    CrossEntropy,
    EntropyBonus,
    Focal,
    LogsumexpPenalty,
    MultiSimilarity,
    SupCon,
    TripletMargin,
)
from lightning_losses.weighting import KLDRO

ROWS = 9
#: Rows of each rank. Unequal, all rows that do not count on one; a rank without one that counts;
#: a rank without rows.
SPLITS = {"unequal": (6, 3), "none valid": (7, 2), "no rows": (9, 0)}
#: The same of three ranks; of these one that is neither first nor last has nothing. A sequence of
#: three rows is whole on a rank, but for rows that do not count: losses of sequences ask for that.
OF_THREE = {"three": (3, 4, 2), "three, one without rows": (6, 0, 3)}
#: These compare the answers to a prompt, of which the first split cuts one in two.
BY_PROMPT = ("pacs",)
ALL_SPLITS = SPLITS | OF_THREE
IGNORED = {
    "unequal": (6, 8),
    "none valid": (7, 8),
    "no rows": (3,),
    "three": (7, 8),
    "three, one without rows": (3,),
}

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


def mined() -> Case:
    """Pair losses of some pairs: what is hardest is so among the rows of all ranks."""
    terms = {
        "circle": Circle(mining="semihard"),
        "contrastive": Contrastive(0.1, 1.5, mining={"epsilon": 0.1}),
        "multi_similarity": MultiSimilarity(miner_epsilon=None, mining={"negatives": [0.1, 1.6]}),
        "supcon": SupCon(0.5, mining="hard"),
        "triplet_margin": TripletMargin(0.6, mining="easy_positive"),
    }
    named = {key: value for key, value in everything()[1].items() if key in ("features", "target")}
    return Objective(terms), named


def learned_weights() -> Case:
    """Sample weights with a gradient, through the divisor too, which class weights enter."""
    named = head()[1]
    named["sample_weight"] = named["sample_weight"].requires_grad_()
    terms = {"ce": CrossEntropy(), "weighted": CrossEntropy(class_weight=[1.0, 2.0, 0.5, 3.0, 0.1])}
    return Objective(terms), named


def two_heads() -> Case:
    """Student and teacher as hidden states and heads, for a loss of rows and one of the batch."""
    named = head()[1]
    del named["sample_weight"]
    g = torch.Generator().manual_seed(1)
    named["teacher_hidden"] = torch.randn(ROWS, 2, generator=g, dtype=torch.float64)
    named["teacher_head_weight"] = torch.randn(5, 2, generator=g, dtype=torch.float64)
    return Objective({key: build(key).terms[key] for key in ("ce", "dist", "dkd", "kd")}), named


CASES: dict[str, Callable[[], Case]] = {
    **{key: (lambda key=key: one(key)) for key in LOSSES},  # type: ignore[misc]
    "one pass": head,
    "two passes": lambda: head("reference"),
    "two heads": two_heads,
    "sum": lambda: head(reduction="sum"),
    "normalizer": lambda: head(normalizer=4.0),
    "everything": everything,
    "learned weights": learned_weights,
    "mined": mined,
}


def masked(named: dict[str, Any], split: str) -> dict[str, Any]:
    """With the rows of the split that do not count."""
    mask = torch.ones(ROWS, dtype=torch.bool)
    mask[list(IGNORED[split])] = False
    return {**named, "mask": mask}


def local(named: dict[str, Any], split: str, rank: int) -> dict[str, Any]:
    """The rows of one rank, as leaves of its own; what has no rows stays whole."""
    sizes = ALL_SPLITS[split]
    start = sum(sizes[:rank])
    out: dict[str, Any] = {}
    for name, value in named.items():
        if isinstance(value, Tensor) and name not in WHOLE:
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
        "terms": record.terms | record.diagnostics,
        "grads": {n: g for n, g in zip(wrt, grads, strict=True) if g is not None},
        "count": record.num_valid,
    }


def every_case(split: str, rank: int, group: Any = None) -> dict[Any, Any]:
    """Of a rank that has its rows of the split."""
    out: dict[Any, Any] = {}
    for name, make in CASES.items():
        if split == "three" and name in BY_PROMPT:
            continue
        try:
            objective, named = make()
            objective.find_group(group)  # as LossMixin does
            out[split, name] = evaluate(objective, local(masked(named, split), split, rank))
        except Exception as error:
            out[split, name] = error  # one key must not take the others with it
    return out


def gathered(rank: int) -> tuple[Any, ...]:
    """Rank + 1 rows, together with those of the others, and what the others want of them."""
    rows = torch.arange(3.0 * (rank + 1)).reshape(-1, 3).requires_grad_()
    together = gather_with_gradient(rows)
    loss = together.square().sum() * (rank + 1)
    offset = row_offset(rows)
    return rows, together, loss, offset


def split_classes(mesh: DeviceMesh, rank: int) -> dict[Any, Any]:
    """Every case whose logits can be split by classes, the others as they are."""
    out: dict[Any, Any] = {}
    for name, make in CASES.items():
        objective, named = make()
        named = local(masked(named, "unequal"), "unequal", rank)
        logits = named.get("logits")
        if logits is None or logits.ndim < 2 or logits.shape[-1] < 2:
            continue
        leaf = logits.detach().chunk(2, -1)[mesh.get_local_rank()].clone().requires_grad_()
        shape, strides = logits.shape, logits.stride()
        named["logits"] = DTensor.from_local(
            leaf, mesh, [Shard(-1)], shape=shape, stride=strides, run_check=False
        )
        try:
            out["classes", name] = evaluate(objective, named)
            (leaf_grad,) = torch.autograd.grad(objective(**named).total, leaf, allow_unused=True)
            grads = out["classes", name]["grads"]
            del grads["logits"]
            if leaf_grad is not None:
                parts = DTensor.from_local(
                    leaf_grad, mesh, [Shard(-1)], shape=shape, stride=strides, run_check=False
                )
                grads["logits"] = parts.full_tensor()
        except Exception as error:
            out["classes", name] = error
    return out


def of_copies(mesh: DeviceMesh) -> dict[str, Any]:
    """A pair loss on the mesh, and what it is if the copies are taken for other rows."""
    data, group = mesh.get_local_rank("data_parallel"), ranks_of(mesh)
    objective, named = one("supcon")
    rows = local(masked(named, "unequal"), "unequal", data)
    with over(group):
        right = objective(**rows).total.detach()
    given = Objective(dict(objective.named_terms()), group=group)
    again = pickle.loads(pickle.dumps(given))
    return {
        "right": right,
        "given": copy.deepcopy(given)(**rows).total.detach(),
        "pickled": again.group,
        "state": list(given.state_dict()),
        "copies": objective(**rows).total.detach(),
    }


def start(rank: int, folder: str, ranks: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/sync",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=300),
    )


def finish(out: dict[Any, Any], rank: int, folder: str) -> None:
    torch.save(out, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def work_on_mesh(rank: int, folder: str) -> None:
    """One of four ranks: every case on each layout, written to the folder."""
    start(rank, folder, 4)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data_parallel", "tensor_parallel"))
    data, group = mesh.get_local_rank("data_parallel"), ranks_of(mesh)
    out: dict[Any, Any] = every_case("unequal", data, group)
    with over(group):
        rows, together, loss, offset = gathered(data)
    loss.backward()  # outside, as Lightning has it
    out["gather"] = (rows.detach(), together.detach(), rows.grad, offset)
    out["copies"] = of_copies(mesh)
    out |= split_classes(mesh["tensor_parallel"], data)
    three = dist.new_group([0, 1, 2])
    if rank < 3:
        for split in OF_THREE:
            out |= every_case(split, rank, three)
    layouts = {
        "hybrid": ((2, 2), ("dp_replicate", "dp_shard")),
        "alone": ((1, 4), ("data_parallel", "tensor_parallel")),
        "three": ((2, 1, 2), ("dp", "cp", "tp")),
        "context": ((1, 2, 2), ("dp", "cp", "tp")),
    }
    for name, (sizes, dimensions) in layouts.items():
        found = ranks_of(init_device_mesh("cpu", sizes, mesh_dim_names=dimensions))
        members = isinstance(found, dist.ProcessGroup)
        out[name] = dist.get_process_group_ranks(found) if members else found
    several = init_device_mesh("cpu", (2, 2, 1), mesh_dim_names=("dp", "cp", "tp"))
    out["several"] = ranks_of(several)
    finish(out, rank, folder)


def work(rank: int, folder: str) -> None:
    """One of two ranks: every case, written to the folder."""
    start(rank, folder, 2)
    out: dict[Any, Any] = {}
    for split in SPLITS:
        out |= every_case(split, rank)
    rows, together, loss, offset = gathered(rank)
    loss.backward()
    out["gather"] = (rows.detach(), together.detach(), rows.grad, offset)
    # Validation: ranks may have different numbers of batches, so nothing may wait for the other.
    if rank == 0:
        objective, named = one("opl")
        with torch.no_grad():
            out["alone"] = objective(**local(named, "unequal", 0)).total
    finish(out, rank, folder)
