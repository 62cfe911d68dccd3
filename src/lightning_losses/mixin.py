# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`LossMixin`: what a LightningModule adds to train on an objective with one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lightning_losses.distributed import ranks_of_strategy
from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord
from lightning_losses.schedules import Constant

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Base
    from lightning.pytorch import Trainer
else:
    _Base = object  # first among the bases of the user's module, which brings LightningModule


class LossMixin(_Base):
    """Adds `compute_loss` to a LightningModule that holds an `Objective` as ``self.loss``.

    Where a base class has a ``loss`` of its own, hold it under another name, and say which by the
    class attribute ``objective_name``. No ``__init__``, no overridden hook, nothing in the
    ``state_dict``.

    Examples:
        >>> import lightning as L
        >>> class Classifier(LossMixin, L.LightningModule):
        ...     def __init__(self, net, loss):
        ...         super().__init__()
        ...         self.net, self.loss = net, loss
        ...
        ...     def training_step(self, batch, _):
        ...         x, y = batch
        ...         return self.compute_loss(logits=self.net(x), target=y)
        >>> model = Classifier(torch.nn.Linear(4, 3), build_objective("ce"))
        >>> model.training_step((torch.zeros(2, 4), torch.tensor([0, 1])), 0).requires_grad
        True
    """

    if TYPE_CHECKING:
        loss: Objective

    objective_name: ClassVar[str] = "loss"
    """The attribute that holds the objective."""

    def compute_loss(
        self,
        logits: Tensor | None = None,
        target: Tensor | None = None,
        *,
        name: str | None = None,
        objective: Objective | None = None,
        **named: Any,
    ) -> Tensor:
        """Evaluate the objective on named tensors, log it, and return the total with graph.

        Works in automatic and manual optimisation, in training, validation and test steps, under
        Fabric, and several times a step. Logged are ``{stage}/loss``, the raw values
        ``{stage}/loss/{term}``, ``{stage}/weight/{term}`` where it moves, and
        ``{stage}/diagnostics/{term}/{name}``, what losses tell beside their value.

        Values of validation and test epochs are sums over sums: every term's numerators over its
        divisors (rows that count, class weights, ...) of all batches and ranks, so that they do not
        depend on how rows were split. Of several calls without a name in one step the last is
        logged, in every stage; give each a ``name``, and each is logged by itself. Where a
        ``normalizer`` is passed, what is logged is the mean over the rows that count nevertheless.

        Args:
            logits: ``(..., C)``; or ``hidden=`` and ``head_weight=``.
            target: ``(...)`` class indices, real values, or soft targets.
            name: tells calls in one step apart: logged are ``{stage}/{name}/loss`` and so on, and
                the record is ``self.loss_records[name]``.
            objective: evaluated instead of the module's own.
            **named: see `lightning_losses.named_tensors`.

        Raises:
            TypeError: if there is no Objective.
            ValueError: see `Objective.forward`.
        """
        if name is not None and not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(
                f"A call of compute_loss cannot be called {name!r}: write a word of letters, "
                "digits and _, as in name='generator'."
            )
        if logits is not None:
            named["logits"] = logits
        if target is not None:
            named["target"] = target
        capture: Callable[[dict[str, Any]], None] | None = self.__dict__.get("_capture")
        if capture is not None:
            capture(named)
        if objective is None:
            objective = getattr(self, self.objective_name, None)
        if not isinstance(objective, Objective):
            raise self._no_objective(objective)
        if objective.reads_module:
            named.setdefault("module", self)
        self._start_step(objective)
        record: LossRecord = objective(**named)
        self._publish(record, objective, name)
        return record.total

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All trainable parameters for an optimizer, those of losses with own options apart.

        ``torch.optim.AdamW(self.parameter_groups(), lr=1e-3)``; a term's options come from its
        ``optimizer``, such as ``loss.proxy.optimizer.lr=0.1``.
        """
        terms = getattr(self, self.objective_name).named_terms()
        own = [(list(t.loss.parameters()), t.optimizer) for _, t in terms]
        own = [(parameters, options) for parameters, options in own if parameters and options]
        apart = {id(p) for parameters, _ in own for p in parameters}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        return [{"params": rest}] + [{"params": p, **options} for p, options in own]

    @property
    def loss_record(self) -> LossRecord | None:
        """The record of the last `compute_loss`, without graph; what monitors read."""
        return self.__dict__.get("_loss_record")

    @property
    def loss_records(self) -> dict[str, LossRecord]:
        """The records of the last step that called `compute_loss` with each name."""
        records: dict[str, LossRecord] = self.__dict__.get("_loss_records", {})
        return records

    def _no_objective(self, found: object) -> TypeError:
        attribute, kind = self.objective_name, type(found).__name__
        owner = next((k for k in type(self).__mro__ if attribute in vars(k)), None)
        if owner is not None:
            return TypeError(
                f"compute_loss evaluates self.{attribute}, but {attribute!r} is taken: the class "
                f"{owner.__name__} has a {kind} of that name. Keep the objective elsewhere, as in "
                "self.objective = build_objective('ce'), and write objective_name = 'objective' in "
                "your class, or compute_loss(..., objective=self.objective)."
            )
        return TypeError(
            f"compute_loss evaluates self.{attribute}, which must be an Objective; found {kind}. "
            f"Write self.{attribute} = build_objective('ce'); to compile it, "
            f"self.{attribute}.compile(). If a base class needs self.{attribute} for something "
            "else, keep the objective under another name, and write objective_name = 'NAME' in "
            "your class, or compute_loss(..., objective=...)."
        )

    # Compiled code must neither log (torch 2.13 with lightning 2.6.6 crashes) nor trace schedules.
    @torch.compiler.disable
    def _start_step(self, objective: Objective) -> None:
        trainer = self._trainer
        if trainer is not None:
            objective.set_step(trainer.global_step)
        owner = trainer if trainer is not None else self._fabric
        if owner is None:
            objective.find_group(None)
            return
        objective.find_group(ranks_of_strategy(owner.strategy))
        if torch.is_grad_enabled() and _leaves_parameters_alone(owner.strategy):
            objective.keep_parameters_equal()

    @torch.compiler.disable
    def _publish(self, record: LossRecord, objective: Objective, call: str | None) -> None:
        record = record.detach()
        self.__dict__["_loss_record"] = record  # past nn.Module.__setattr__: no state of the user's
        if call is not None:
            self.__dict__.setdefault("_loss_records", {})[call] = record
        trainer = self._trainer
        if trainer is not None and trainer.training:  # a size of the run, for laws over runs
            rows: dict[str | None, int] = self.__dict__.setdefault("_training_rows", {})
            rows[call] = rows.get(call, 0) + record.num_rows
        mute = trainer is None or trainer.barebones or trainer.predicting
        in_hook = not mute and self._current_fx_name
        if not in_hook and self._fabric is None:
            return
        stage = self._stage()
        prefix = stage if call is None else f"{stage}/{call}"
        if trainer is not None and stage != "train" and record.divisors:
            self._publish_epoch(trainer, record, prefix, objective.group)
            return

        def log(name: str, value: Tensor, prog_bar: bool = False) -> None:
            self.log(
                f"{prefix}/{name}",
                value,
                prog_bar=prog_bar,
                batch_size=max(1, record.num_rows),
                # In training the record holds the global value already.
                sync_dist=stage != "train",
            )

        total, terms = record.total, record.means
        if total.ndim or record.divisors:  # values of rows, or divided by the caller's normalizer
            total = torch.stack([record.weights[n].to(v) * v for n, v in terms.items()]).sum()
        log("loss", total, prog_bar=True)
        for name, value in terms.items():
            log(f"loss/{name}", value)
        for name, value in record.diagnostics.items():
            log(f"diagnostics/{name}", value)
        for name, term in objective.named_terms() if stage == "train" else ():
            if term.scale != 1.0 or not isinstance(term.schedule, Constant):
                log(f"weight/{name}", record.weights[name].to(torch.float32, copy=True))

    def _publish_epoch(self, trainer: Trainer, record: LossRecord, prefix: str, group: Any) -> None:
        """Add up what makes the values of a validation or test epoch, and have it logged."""
        # Late, because the metrics take a while to import, and training alone needs none.
        from lightning_losses.metrics.epoch_mean import EpochMean

        loop = _evaluation_loop(trainer)
        means: dict[Any, EpochMean] = self.__dict__.setdefault("_epoch_means", {})
        one = {name: torch.ones(()) for name in (*record.terms, *record.diagnostics)}
        values = {"loss": (tuple(record.terms), record.weights)}
        values |= {f"loss/{name}": ((name,), one) for name in record.terms}
        values |= {f"diagnostics/{name}": ((name,), one) for name in record.diagnostics}
        for name, (terms, weights) in values.items():
            key = f"{prefix}/{name}", terms, loop._results.dataloader_idx
            if key not in means:
                means[key] = EpochMean(terms, record.num_valid.device, group)
            batch = loop.batch_progress.total.ready
            means[key].update(record.numerators, record.divisors, weights, batch)
            # Lightning syncs, computes and resets it, at the end of the epoch.
            self.log(key[0], means[key], prog_bar=name == "loss", metric_attribute=key[0])

    def _stage(self) -> str:
        trainer = self._trainer
        if trainer is None:
            return "train" if self.training else "val"
        if trainer.testing:
            return "test"
        return "val" if trainer.validating or trainer.sanity_checking else "train"


def _evaluation_loop(trainer: Trainer) -> Any:
    """The loop that runs a validation or a test now."""
    if trainer.testing:
        return trainer.test_loop
    fitting = trainer.state.fn == "fit"
    return trainer.fit_loop.epoch_loop.val_loop if fitting else trainer.validate_loop


def _leaves_parameters_alone(strategy: Any) -> bool:
    """Whether nobody averages gradients of what the user has not wrapped."""
    from lightning.fabric.strategies.model_parallel import ModelParallelStrategy as OfFabric
    from lightning.pytorch.strategies import ModelParallelStrategy

    return isinstance(strategy, (ModelParallelStrategy, OfFabric))
