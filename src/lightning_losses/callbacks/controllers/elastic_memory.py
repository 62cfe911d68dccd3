# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`ElasticMemory`: at the end of a task, measures what the `Elastic` penalty is to hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_losses.callbacks.base.monitor import RecordReader
from lightning_losses.callbacks.reading.gather import summed
from lightning_losses.callbacks.replay.muted import muted
from lightning_losses.callbacks.replay.probe import Captured
from lightning_losses.callbacks.replay.training_state import TrainingState
from lightning_losses.metrics.importance.fisher import Kind, Sample, check_kind, fisher_diagonal
from lightning_losses.softmax import final_logits, make_problem


class ElasticMemory(RecordReader):
    """When a fit ends, gives every `Elastic` term the Fisher information of its task.

    A task is a fit: ``trainer.fit(module, first)``, then a new trainer with the same module and the
    next data, and so on; the term carries the memory from one to the next, and checkpoints hold it.
    The importance of a parameter is the mean over samples of the squared gradient of the *sample's*
    log-likelihood: ``training_step`` is run on one sample after another, in evaluation mode, as far
    as ``compute_loss``, whose ``logits`` are read (or hidden states and head). Squaring gradients
    of batches instead, as several codes do, gives about 1 / batch of it.

    It is done ``samples`` times on each rank, evenly from the first batches of the training loader,
    sums and numbers are added over ranks. A task on which the model is sure of every row has next
    to no importance, whatever was learned: look at ``elastic_memory/importance``, the sum over all
    parameters. The end of a fit that was interrupted is no end of a task.

    Args:
        samples: of the training set, on each rank; 256 at least for a steady diagonal.
        kind: whose labels, see `fisher_diagonal`: ``true`` (a backward pass a class), ``sampled``,
            ``empirical`` or ``predicted``.
        name: first part of the logged name.

    Raises:
        ValueError: when the fit begins, an objective without `Elastic` term.

    Examples:
        >>> memory = ElasticMemory(samples=512, kind="sampled")  # beside a term `Elastic`
    """

    identity = ("name",)

    def __init__(
        self, samples: int = 512, kind: Kind = "sampled", name: str = "elastic_memory"
    ) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}.")
        check_kind(kind)
        self.samples, self.kind, self.name = samples, kind, name

    def _terms(self, module: LightningModule) -> list[Any]:
        objective = self.objective(module)
        terms = [] if objective is None else [term.loss for _, term in objective.named_terms()]
        return [loss for loss in terms if hasattr(loss, "remember")]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complain while it is cheap."""
        if not self._terms(pl_module):
            raise ValueError(
                "ElasticMemory gives its memory to a term of the objective, and there is none: "
                "write +loss=elastic."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, on every rank, and let the terms remember."""
        if not trainer.interrupted:
            for term in self._terms(pl_module):
                self._remember(trainer, pl_module, term)
        super().on_train_end(trainer, pl_module)

    def _remember(self, trainer: Trainer, module: LightningModule, term: Any) -> None:
        parameters = dict(term.named(module))
        training, state = module.training, TrainingState(module, trainer.strategy.root_device)
        module.eval()
        try:
            with torch.enable_grad():
                total, count = fisher_diagonal(
                    parameters, self._samples(trainer, module), self.kind
                )
        finally:
            state.put_back()
            module.train(training)
        number = torch.full((), float(count), device=trainer.strategy.root_device)
        number = summed(trainer, number)
        total = {name: summed(trainer, value) for name, value in total.items()}
        if not float(number):
            self.warn_once("no training_step reached compute_loss, so nothing is remembered.")
            return
        fisher = {name: value / number for name, value in total.items()}
        term.remember(module, fisher)
        importance = torch.stack([value.sum() for value in fisher.values()]).sum()
        self.publish(trainer, {f"{self.name}/importance": importance})

    def _samples(self, trainer: Trainer, module: LightningModule) -> Iterator[Sample]:
        """Log-probabilities of one sample after another, with graph."""
        left = self.samples
        for batch in trainer.train_dataloader or ():
            batch = trainer.strategy.batch_to_device(batch)
            for place in range(min(_length(batch), left)):
                # Not `lambda t: t[place]`, which would drop the dimension that steps expect.
                one = apply_to_collection(batch, Tensor, _Row(place))
                named = self._named(module, one)
                if named is None:
                    return
                yield _log_probabilities(named)
                left -= 1
            if left <= 0:
                return

    def _named(self, module: LightningModule, batch: Any) -> dict[str, Any] | None:
        """What the step passes to its first ``compute_loss``."""
        found: list[dict[str, Any]] = []

        def capture(named: dict[str, Any]) -> None:
            found.append(named)
            raise Captured

        with muted(module, _capture=capture), contextlib.suppress(Captured):
            module.training_step(batch, 0)
        return found[0] if found else None


class _Row:
    """One row of a tensor that has the batch's rows."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor[self.place : self.place + 1] if tensor.ndim else tensor


def _length(batch: Any) -> int:
    """Rows of a batch: of its first tensor that has any."""
    lengths: list[int] = []
    apply_to_collection(batch, Tensor, lambda t: lengths.append(len(t)) if t.ndim else None)
    return lengths[0] if lengths else 0


def _log_probabilities(named: dict[str, Any]) -> Sample:
    """Of the rows that count."""
    logits = named.get("logits")
    if logits is None:
        if "hidden" not in named or named.get("head_weight") is None:
            raise ValueError("ElasticMemory needs logits, or hidden and head_weight, in the step.")
        logits = named["hidden"] @ named["head_weight"].mT
        if named.get("head_bias") is not None:
            logits = logits + named["head_bias"]
    read = named.get
    problem = make_problem(
        logits=logits.reshape(-1, logits.shape[-1]),
        logit_scale=read("logit_scale", 1.0),
        softcap=read("softcap"),
        temperature=read("temperature"),
    )
    log_p, target = final_logits(problem).log_softmax(1), read("target")
    if not isinstance(target, Tensor) or target.is_floating_point():
        return log_p, None
    target = target.reshape(-1)
    keep = target >= 0
    return log_p[keep], target[keep]
