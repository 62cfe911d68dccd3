# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the processes of test_vocab_parallel run; a file of its own, so that they can import it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from factory import DIM, build
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from lightning_losses import Objective, Term, softmax_stats
from lightning_losses.distributed import ALONE, over
from lightning_losses.kernels import partial
from lightning_losses.kernels.eager import chunked
from lightning_losses.losses import CrossEntropy, EntropyBonus, Focal, LogsumexpPenalty
from lightning_losses.softmax import STATISTICS, ClassRange

#: Uneven slices; targets of both; 7 rows in chunks of 3 and blocks of 2.
N, D, SLICES = 7, 5, (4, 7)
V = sum(SLICES)
FLOATING = STATISTICS[:-1]
Given = dict[str, Any]


def given(dtype: torch.dtype = torch.float64, **options: Any) -> Given:
    """The arguments of one rank that holds everything."""
    g = torch.Generator().manual_seed(0)
    out: Given = {
        "hidden": torch.randn(N, D, generator=g, dtype=torch.float64),
        "head_weight": torch.randn(V, D, generator=g, dtype=torch.float64),
        "head_bias": torch.randn(V, generator=g, dtype=torch.float64),
    }
    out = {name: value.to(dtype).requires_grad_() for name, value in out.items()}
    out["target"] = torch.tensor([0, 3, 4, 10, 9, 2, 5])  # the ends of both slices
    return out | options


def with_options(dtype: torch.dtype = torch.float64) -> Given:
    out = given(dtype, softcap=1.5, logit_scale=0.6)
    out["temperature"] = torch.linspace(0.5, 2, N, dtype=torch.float64).to(dtype)
    out["target"][[1, 4]] = -100
    return out


def masked(classes: slice, dtype: torch.dtype = torch.float64) -> Given:
    out = given(dtype)
    with torch.no_grad():
        out["head_bias"][classes] = -torch.inf
    return out


def ignored(dtype: torch.dtype = torch.float64) -> Given:
    out = given(dtype)
    out["target"].fill_(-100)
    return out


def no_rows() -> Given:
    out = given(head_bias=None, target=torch.zeros(0, dtype=torch.long))
    out["hidden"] = torch.zeros(0, D, dtype=torch.float64, requires_grad=True)
    return out


def ties() -> Given:
    """The same largest logit twice on the second rank, or once on each: the lowest class wins."""
    head = torch.zeros(V, D, dtype=torch.float64)
    head[[5, 8], 0] = 1
    head[[2, 6], 1] = 1
    hidden = torch.eye(D, dtype=torch.float64)[[0, 1, 2, 0, 1, 2, 0]].requires_grad_()
    return given(hidden=hidden, head_weight=head.requires_grad_(), head_bias=None)


def from_logits() -> Given:
    p = given()
    z = (p["hidden"] @ p["head_weight"].T).detach()
    z[2, 3:6] = -torch.inf
    z[3] += 1e4
    return {"logits": z.requires_grad_(), "target": p["target"]}


CASES: dict[str, Callable[[], Given]] = {
    "plain": lambda: given(head_bias=None),
    "with options": with_options,
    "one class masked": lambda: masked(slice(6, 7)),
    "first rank masked": lambda: masked(slice(0, 4)),
    "everything masked": lambda: masked(slice(0, V)),
    "all ignored": ignored,
    "no rows": no_rows,
    "ties": ties,
    "logits": from_logits,
    "triton": lambda: given(torch.float32, head_bias=None, kernel="triton"),
    "triton with options": lambda: with_options(torch.float32) | {"kernel": "triton"},
    "triton masked": lambda: masked(slice(0, 4), torch.float32) | {"kernel": "triton"},
    "triton all ignored": lambda: ignored(torch.float32) | {"kernel": "triton"},
}


def sliced(p: Given, held: ClassRange) -> Given:
    """What one rank passes: its classes, everything else as it is."""
    out: Given = {**p, "class_range": held}
    for name, dim in (("head_weight", 0), ("head_bias", 0), ("logits", 1)):
        if p.get(name) is not None:
            cut = p[name].detach().narrow(dim, held.start, held.stop - held.start)
            out[name] = cut.clone().requires_grad_()
    return out


def evaluate(p: Given) -> Given:
    """Statistics, and gradients of a function in which each upstream gradient depends on others."""
    stats = softmax_stats(**p, class_weight=torch.arange(V) / 4).as_dict()
    leaves = {n: t for n, t in p.items() if isinstance(t, Tensor) and t.requires_grad}
    finite = {n: torch.where(stats[n].isfinite(), stats[n], 0) for n in FLOATING}
    weight = torch.linspace(0.5, 2, len(stats["entropy"]), dtype=stats["entropy"].dtype)
    row = finite["entropy"] * finite["log_prob"].sin() + finite["logsumexp"].tanh()
    row = row + finite["confidence"] * finite["collision"] + finite["mean_logit"].tanh()
    row = row + finite["mean_log_prob"].sin() * finite["weighted_log_prob"]
    grads = torch.autograd.grad((row * weight).sum(), list(leaves.values()), allow_unused=True)
    return {
        **{n: s.detach() for n, s in stats.items()},
        **{f"d {n}": g for n, g in zip(leaves, grads, strict=True)},
    }


def objective(**options: Any) -> Objective:
    terms: dict[str, Term | nn.Module] = {
        "ce": Term(CrossEntropy(0.1), 0.7),
        "focal": Focal(),
        "z": Term(LogsumexpPenalty(), 0.1),
        "weighted": CrossEntropy(class_weight=[1.0 + 0.1 * i for i in range(V)]),
        "h": Term(EntropyBonus(), 0.3),
    }
    return Objective(terms, kernel="chunked", **options)


