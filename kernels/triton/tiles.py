# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which mode, chunk, slab and tile a problem gets: one table, decided from shapes alone.

Never from momentarily free memory: modes fast and keep round logits to the dtype of the hidden
states and lean does not, so that losses would differ from run to run. `benchmarks/aot.py` compiles
every tile here and fails if one spills or does not fit.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from typing import NamedTuple

import torch
from torch import Tensor

from ..availability import HAS_TRITON
from ..problem import Problem

log = logging.getLogger(__name__)

#: Triton 3.6 and 3.7 spill up to 216 bytes in the widest tile of the backward pass.
SPILLS = HAS_TRITON and importlib.metadata.version("triton").startswith(("3.6", "3.7"))

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

CHUNK_BYTES = 512 * 2**20
MIN_CHUNK_ROWS, MAX_CHUNK_ROWS = 1024, 8192
SLAB_BYTES = 256 * 2**20
#: Mode keep may hold logits up to this share of the device's memory.
KEEP_SHARE = 1 / 16
#: Where a copy engine (TMA) brings a whole tile into shared memory on one thread's word.
COPY_ENGINE = ("sm_90", "sm_100")
#: Row blocks that go through the classes together; 16 of 128 rows at D = 4096 are 16 MiB.
GROUP = 16


class Tile(NamedTuple):
    """A launch: block of rows, classes and depth, warps, pipeline stages."""

    rows: int
    classes: int
    depth: int
    warps: int
    stages: int


_AMPERE = Tile(128, 128, 32, 8, 4)  # 48 KiB of shared memory
_SQUARE = Tile(128, 128, 64, 8, 3)  # 96 KiB: two programs a processor where 128 registers do
_WIDE = Tile(128, 256, 64, 8, 3)  # 144 KiB, up to 255 registers: nothing may be added to it
_AMD = Tile(128, 128, 32, 8, 2)  # 16 KiB of the 64 there are


def descriptors(arch: str, *matrices: Tensor) -> bool:
    """Whether the kernels of mode lean read matrices ``(n, D)`` by tensor descriptor.

    It saves the registers and instructions of the addresses, and the mask over D. The copy engine
    wants numbers of 2 or 4 bytes side by side, rows that start on 16 bytes and do not overlap, and
    32-bit indices; all else, and other devices, read by pointer. Like every choice here it is one
    of device, dtype and layout, never of the moment.
    """
    if arch not in COPY_ENGINE:
        return False
    for x in matrices:
        (n, depth), (stride, step), size = x.shape, x.stride(), x.element_size()
        on_16_bytes = x.data_ptr() % 16 == 0 and stride * size % 16 == 0
        rows = step == 1 and stride >= depth
        if not (on_16_bytes and rows and size in (2, 4) and 0 < n < 2**31 and 0 < depth < 2**31):
            return False
    return True


def forward_tile(arch: str, register_heavy: bool, itemsize: int, use_tma: bool) -> Tile:
    """Tile of `span_statistics`; `register_heavy`: with bias, soft-cap or temperature, or with more
    statistics than log-sum-exp and entropy, which spill in the wide tile; `use_tma`: what
    `descriptors` says.
    """
    if (use_tma or arch == "sm_90") and not register_heavy and itemsize <= 2:
        return _WIDE
    return _square(arch, itemsize, use_tma)


def backward_tile(arch: str, has_logit_options: bool, itemsize: int, use_tma: bool) -> Tile:
    """Tile of `slab_gradient`. `has_logit_options`, that is bias, soft-cap, temperature or scale,
    spill in the wide tile, as do the addresses that descriptors save, and all six coefficients on
    sm_100.
    """
    if arch == "sm_90" and use_tma and not has_logit_options and itemsize <= 2 and not SPILLS:
        return _WIDE
    tile = _square(arch, itemsize, use_tma)
    return tile._replace(classes=64) if arch == "sm_80" and has_logit_options else tile


def _square(arch: str, itemsize: int, use_tma: bool) -> Tile:
    tile = {"sm_80": _AMPERE, "gfx942": _AMD}.get(arch, _SQUARE)
    if itemsize > 2:
        # Operands take twice the shared memory, and split into three TF32 products.
        tile = tile._replace(depth=16 if arch == "gfx942" else 32, stages=min(tile.stages, 3))
        if arch == "sm_80":
            tile = tile._replace(classes=64)
    if use_tma:
        # 128 KiB: what does not fit the wide tile has too many registers to share a processor.
        tile = tile._replace(stages=4)
    return tile


def spread_tile(arch: str, itemsize: int) -> Tile:
    """Tile of `span_spread`, which holds two tiles of float32 at once: half as many classes."""
    return backward_tile(arch, True, itemsize, False)._replace(classes=64)


@functools.lru_cache
def architecture(device: torch.device) -> str:
    """The row of the table for a device; a CPU, under the interpreter, gets the smallest tiles."""
    if device.type != "cuda":
        return "sm_80"
    if torch.version.hip is not None:
        return "gfx942"
    major = torch.cuda.get_device_capability(device)[0]
    # Consumer Blackwell (12.x) has neither tcgen05 nor the shared memory of sm_100.
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


@functools.lru_cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors (compute units)."""
    if device.type != "cuda":
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@functools.lru_cache
def _memory(device: torch.device) -> int:
    if device.type != "cuda":
        return 2**34
    return int(torch.cuda.get_device_properties(device).total_memory)


def fast_chunk_rows(problem: Problem) -> int:
    """Rows a chunk: below about 300 a GPU re-reads the head for most of its time."""
    rows = CHUNK_BYTES // (problem.source.element_size() * max(1, problem.classes))
    return min(max(rows // 128 * 128, MIN_CHUNK_ROWS), MAX_CHUNK_ROWS)


def slab_classes(n: int, classes: int, itemsize: int) -> int:
    """Classes a slab in mode lean's backward: equal slabs, multiples of 256."""
    most = max(256, SLAB_BYTES // (itemsize * max(1, n)) // 256 * 256)
    slabs = -(-classes // most)
    return -(-classes // slabs // 256) * 256


def span_classes(n: int, classes: int, tile: Tile, device: torch.device) -> int:
    """Classes a span in mode lean's forward: just enough programs to fill the device once."""
    row_blocks = -(-n // tile.rows)
    spans = max(1, processors(device) // min(row_blocks, GROUP))
    return max(1, -(-classes // (spans * tile.classes))) * tile.classes


def statistics_mode(problem: Problem, gradient: bool) -> str:
    """keep or lean, for upstream gradients that are not known when the forward pass runs."""
    soft = problem.target is not None and problem.target.ndim == 2
    if problem.logits is not None or soft:
        return "fast"  # an (N, V) tensor is there already
    if problem.class_weight is not None:
        return "fast"  # mode lean knows no class weights
    size = problem.source.element_size() * problem.source.shape[0] * problem.classes
    device = problem.source.device
    gradient = gradient and not torch.compiler.is_compiling()  # keep holds a buffer by hand
    mode = "keep" if gradient and size <= KEEP_SHARE * _memory(device) else "lean"
    if not torch.compiler.is_compiling():
        _say(mode, tuple(problem.source.shape), problem.classes)
    return mode


@functools.lru_cache(maxsize=256)
def _say(mode: str, shape: tuple[int, ...], classes: int) -> None:
    """Once a shape."""
    log.info("kernel 'triton': mode %s for hidden %s and %d classes", mode, shape, classes)
