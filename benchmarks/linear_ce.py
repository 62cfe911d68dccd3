# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of losses from hidden states and a head, ours against torch, in one run.

    python benchmarks/linear_ce.py --device cpu                       the bars of the README
    python benchmarks/linear_ce.py --device cpu --shape 512 256 8000  a quick look

Every method runs in a process of its own (its peak memory is then its own), several rounds in
turn (so that a busy moment hits all of them); the best round counts. Prints a JSON line a method,
then a table with ratios to the first method of each group. Forward and backward together.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses import Objective, Term
from lightning_losses.losses import CrossEntropy, EntropyBonus, Focal, LogsumexpPenalty

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
SMOOTHING, FOCAL, PENALTY, BONUS = 0.1, 0.5, 1e-4, 0.01


def naive(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head), target)


def torch_chunked(**options: int) -> Loss:
    def loss(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        chunking = nn.LinearCrossEntropyOptions(**options)
        return F.linear_cross_entropy(hidden, head, target, options=chunking)

    return loss


def composed_naive(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """The five-part objective as one would write it by hand on logits, sharing what can be."""
    z = F.linear(hidden, head)
    log_p = F.log_softmax(z, dim=1)
    p = log_p.exp()
    log_py = log_p.gather(1, target[:, None]).squeeze(1)
    ce = (1 - SMOOTHING) * -log_py - SMOOTHING * log_p.mean(1)
    focal = -((1 - log_py.exp()) ** 2) * log_py
    entropy = -(p * log_p).sum(1)
    penalty = torch.logsumexp(z, dim=1).square()
    return (ce + FOCAL * focal + PENALTY * penalty - BONUS * entropy).mean()


def ours(terms: dict[str, Term | nn.Module], kernel: str, watch: tuple[str, ...] = ()) -> Loss:
    objective = Objective(terms, kernel=kernel)
    objective.watch("monitors", *watch)

    def loss(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        return objective(hidden=hidden, head_weight=head, target=target).total

    return loss


def methods() -> dict[str, dict[str, Loss]]:
    """Groups of methods of equal result; the first of each is what the others are compared to."""
    ce: dict[str, Term | nn.Module] = {"ce": CrossEntropy()}
    five: dict[str, Term | nn.Module] = {
        "ce": CrossEntropy(label_smoothing=SMOOTHING),
        "focal": Term(Focal(), FOCAL),
        "logsumexp_penalty": Term(LogsumexpPenalty(), PENALTY),
        "entropy_bonus": Term(EntropyBonus(), BONUS),
    }
    monitors = ("entropy", "confidence", "prediction")
    plain: dict[str, Loss] = {"F.cross_entropy(F.linear)": naive}
    if hasattr(F, "linear_cross_entropy"):
        plain["F.linear_cross_entropy, defaults"] = torch_chunked()
        plain["F.linear_cross_entropy, 512 rows"] = torch_chunked(batch_chunk_size=512)
    plain["ours"] = ours(ce, "auto")
    plain["ours, monitors on"] = ours(ce, "auto", monitors)
    return {
        "cross-entropy": plain,
        "ce + focal + logsumexp_penalty + entropy_bonus": {
            "by hand on logits": composed_naive,
            "ours": ours(five, "auto"),
            "ours, monitors on": ours(five, "auto", monitors),
        },
    }


def measure(loss: Loss, shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, float]:
    """One forward and backward: wall and processor seconds, growth of the peak memory in MB."""
    n, d, v = shape
    warm = (torch.randn(4, 8), torch.randn(16, 8), torch.randint(16, (4,)))
    run(loss, *warm)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.empty(n, d, dtype=dtype).normal_(generator=generator)
    head = torch.empty(v, d, dtype=dtype).normal_(std=d**-0.5, generator=generator)
    target = torch.randint(v, (n,), generator=generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, norm = run(loss, hidden, head, target)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    best = {"wall_s": float("inf"), "cpu_s": float("inf")}
    for _ in range(2):
        cpu, wall = time.process_time(), time.perf_counter()
        run(loss, hidden, head, target)
        best["wall_s"] = min(best["wall_s"], time.perf_counter() - wall)
        best["cpu_s"] = min(best["cpu_s"], time.process_time() - cpu)
    return {**best, "peak_mb": peak / 1024, "loss": value, "grad": norm}


def run(loss: Loss, hidden: Tensor, head: Tensor, target: Tensor) -> tuple[float, float]:
    hidden, head = hidden.detach().requires_grad_(), head.detach().requires_grad_()
    total = loss(hidden, head, target)
    total.backward()
    assert head.grad is not None
    return float(total.detach()), float(head.grad.norm())


def child(group: str, name: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    print(json.dumps(measure(methods()[group][name], tuple(options.shape), dtype)))


def parent(options: argparse.Namespace) -> None:
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, "
        f"(N, D, V) = {tuple(options.shape)}, {options.dtype}, best of {options.rounds}"
    )
    for group, members in methods().items():
        best: dict[str, dict[str, float]] = {}
        for _ in range(options.rounds):
            for name in members:
                command = [sys.executable, __file__, *sys.argv[1:], "--child", group, name]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found = json.loads(out.splitlines()[-1])
                seen = best.setdefault(name, found)
                best[name] = {key: min(value, seen[key]) for key, value in found.items()}
        for name, row in best.items():
            print(json.dumps({"group": group, "method": name, **row}))
        table(group, best)


def table(group: str, rows: dict[str, dict[str, float]]) -> None:
    first = next(iter(rows.values()))
    print(f"\n{group:46} {'wall s':>8} {'cpu s':>8} {'ratio':>6} {'peak MB':>8} {'ratio':>6}  loss")
    for name, row in rows.items():
        print(
            f"  {name:44} {row['wall_s']:8.2f} {row['cpu_s']:8.2f} "
            f"{row['wall_s'] / first['wall_s']:6.2f} {row['peak_mb']:8.0f} "
            f"{row['peak_mb'] / first['peak_mb']:6.2f}  {row['loss']:.5f}"
        )
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--shape", type=int, nargs=3, default=(2048, 512, 32000), metavar="NDV")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options)
    else:
        print(f"$ python {Path(__file__).name} {' '.join(sys.argv[1:])}")
        parent(options)


if __name__ == "__main__":
    main()
