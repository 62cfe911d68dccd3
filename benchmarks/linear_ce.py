# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of losses from hidden states and a head, ours against torch, in one run.

    python benchmarks/linear_ce.py --device cpu                       the bars of the README
    python benchmarks/linear_ce.py --device cpu --shape 512 256 8000  a quick look
    python benchmarks/linear_ce.py --device cuda                      see linear_ce_cuda.py

On a CPU every method runs in a process of its own (its peak memory is then its own), several
rounds in turn (so that a busy moment hits all of them); the best round counts. Prints a JSON line
a method, then a table with ratios to the first of each group, and of processor time to the matrix
products alone, which is what no dense loss can beat. Forward and backward together.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import linear_ce_cuda
import torch
from linear_ce_methods import FLOOR, Loss, methods, step


def measure(loss: Loss, shape: tuple[int, int, int], dtype: torch.dtype) -> dict[str, float]:
    """One forward and backward: wall and processor seconds, growth of the peak memory in MB."""
    n, d, v = shape
    warm = (torch.randn(4, 8), torch.randn(16, 8), torch.randint(16, (4,)))
    step(loss, *warm)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.empty(n, d, dtype=dtype).normal_(generator=generator)
    head = torch.empty(v, d, dtype=dtype).normal_(std=d**-0.5, generator=generator)
    target = torch.randint(v, (n,), generator=generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, gradient = step(loss, hidden, head, target)
    value, norm = float(value), float(gradient.norm())
    del gradient
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    best = {"wall_s": float("inf"), "cpu_s": float("inf")}
    for _ in range(2):
        cpu, wall = time.process_time(), time.perf_counter()
        step(loss, hidden, head, target)
        best["wall_s"] = min(best["wall_s"], time.perf_counter() - wall)
        best["cpu_s"] = min(best["cpu_s"], time.process_time() - cpu)
    return {**best, "peak_mb": peak / 1024, "loss": value, "grad": norm}


def child(group: str, name: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    print(json.dumps(measure(methods()[group][name], tuple(options.shape), dtype)))


def parent(options: argparse.Namespace) -> None:
    """Every method in turn, in processes of their own."""
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
    first, floor = next(iter(rows.values())), rows.get(FLOOR)
    print(
        f"\n{group:46} {'wall s':>8} {'cpu s':>8} {'ratio':>6} {'peak MB':>8} {'ratio':>6}", end=""
    )
    print(f" {'of floor':>9}  loss" if floor else "  loss")
    for name, row in rows.items():
        print(
            f"  {name:44} {row['wall_s']:8.2f} {row['cpu_s']:8.2f} "
            f"{row['wall_s'] / first['wall_s']:6.2f} {row['peak_mb']:8.0f} "
            f"{row['peak_mb'] / first['peak_mb']:6.2f}",
            end=f" {row['cpu_s'] / floor['cpu_s']:8.3f}" if floor else "",
        )
        print(f"  {row['loss']:.5f}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", type=int, nargs=3, metavar="NDV")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cpu":
        options.shape = options.shape or (2048, 512, 32000)
        options.dtype = options.dtype or "float32"
    if options.device == "cuda":
        print(f"$ python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}")
        linear_ce_cuda.main(options)
    elif options.child:
        child(*options.child, options)
    else:
        print(f"$ python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}")
        parent(options)


if __name__ == "__main__":
    main()
