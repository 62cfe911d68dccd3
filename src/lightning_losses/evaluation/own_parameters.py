# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of losses (class centres, a learned temperature) where no strategy keeps them equal.

DDP and FSDP1 take in the whole LightningModule. Lightning's ModelParallelStrategy leaves to
`configure_model` what is split and averaged; a loss is easily forgotten there, and its parameters
would then differ from rank to rank, in silence.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_losses.distributed import ALONE, is_on_mesh


def keep_equal(module: nn.Module, group: Any) -> None:
    """From now on every rank has the same plain parameters, whose gradients are averaged.

    DTensors are left alone: `fully_shard` or `parallelize_module` made them. Every rank must come
    here, in its first training step.

    Args:
        module: the objective.
        group: the ranks that hold other rows; None for all, `ALONE` for none.
    """
    own = [p for p in module.parameters() if p.requires_grad and not is_on_mesh(p)]
    known = _kept.get(module)
    if known is None or [id(p) for p in known.parameters] != [id(p) for p in own]:
        if known is not None:
            known.end()
        _kept[module] = _Averaged(own, group)


class _Averaged:
    """Averages gradients over ranks at the end of each backward pass that reaches one of them.

    All of them at once and in one order, because ranks may reach them in different orders.
    """

    def __init__(self, parameters: list[nn.Parameter], group: Any) -> None:
        self.parameters, self.group, self.waiting = parameters, group, False
        for parameter in parameters:
            dist.broadcast(parameter.detach(), 0)
        self.hooks = [
            p.register_post_accumulate_grad_hook(self.reached)  # type: ignore[no-untyped-call]
            for p in parameters
        ]

    def reached(self, _: Tensor) -> None:
        if not self.waiting and self.group is not ALONE:
            self.waiting = True
            engine = torch.autograd.Variable._execution_engine  # type: ignore[attr-defined]
            engine.queue_callback(self.average)

    def average(self) -> None:
        self.waiting = False
        for parameter in self.parameters:  # few; what accumulated before is equal already
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad, group=self.group)
            parameter.grad /= dist.get_world_size(self.group)

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()


_kept: WeakKeyDictionary[nn.Module, _Averaged] = WeakKeyDictionary()
