# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From a kernel's name to the functions that compute a problem."""

from __future__ import annotations

import warnings
from functools import cache, partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .availability import unavailable
from .eager import chunked, reference
from .eager.row_fused import RowFunction, row_fused
from .problem import Problem

#: How statistics may be asked for; see `resolve_kernel`. ``triton`` chooses its mode by itself.
KERNELS = ("auto", "reference", "chunked", "triton", "triton_keep", "triton_lean")
#: Of these no pass forms the gradients of a whole objective in its forward.
TWO_PASSES = ("reference", "triton_keep", "triton_lean")

#: Given logits up to this many entries go to torch's own kernels; measured by
#: benchmarks/step_overhead.py: below it the chunk loop's fixed cost exceeds the passes it saves.
SMALL = 2**20


def resolve_kernel(kernel: str, problem: Problem) -> str:
    """``reference``, ``chunked`` or ``triton``: what computes this problem.

    ``triton`` gives way to ``chunked``, with a warning, where it cannot run: one config serves the
    GPU and the laptop, with the same numbers. Raises ValueError for an unknown kernel.
    """
    if kernel not in KERNELS:
        raise ValueError(f"Unknown kernel {kernel!r}; write one of {', '.join(KERNELS)}.")
    if kernel == "reference" and problem.class_range is not None:
        raise ValueError(
            "kernel='reference' needs every class on one rank, and class_range was given: write "
            "kernel='auto', or 'chunked' or 'triton'."
        )
    if kernel in ("reference", "chunked"):
        return kernel
    reason = unavailable(problem)
    if kernel.startswith("triton"):
        if reason is not None:
            _warn_once(f"kernel={kernel!r} gives way to 'chunked'. {reason}")
        return "chunked" if reason is not None else "triton"
    small = problem.logits is not None and problem.logits.numel() <= SMALL
    if small and problem.class_range is None:
        return "reference"
    return "triton" if reason is None and problem.source.device.type == "cuda" else "chunked"


class Statistics(Protocol):
    """Every wanted statistic ``(N,)``, with graph: any upstream gradient."""

    def __call__(self, problem: Problem, want: tuple[str, ...]) -> dict[str, Tensor]: ...


class RowFused(Protocol):
    """A scalar made of row values, and its gradient, in one pass; see `row_fused.row_fused`."""

    def __call__(
        self,
        problem: Problem,
        want: tuple[str, ...],
        row_function: RowFunction,
        rows: dict[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]: ...


class Kernel(NamedTuple):
    """The two entries of a kernel, each tested against the other."""

    statistics: Statistics
    row_fused: RowFused


EAGER = {
    "reference": Kernel(reference.statistics, row_fused),
    "chunked": Kernel(chunked.statistics, row_fused),
}


def find_kernel(kernel: str, problem: Problem) -> Kernel:
    """The functions of what `resolve_kernel` chose. Triton is imported here, and only if used."""
    resolved = resolve_kernel(kernel, problem)
    if resolved != "triton":
        return EAGER[resolved]
    from .triton import modes

    mode = kernel.removeprefix("triton_") if kernel in TWO_PASSES else "auto"
    return Kernel(partial(modes.statistics, mode=mode), modes.row_fused)


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def describe_kernel() -> str:
    """In words: what ``kernel=auto`` does here."""
    large = "triton" if torch.cuda.is_available() else "chunked (no CUDA device, so no triton)"
    return (
        f"auto; torch's own for logits of up to {SMALL:,} entries, {large} for larger logits and "
        "from hidden states"
    )
