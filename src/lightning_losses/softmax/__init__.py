# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Softmax statistics: what one pass over the classes tells every loss, monitor and controller.

The one front door to the kernels, and the only package that imports them.
"""

from lightning_losses.kernels.availability import unavailable
from lightning_losses.kernels.class_range import ClassRange
from lightning_losses.kernels.dispatch import (
    KERNELS,
    SMALL,
    TWO_PASSES,
    describe_kernel,
    resolve_kernel,
)
from lightning_losses.kernels.eager.row_fused import RowFunction
from lightning_losses.kernels.eager.spread import Direction, Spread
from lightning_losses.kernels.logits import final_logits
from lightning_losses.kernels.problem import STATISTICS, Problem
from lightning_losses.kernels.valid_rows import zero_ignored_rows
from lightning_losses.softmax.arguments import (
    FLOATS,
    check_shift,
    float_of,
    in_autocast_dtype,
    may_ask,
    require_tensor,
    shift_left,
)
from lightning_losses.softmax.chunks import Chunks, Source
from lightning_losses.softmax.compute import logit_spread, make_problem, row_fused, statistics
from lightning_losses.softmax.stats import SoftmaxStats, softmax_stats

__all__ = [
    "FLOATS",
    "KERNELS",
    "SMALL",
    "STATISTICS",
    "TWO_PASSES",
    "Chunks",
    "ClassRange",
    "Direction",
    "Problem",
    "RowFunction",
    "SoftmaxStats",
    "Source",
    "Spread",
    "check_shift",
    "describe_kernel",
    "final_logits",
    "float_of",
    "in_autocast_dtype",
    "logit_spread",
    "make_problem",
    "may_ask",
    "require_tensor",
    "resolve_kernel",
    "row_fused",
    "shift_left",
    "softmax_stats",
    "statistics",
    "unavailable",
    "zero_ignored_rows",
]
