# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What arithmetic alone says of a fused linear cross-entropy: the figures in docs/kernels.md.

    python benchmarks/roofline.py                               an H200 as the peers measured it
    python benchmarks/roofline.py --tflops 989 --terabytes 3.35 another device

For each shape (N, D, V): the time of the matrix products that each mode needs if they ran at the
given rate, the time to move the logits once, and the bytes that each mode holds beside its inputs
and gradients, from the chunk and slab sizes that `kernels/triton/tiles.py` decides on: logits, the
float32 sums of gradients that come in parts, and copies of hidden states without the rows that do
not count. A head in float32, as under precision="bf16-mixed", is its own sum. Nothing is measured.
"""

from __future__ import annotations

import argparse

import torch

from lightning_losses.kernels.eager.row_fused import rows_without_sum
from lightning_losses.kernels.problem import Problem
from lightning_losses.kernels.triton.tiles import fast_chunk_rows, slab_classes

SHAPES = [(4096, 4096, 128256), (8192, 4096, 128256), (8192, 2304, 256000), (16384, 1024, 50304)]
#: Products of 2 N D V operations each, forward and backward together.
PRODUCTS = {"plain": 3, "fast": 3, "keep": 3, "lean": 4}


def held(shape: tuple[int, int, int], itemsize: int = 2) -> dict[str, tuple[float, float, float]]:
    """MiB of logits (or of their gradient), float32 sums and copies, at the peak of each mode."""
    n, d, v = shape
    hidden = torch.empty(n, d, dtype=torch.bfloat16, device="meta")
    head = torch.empty(v, d, dtype=torch.bfloat16, device="meta")
    problem = Problem(hidden=hidden, head_weight=head)
    mib = 2**20
    states, sums = n * d * itemsize / mib, 4 * d / mib  # sums: float32, a row of a gradient
    rows = min(n, rows_without_sum(problem, fast_chunk_rows(problem)))
    slab = n * slab_classes(n, v, itemsize) * itemsize / mib
    return {
        "plain": (3 * n * v * 4 / mib, 0, 0),  # float32 logits, their log-softmax, its gradient
        "fast": (rows * v * itemsize / mib, v * sums if rows < n else 0, rows / n * states),
        "keep": (n * v * itemsize / mib, 0, states),
        "lean": (slab, n * sums, states),
    }


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tflops", type=float, default=790, help="of a dense bf16 matrix product")
    parser.add_argument("--terabytes", type=float, default=4.3, help="of a copy, a second")
    options = parser.parse_args()
    print(f"at {options.tflops:g} TFLOP/s and {options.terabytes:g} TB/s, bf16, forward + backward")
    print(f"{'(N, D, V)':22} {'mode':6} {'products ms':>12} {'logits once ms':>15}", end="")
    print(f" {'logits MiB':>11} {'sums MiB':>9} {'copies MiB':>11}")
    for shape in SHAPES:
        n, d, v = shape
        once = 2 * n * v / options.terabytes / 1e9
        for mode, (logits, sums, copies) in held(shape).items():
            products = PRODUCTS[mode] * 2 * n * d * v / options.tflops / 1e9
            print(f"{shape!s:22} {mode:6} {products:12.1f} {once:15.2f}", end="")
            print(f" {logits:11.0f} {sums:9.0f} {copies:11.0f}")


if __name__ == "__main__":
    main()
