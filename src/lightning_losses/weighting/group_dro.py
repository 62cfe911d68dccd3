# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Group DRO: the groups with the largest loss gain weight, step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_losses.distributed import all_sum
from lightning_losses.losses.shared.constant import constant
from lightning_losses.losses.shared.validation import check_length
from lightning_losses.softmax import may_ask
from lightning_losses.wide_buffers import WideBuffers


class GroupDRO(WideBuffers):
    """Row weights that make the mean ``sum over groups of q_g * (mean loss of group g)``.

    Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", arXiv 1911.08731:
    ``q_g`` is multiplied by ``exp(step_size * loss_g)`` each optimizer step, and made to sum to 1,
    before the loss of that step is weighed. ``method="greedy"`` is the variant of the authors' code
    that gives the groups of largest running loss the weight of their share of the data, until the
    share ``alpha`` is full.

    What made it work in the paper: groups drawn equally often (a `WeightedRandomSampler`), and
    strong weight decay or early stopping on the worst group, which `LossByMonitor` logs.

    q is in checkpoints, as logarithms, float32 at least, and is moved once an optimizer step
    (`set_step`; a loop of your own calls ``objective.set_step(step)``) by the mean losses of all
    batches of the step and of all ranks. Within an accumulated step each batch is weighed as if it
    were the last. Validation reads q and moves nothing. A group that no row of the batch belongs to
    counts as loss 0, as in the authors' code, so it loses weight to the others; ``absent="keep"``
    leaves its q as it was.

    Args:
        num_groups: largest ``group_id`` + 1.
        step_size: eta; 0.01 in the paper.
        group_counts: rows of each group in the training set; for ``adjustment`` and ``greedy``.
        adjustment: C, one number or one a group: ``C / sqrt(group_counts)`` is added to the loss
            that q sees, so that small groups, which overfit, gain weight. The loss itself has none.
        normalize: divide the losses that q sees by their sum.
        absent: ``zero`` or ``keep``, see above.
        method: ``online`` or ``greedy``.
        alpha: share of the data that greedy weighs, in (0, 1).
        gamma: rate of greedy's running losses, in (0, 1].

    Raises:
        ValueError: values out of range; on a CPU a ``group_id`` out of range in a row that counts.

    Shapes: ``group_id`` ``(...)`` int64 beside the rows.

    Examples:
        >>> weighting = GroupDRO(num_groups=2, step_size=0.1)
        >>> losses, group_id = torch.tensor([0.2, 0.2, 0.2, 2.0]), torch.tensor([0, 0, 0, 1])
        >>> for step in range(20):
        ...     weighting.set_step(step)
        ...     weights = weighting(losses, torch.ones(4, dtype=torch.bool), group_id)
        >>> weights  # the group that loses more counts more and more
        tensor([0.0355, 0.0355, 0.0355, 3.8936])
    """

    log_q: Tensor
    running: Tensor
    seen: Tensor
    pending: Tensor  # (2, G): sums of losses and counts of rows since the last optimizer step

    def __init__(
        self,
        num_groups: int,
        step_size: float = 0.01,
        group_counts: Sequence[float] | None = None,
        adjustment: float | Sequence[float] = 0.0,
        normalize: bool = False,
        absent: Literal["zero", "keep"] = "zero",
        method: Literal["online", "greedy"] = "online",
        alpha: float = 0.2,
        gamma: float = 0.1,
    ) -> None:
        super().__init__()
        if num_groups < 1 or not step_size >= 0:
            raise ValueError(
                f"group_dro needs num_groups >= 1 and step_size >= 0, got {num_groups} and "
                f"{step_size}."
            )
        if absent not in ("zero", "keep") or method not in ("online", "greedy"):
            raise ValueError(
                "absent must be 'zero' or 'keep' and method 'online' or 'greedy', got "
                f"{absent!r} and {method!r}."
            )
        if not (0 < alpha < 1 and 0 < gamma <= 1):
            raise ValueError(f"alpha must be in (0, 1), gamma in (0, 1], got {alpha} and {gamma}.")
        each = isinstance(adjustment, (int, float))
        constants = [float(adjustment)] * num_groups if each else [*map(float, adjustment)]  # type: ignore[arg-type]
        check_length("adjustment", len(constants), num_groups)
        counts = None if group_counts is None else [float(count) for count in group_counts]
        if counts is None and (any(constants) or method == "greedy"):
            raise ValueError(
                "adjustment and method='greedy' need group_counts: write the number of training "
                "rows of each group, group_counts=[...]."
            )
        if counts is not None:
            check_length("group_counts", len(counts), num_groups)
            if not all(count > 0 for count in counts):
                raise ValueError(f"group_counts must be positive, got {counts}.")
        self.num_groups, self.step_size, self.normalize = num_groups, step_size, normalize
        self.absent, self.method, self.alpha, self.gamma = absent, method, alpha, gamma
        sizes = counts or [1.0] * num_groups
        self._adjusted = tuple(c / math.sqrt(n) for c, n in zip(constants, sizes, strict=True))
        self._share = tuple(count / sum(counts or ()) for count in counts or ())
        self.register_buffer("log_q", torch.zeros(num_groups))
        self.register_buffer("running", torch.zeros(num_groups))
        self.register_buffer("seen", torch.zeros(num_groups, dtype=torch.bool))
        self.register_buffer("pending", torch.zeros(2, num_groups), persistent=False)
        self._step = 0
        self.register_state_dict_pre_hook(_commit)  # type: ignore[no-untyped-call]

    @property
    def group_weights(self) -> Tensor:
        """q ``(G,)`` after the last optimizer step, without graph."""
        if self.method == "greedy":
            return self._greedy(self.running)
        return self.log_q.softmax(0)

    def forward(self, losses: Tensor, valid: Tensor, group_id: Tensor) -> Tensor:
        """Weights ``(N,)`` for losses ``(N,)``; 0 where not valid."""
        self._check(group_id, valid)
        member = group_id.long()[:, None] == torch.arange(self.num_groups, device=losses.device)
        member = member & valid[:, None]
        inside = member.to(losses.dtype)
        own = torch.where(member, losses[:, None], 0.0)  # 0 times inf would be NaN
        both = all_sum(torch.stack([own.sum(0), inside.sum(0)]))
        learns = self.training and torch.is_grad_enabled()
        q = self._after(both)[0] if learns else self.group_weights
        if learns:
            self.pending += both.to(self.pending)
        count, rows = both[1], both[1].sum()
        each = torch.where(count > 0, q.to(losses.dtype) * rows / count.clamp(min=1), 0.0)
        # An id out of range is named on a CPU; elsewhere it must not be a silent weight of 0.
        return torch.where(valid & ~member.any(1), torch.nan, inside @ each)

    def set_step(self, step: int) -> None:
        """Let q be moved by what earlier steps saw."""
        if step != self._step:
            self._step = step
            self.commit()

    def commit(self) -> None:
        """Move q by the batches since the last step now."""
        if bool(may_ask(self.pending)) and not bool(self.pending[1].any()):
            return
        _, log_q, running, seen = self._after(self.pending)
        nothing = self.pending[1].sum() == 0
        self.log_q.copy_(torch.where(nothing, self.log_q, log_q.to(self.log_q)))
        self.running.copy_(torch.where(nothing, self.running, running.to(self.running)))
        self.seen.copy_(seen)
        self.pending.zero_()

    def _after(self, both: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, log q, running losses and groups seen after a step of these sums and counts."""
        total, count = both
        here = count > 0
        mean = torch.where(here, total / count.clamp(min=1), 0.0)
        rate = torch.where(self.seen, self.gamma * here.to(mean.dtype), 1.0)
        running = self.running.to(mean) * (1 - rate) + mean * rate
        seen = self.seen | here
        if self.method == "greedy":
            return self._greedy(running), self.log_q.to(mean), running, seen
        grown = mean + constant(self._adjusted, mean)
        if self.normalize:
            grown = grown / torch.where(grown.sum() != 0, grown.sum(), 1.0)
        before = self.log_q.to(mean).log_softmax(0)  # exact in any dtype at the start
        log_q = (before + self.step_size * grown).log_softmax(0)
        if self.absent == "keep":
            # The groups of the batch share what they had together.
            moved = (before + self.step_size * grown).masked_fill(~here, -torch.inf)
            held = before.masked_fill(~here, -torch.inf).logsumexp(0)
            log_q = torch.where(here, moved - moved.logsumexp(0) + held, before)
        return log_q.exp(), log_q, running, seen

    def _greedy(self, running: Tensor) -> Tensor:
        """Weights of the groups: shares of the data, largest running loss first, up to alpha."""
        share = constant(self._share, running)
        order = (running + constant(self._adjusted, running)).argsort(descending=True, stable=True)
        before = share[order].cumsum(0) - share[order]
        filled = torch.minimum(share[order], (self.alpha - before).clamp(min=0)) / self.alpha
        return torch.zeros_like(running).scatter(0, order, filled)

    def _check(self, group_id: Tensor, valid: Tensor) -> None:
        if group_id.is_floating_point():
            raise ValueError(f"group_id must be int64, got {group_id.dtype}: write .long().")
        if not (may_ask(group_id) and len(group_id)):
            return
        low, high = (int(x) for x in torch.where(valid, group_id, 0).aminmax())
        if low < 0 or high >= self.num_groups:
            raise ValueError(
                f"group_id must be in [0, {self.num_groups}) for num_groups={self.num_groups}, "
                f"found {low} to {high}: write num_groups={high + 1} for ids that begin at 0."
            )

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)  # type: ignore[no-untyped-call]
        self.pending.zero_()  # what the run before saw is not of the one that is loaded


def _commit(module: Any, *_: Any) -> None:
    """Before a checkpoint: the state after the last step, not before it."""
    module.commit()