def total(p: Given) -> Given:
    """Value and gradients of an objective."""
    record = objective()(**p)
    leaves = {n: t for n, t in p.items() if isinstance(t, Tensor) and t.requires_grad}
    grads = torch.autograd.grad(record.total, list(leaves.values()))
    return {"total": record.total.detach()} | {
        f"d {n}": g for n, g in zip(leaves, grads, strict=True)
    }


class Model(nn.Module):
    """A body, a head, and the loss inside the forward, where FSDP2 has parameters whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Linear(D, D, dtype=torch.float64)
        self.head = nn.Linear(D, V, bias=False, dtype=torch.float64)
        self.objective = objective()

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        hidden = self.body(x).tanh()
        if target is None:
            return hidden
        return self.loss(hidden, target)

    def loss(self, hidden: Tensor, target: Tensor) -> Tensor:
        return self.objective(hidden=hidden, head_weight=self.head.weight, target=target).total


#: Rows of each rank in data-parallel training; one of them holds more that do not count.
DATA = (slice(0, 5), slice(5, N))


def batch() -> tuple[Tensor, Tensor]:
    p = given()
    p["target"][[0, 2, 6]] = -100
    return p["hidden"].detach(), p["target"]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    out = {}
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        out[name.removeprefix("module.")] = grad
    return out


def data_parallel(rank: int, out: Given) -> None:
    x, target = (t[DATA[rank]] for t in batch())
    model = nn.parallel.DistributedDataParallel(Model())
    model(x, target).backward()
    out["ddp"] = gradients(model)

    mesh = init_device_mesh("cpu", (2,))
    whole = Model()
    fully_shard(whole, mesh=mesh)  # body and head are gathered together
    whole(x, target).backward()
    out["fsdp forward"] = gradients(whole)

    apart = Model()
    fully_shard(apart.head, mesh=mesh)
    fully_shard(apart, mesh=mesh)
    hidden = apart(x)
    try:
        apart.loss(hidden, target)
    except ValueError as error:
        out["fsdp sharded"] = str(error)
    # Of a module it is known that it is FSDP's, of a mesh with a name what it splits.
    objective()(hidden=hidden, head=apart.head, target=target).total.backward()
    out["fsdp head"] = gradients(apart)
    named = Model()
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    fully_shard(named.head, mesh=mesh)
    fully_shard(named, mesh=mesh)
    named.loss(named(x), target).backward()
    out["fsdp named"] = gradients(named)
    apart.zero_grad()
    hidden = apart(x)
    apart.head.unshard()
    apart.loss(hidden, target).backward()
    out["fsdp unshard"] = gradients(apart)


def count_collectives() -> list[str]:
    """Names of the collectives from here on."""
    calls: list[str] = []
    for name in ("all_gather", "all_reduce"):
        plain = getattr(dist, name)

        def counted(*args: Any, plain: Any = plain, name: str = name, **kwargs: Any) -> Any:
            calls.append(name)
            return plain(*args, **kwargs)

        setattr(dist, name, counted)
    return calls


#: Losses that own class centres, which may be split by classes.
CENTRES = ("adaptive_margin_softmax", "margin_calibration", "unpg")


def centres(key: str, mesh: Any = None) -> Given:
    """Value and gradients of a loss whose centres are whole, or split over a mesh."""
    objective = build(key, classes=V)
    loss: Any = objective.terms[key].loss
    if mesh is not None:
        loss.weight = nn.Parameter(distribute_tensor(loss.weight.detach(), mesh, [Shard(0)]))
    g = torch.Generator().manual_seed(1)
    features = torch.randn(N, DIM, generator=g, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 3, -100, 10, 9, 5, 6])  # the ends of both slices
    with over(ALONE if mesh is not None else None):  # the other rank's rows are copies of these
        record = objective(features=features, target=target)
        record.total.backward()
    slope = loss.weight.grad
    out = {"value": record.total.detach(), "d features": features.grad}
    out["d weight"] = slope if mesh is None else slope.to_local()
    return out | record.diagnostics


def work(rank: int, folder: str) -> None:
    """One rank: every case, written to the folder."""
    torch.set_num_threads(1)
    chunked.MIN_CHUNK_ROWS, chunked.CHUNK_BYTES, chunked.BLOCK_BYTES = 1, 3 * 4 * 7, 2 * 4 * 7
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/sync",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=300),
    )
    held = ClassRange.across(SLICES[rank])
    out: Given = {"held": tuple(held[:3])}
    for name, make in CASES.items():
        try:
            out[name] = evaluate(sliced(make(), held))
        except Exception as error:
            out[name] = error
    for name, make in (("objective", given), ("objective with options", with_options)):
        out[name] = total(sliced(make(), held))
    data_parallel(rank, out)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tensor",))
    for name in CENTRES:
        out[name] = centres(name, mesh)
    out["refused"] = []
    for name, classes in (("proto_triplet", 4), ("margin_calibration", 1)):
        loss: Any = build(name, classes=classes).terms[name].loss
        loss.weight = nn.Parameter(distribute_tensor(loss.weight.detach(), mesh, [Shard(0)]))
        try:
            loss(torch.zeros(1, DIM), torch.zeros(1).long())
        except ValueError as error:
            out["refused"].append(str(error))
    try:
        ClassRange.across(V * rank)
    except ValueError as error:
        out["empty"] = str(error)
    for group in (dist.new_group([0]), dist.new_group([1])):
        if dist.get_rank(group) >= 0:
            out["own group"] = tuple(ClassRange.across(V, group)[:3])
    calls = count_collectives()
    evaluate(sliced(given(), held))
    out["collectives"] = calls
    assert partial.dist is dist
    torch.save(out, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
