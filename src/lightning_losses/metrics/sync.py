# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`GatherState`: over which ranks a metric adds up its state."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_losses.distributed import ALONE, Ranks


class GatherState:
    """A metric's ``dist_sync_fn``, over the ranks that hold other rows.

    Unlike ``process_group`` it survives a copy of the metric, and of a module that holds one.

    Args:
        group: see `distributed.over`.
    """

    def __init__(self, group: Any = None) -> None:
        self.ranks = Ranks(group)

    def __call__(self, state: Tensor, group: Any = None) -> list[Tensor]:
        """The state of each rank; ``group`` is what torchmetrics passes, and is not asked."""
        if self.ranks.group is ALONE:
            return [state]
        return gather_all_tensors(state, self.ranks.group)
