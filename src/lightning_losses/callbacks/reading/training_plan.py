# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What is planned of the training to come: how many steps, and at which learning rates."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch.optim import SGD, Optimizer


class Unplanned(Exception):
    """The learning rates to come cannot be known; says why."""


def planned_steps(trainer: Trainer) -> float:
    """Optimizer steps of the whole training; inf where nobody knows."""
    try:
        steps = float(trainer.estimated_stepping_batches)
    except MisconfigurationException:  # accumulation that changes from epoch to epoch
        return math.inf
    return steps if steps >= 0 else math.inf


def rate_of(trainer: Trainer) -> float:
    """The learning rate of the first group of the first optimizer; 0 where there is none."""
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
    return float(groups[0]["lr"]) if groups else 0.0


def planned_rates(trainer: Trainer, epoch: int, done: int, steps: int) -> list[float]:
    """Learning rates of the next optimizer steps, of the first group of the first optimizer.

    The schedulers are copied onto an optimizer without parameters, and stepped as Lightning would;
    they, the optimizer and the global random states stay as they are. Takes some microseconds a
    step. A scheduler's own function that keeps count somewhere else would be disturbed.

    Args:
        epoch: the current one, from 0.
        done: batches of this epoch that have been trained, and for which schedulers have stepped.
        steps: how many rates.

    Raises:
        Unplanned: schedulers that step by hand, by a metric or in a way of the module's own, or
            that cannot be copied.
    """
    optimizer, module = trainer.optimizers[0], trainer.lightning_module
    configs = [
        config
        for config in trainer.lr_scheduler_configs
        if getattr(config.scheduler, "optimizer", optimizer) is optimizer
    ]
    if not configs:
        return [rate_of(trainer)] * steps
    if not module.automatic_optimization:
        raise Unplanned("in manual optimisation the module itself steps the schedulers")
    if any(config.reduce_on_plateau for config in configs):
        raise Unplanned("ReduceLROnPlateau waits for a metric")
    if is_overridden("lr_scheduler_step", module):
        raise Unplanned("the module has an lr_scheduler_step of its own")
    batches = trainer.num_training_batches
    if batches == float("inf") and any(c.interval != "step" for c in configs):
        raise Unplanned("the length of an epoch is not known")
    if done >= batches:
        epoch, done = epoch + 1, 0
    stand_in = _stand_in(optimizer)
    rates: list[float] = []
    failure: Exception | None = None
    # A scheduler may draw random numbers, and warns of an order of calls that is not the real one.
    with isolate_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            memo = {id(optimizer): stand_in, id(module): module, id(trainer): trainer}
            copies = [(config, copy.deepcopy(config.scheduler, memo)) for config in configs]
            while len(rates) < steps:
                done += 1
                last = done >= batches
                if last or done % trainer.accumulate_grad_batches == 0:
                    rates.append(float(stand_in.param_groups[0]["lr"]))
                    _step(copies, "step", done)
                if last:
                    epoch, done = epoch + 1, 0
                    _step(copies, "epoch", epoch)
        except Exception as error:  # held back: isolate_rng puts nothing back as one passes it
            failure = error
    if failure is not None:
        raise Unplanned(f"a scheduler cannot be copied and run ahead: {failure!r}") from failure
    return rates


def _step(copies: list[tuple[Any, Any]], interval: str, count: int) -> None:
    for config, scheduler in copies:
        if config.interval == interval and count % config.frequency == 0:
            scheduler.step()


def _stand_in(optimizer: Optimizer) -> SGD:
    """An optimizer with the same groups, of one parameter each that is nobody's."""
    stand_in = SGD([{"params": [torch.zeros(1)]} for _ in optimizer.param_groups], lr=0.1)
    for own, group in zip(stand_in.param_groups, optimizer.param_groups, strict=True):
        own.update({k: copy.deepcopy(v) for k, v in group.items() if k != "params"})
    return stand_in
