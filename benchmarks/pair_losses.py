# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of losses on pairs and on views, ours against peers, in one run.

    python benchmarks/pair_losses.py                        the bars of the docs: 4096 rows of 128
    python benchmarks/pair_losses.py --shape 512 64         a quick look
    python benchmarks/pair_losses.py --only barlow_twins    one group, or some

Peers are pytorch-metric-learning and, where it can be imported, lightly. Every method runs in a
process of its own (its peak memory is then its own), several rounds in turn (so that a busy moment
hits all of them); the best round counts. Forward and backward together, float32, on a CPU. Prints
a JSON line a method, then a table with ratios to the first of each group; the column `loss` says
that a group computes the same number. A loss of views gets half of the rows as each view, Barlow
Twins as many rows as the others in each view. Ratios of time are of processor time, which other
programs disturb least.

The last line of barlow_twins is what no implementation can be below: the three products of N x D x
D that its value and gradient are made of, without standardising anything, and memory for the
gradient of the rows; its `loss` is no loss. Where its ratios are above 0.5, half of a peer's time
or memory cannot be had.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_losses import build_objective

#: features ``(N, D)``, target ``(N,)`` -> the loss.
Loss = Callable[[Tensor, Tensor], Tensor]
CLASSES = 64  # so that at 4096 rows an anchor has 63 positives
TEMPERATURE = 0.1
TWINS = "barlow_twins"  # memory is no square of its rows, so that each view has all of them


def ours(key: str, views: bool = False, **options: Any) -> Loss:
    """A key of the catalogue; ``views`` gives it the rows as two views of half as many samples."""
    objective = build_objective({key: options} if options else key)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        if views:
            return objective(features=torch.stack(x.chunk(2), 1)).total
        return objective(features=x, target=y).total

    return loss


def peer(module: torch.nn.Module, miner: torch.nn.Module | None = None) -> Loss:
    """A loss of pytorch-metric-learning, after a miner if there is one."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return module(x, y) if miner is None else module(x, y, miner(x, y))

    return loss


def of_views(module: torch.nn.Module) -> Loss:
    """A peer's loss ``(one view, the other) -> value``, on the rows as two views."""
    return lambda x, y: module(*x.chunk(2))


def methods() -> dict[str, dict[str, Loss]]:
    """Groups of methods of equal result; the first of each is what the others are compared to."""
    from pytorch_metric_learning import losses, miners

    supcon = losses.SupConLoss(temperature=TEMPERATURE)
    # Its NTXentLoss holds positive pairs x negative pairs, 7e10 numbers here; on two views its
    # SupConLoss is the same loss.
    views = losses.SelfSupervisedLoss(losses.SupConLoss(temperature=TEMPERATURE))
    similarity = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    miner = miners.MultiSimilarityMiner(epsilon=0.1)
    groups: dict[str, dict[str, Loss]] = {
        "supcon": {
            "pytorch-metric-learning": peer(supcon),
            "ours": ours("supcon", temperature=TEMPERATURE),
        },
        "multi_similarity, mined": {
            "pytorch-metric-learning": peer(similarity, miner),
            "ours": ours("multi_similarity"),
        },
        "multi_similarity, all pairs": {
            "pytorch-metric-learning": peer(similarity),
            "ours": ours("multi_similarity", miner_epsilon=None),
        },
        "nt_xent": {"pytorch-metric-learning": of_views(views)},
        TWINS: {},
    }
    lightly = lightly_losses()
    if lightly is not None:
        groups["nt_xent"]["lightly"] = of_views(lightly["nt_xent"](temperature=TEMPERATURE))
        groups[TWINS]["lightly"] = of_views(lightly["barlow_twins"](lambda_param=0.005))
    groups["nt_xent"]["ours"] = ours("nt_xent", views=True, temperature=TEMPERATURE)
    barlow = build_objective("barlow_twins")
    groups[TWINS]["ours"] = lambda x, y: (
        barlow(**dict(zip(("features", "other_features"), x.chunk(2), strict=True))).total
    )
    groups[TWINS]["the three products alone"] = lambda x, y: Products.apply(*x.chunk(2))
    return groups


