# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dark experience replay: logits of remembered samples stay what they were."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.rows_math import log_softmax
from lightning_losses.softmax import may_ask


class DarkExperience(nn.Module):
    """``alpha mean (z - z_stored)^2 + beta CE(z, y)`` on samples from a buffer of earlier tasks.

    Buzzega et al., "Dark Experience for General Continual Learning", arXiv 2004.07211: DER has the
    first part, DER++ both. Beside a ``ce`` term on the current batch.

    Args:
        alpha: weight of the stored logits.
        beta: weight of the stored labels; above 0 the step passes ``replay_target``.

    Shapes: replay_logits (of the model now) and stored_logits ``(M, C)``, replay_target ``(M,)``;
    one number, means over the buffer rows of all ranks. An empty buffer is 0.
    """

    scope = "batch"
    contract = Contract(
        target=("none",), head="none", same_columns=(("replay_logits", "stored_logits"),)
    )

    def __init__(self, alpha: float = 0.5, beta: float = 0.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.needs = ("replay_target",) if beta else ()

    def forward(
        self, replay_logits: Tensor, stored_logits: Tensor, replay_target: Tensor | None = None
    ) -> Tensor:
        """The loss of the buffer rows, 0-dim."""
        if replay_logits.shape != stored_logits.shape:
            raise ValueError(
                "replay_logits and stored_logits are of the same samples and must have one shape, "
                f"got {tuple(replay_logits.shape)} and {tuple(stored_logits.shape)}."
            )
        stored = stored_logits.detach()
        # Classes that are masked now as they were then do not differ.
        apart = torch.where(replay_logits == stored, 0, replay_logits - stored)
        total = self.alpha * apart.square().mean(1).sum()
        if self.beta and replay_target is not None:
            self._check(replay_target, replay_logits.shape[1])
            log_p = log_softmax(replay_logits)
            total = total - self.beta * log_p.gather(1, replay_target[:, None]).sum()
        count = all_sum(replay_logits.new_full((), len(replay_logits)))
        return reduce_with_gradient(total) / count.clamp(min=1)

    def _check(self, target: Tensor, classes: int) -> None:
        """Raise a ValueError for a label out of range, on a CPU."""
        if may_ask(target) and target.numel():
            low, high = (int(x) for x in target.aminmax())
            if low < 0 or high >= classes:
                raise ValueError(
                    f"replay_target must be in [0, {classes}), the columns of replay_logits, found "
                    f"{low} to {high}: leave rows without a label out of the buffer, or write "
                    "beta: 0."
                )