class Products(torch.autograd.Function):
    """``a' b`` forward, ``b M'`` and ``a M`` backward, and nothing else."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        matrix = a.t() @ b
        ctx.save_for_backward(a, b, matrix)
        return matrix[0, 0].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b, matrix = ctx.saved_tensors
        return b @ matrix.t(), a @ matrix


def lightly_losses() -> dict[str, Any] | None:
    """Two losses of lightly; None where it is not installed.

    Its packages import torchvision when they are imported, which these two do not need and not
    every torch has, so their folders stand in for them.
    """
    spec = importlib.util.find_spec("lightly")
    if spec is None or spec.origin is None:
        return None
    for name in ("loss", "models", "models.modules", "models.utils"):
        package = types.ModuleType(f"lightly.{name}")
        package.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")))]
        sys.modules.setdefault(f"lightly.{name}", package)
    from lightly.loss.barlow_twins_loss import BarlowTwinsLoss
    from lightly.loss.ntx_ent_loss import NTXentLoss

    return {"barlow_twins": BarlowTwinsLoss, "nt_xent": NTXentLoss}


def step(loss: Loss, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    """Forward and backward: the loss, and the gradient of the rows."""
    x = x.detach().requires_grad_()
    total = loss(x, y)
    total.backward()
    assert x.grad is not None
    return float(total.detach()), x.grad


def measure(loss: Loss, shape: tuple[int, int]) -> dict[str, float]:
    """One forward and backward: wall and processor seconds, growth of the peak memory in MB."""
    n, d = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator)
    x[n // 2 :] += x[: n // 2]  # of losses of views: the other view
    y = torch.randint(CLASSES, (n,), generator=generator)
    few = min(n, 1200)  # what is loaded once: torch's checkpoint is, beyond some size
    step(loss, x[:few, :2], y[:few])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, gradient = step(loss, x, y)
    norm = float(gradient.norm())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    best = {"wall_s": float("inf"), "cpu_s": float("inf")}
    for _ in range(2):
        cpu, wall = time.process_time(), time.perf_counter()
        step(loss, x, y)
        best["wall_s"] = min(best["wall_s"], time.perf_counter() - wall)
        best["cpu_s"] = min(best["cpu_s"], time.process_time() - cpu)
    return {**best, "peak_mb": peak / 1024, "loss": value, "grad": norm}


def child(group: str, name: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    n, d = options.shape
    print(json.dumps(measure(methods()[group][name], (2 * n if group == TWINS else n, d))))


def parent(options: argparse.Namespace) -> None:
    """Every method in turn, in processes of their own."""
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, "
        f"(N, D) = {tuple(options.shape)}, float32, {CLASSES} classes, best of {options.rounds}"
    )
    if lightly_losses() is None:
        print("lightly is not installed: it is left out, and barlow_twins has no peer")
    for group, members in methods().items():
        if options.only and group not in options.only:
            continue
        best: dict[str, dict[str, float]] = {}
        for _ in range(options.rounds):
            for name in members:
                command = [sys.executable, __file__, *sys.argv[1:], "--child", group, name]
                out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                found = json.loads(out.splitlines()[-1])
                seen = best.setdefault(name, found)
                best[name] = {key: min(value, seen[key]) for key, value in found.items()}
        for name, row in best.items():
            print(json.dumps({"group": group, "method": name, **row}))
        table(group, best)


def table(group: str, rows: dict[str, dict[str, float]]) -> None:
    first = next(iter(rows.values()))
    print(f"\n{group:30} {'wall s':>8} {'cpu s':>8} {'ratio':>6} {'peak MB':>8} {'ratio':>6}  loss")
    for name, row in rows.items():
        print(
            f"  {name:28} {row['wall_s']:8.3f} {row['cpu_s']:8.3f} "
            f"{row['cpu_s'] / first['cpu_s']:6.2f} {row['peak_mb']:8.1f} "
            f"{row['peak_mb'] / max(first['peak_mb'], 1e-9):6.2f}  {row['loss']:.5f}"
        )
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=2, metavar="ND", default=(4096, 128))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="GROUP", choices=list(methods()))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options)
    else:
        print(f"$ python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}")
        parent(options)


if __name__ == "__main__":
    main()
