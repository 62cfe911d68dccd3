# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does the model know what it was not trained on? AUROC and FPR95 against rows of other data."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.feature_rows import feature_rows
from lightning_losses.callbacks.reading.gather import all_rows, num_row_ranks, row_rank
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.callbacks.replay.muted import muted
from lightning_losses.callbacks.replay.probe import Captured
from lightning_losses.callbacks.replay.training_state import TrainingState
from lightning_losses.contract import Contract
from lightning_losses.metrics.ood.scores import ClassGaussians, auroc, fpr_at_tpr
from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord

#: What makes rows and their softmax; of the rest of a step nothing is asked.
READ: tuple[str, ...] = (
    "logits",
    "hidden",
    "head",
    "head_weight",
    "head_bias",
    "logit_scale",
    "softcap",
)
READ += ("temperature", "class_range", "features", "mask", "target", "shift")
#: Columns of a kept row before its features.
SCORES = ("energy", "confidence")


class OODMonitor(EpochMonitor):
    """Logs ``ood/<score>_auroc`` and ``ood/<score>_fpr95`` after validation and test epochs.

    How well a score tells the rows of the epoch from those of another data set, which the model is
    not to know. AUROC is the chance that a row of the epoch has the higher score (1 is best, 0.5 is
    chance); FPR95 the share of other rows above the score that 95 % of the epoch's rows reach (0 is
    best). Scores, the higher the more a row is like the training data:

    - ``energy``: log sum exp of the logits (Liu et al., arXiv 2010.03759);
    - ``confidence``: the largest probability (Hendrycks and Gimpel, arXiv 1610.02136);
    - ``mahalanobis``: minus half the squared distance to the nearest class mean, one covariance
      for all (Lee et al., arXiv 1807.03888);
    - ``gmm``: the log-density of the mixture of these Gaussians.

    The first two need a softmax: logits, or hidden states and a head. The last two need
    ``features`` (or else ``hidden``) and class indices; their Gaussians are those of the epoch's
    rows, of one half for judging the other, for their own rows are always nearer. (The paper fits
    training rows; with few rows of many features raise ``max_rows`` or ``shrinkage``.)

    Other rows go through ``validation_step`` (``test_step`` after a test epoch) as far as its first
    ``compute_loss``, muted, and random numbers, buffers, metrics and attributes are put back.
    Targets of other rows are not read, but for rows of ``ignore_index`` and outside ``mask``,
    which are left out; a step that fails on them is reported, and training goes on. Rows of the
    epoch are those of its first dataloader that count. Nothing is kept between epochs. Over several
    ranks each takes its share of the loader's batches, unless the loader has a DistributedSampler.

    Args:
        loader: batches as ``validation_step`` takes them: a DataLoader or another iterable, or a
            function that makes one. None: what ``ood_dataloader()`` of the module, or of the
            datamodule, returns.
        max_rows: most rows that are kept of either side, over all ranks, on the CPU; evenly spaced.
        shrinkage: of the covariance, see `ClassGaussians`.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: fewer than two rows, a shrinkage that is not between 0 and 1.

    Examples:
        >>> noise = torch.utils.data.TensorDataset(torch.rand(64, 20), torch.zeros(64).long())
        >>> monitor = OODMonitor(torch.utils.data.DataLoader(noise, batch_size=32))
    """

    watches = ("logsumexp", "confidence", "features", "hidden", "target")
    identity = ("name",)

    def __init__(
        self,
        loader: Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
        max_rows: int = 5000,
        shrinkage: float = 1e-3,
        name: str = "ood",
    ) -> None:
        super().__init__()
        if max_rows < 2:
            raise ValueError(f"max_rows must be at least 2, got {max_rows}; write max_rows=5000.")
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must be from 0 to 1, got {shrinkage}.")
        self.loader, self.max_rows, self.shrinkage, self.name = loader, max_rows, shrinkage, name
        self._inside = StrideSample(max_rows)
        self._made: Iterable[Any] | None = None  # the loader of this run
        self._failed = False  # whether the step did, on the other data

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and have the records carry what is read here."""
        self._inside = self._sample(module.trainer)
        self.start_measuring(module)

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Keep rows of this batch."""
        if dataloader_idx:
            return
        record = self.new_record(module)
        if record is None:
            self.warn_once("this step did not call compute_loss, so there is nothing to read.")
            return
        _keep(self._inside, record)

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Run the other rows, compare on all ranks, which all come here, and log."""
        self.stop_measuring(module)
        inside, self._inside = self._inside, StrideSample(1)
        loader = self._loader(trainer, module)
        if loader is None:
            self.warn_once(
                "there is no other data: write OODMonitor(loader=DataLoader(...)), or give the "
                "module (or datamodule) a method ood_dataloader()."
            )
            return
        outside = self._outside(trainer, module, loader, stage)
        sides = []
        for kept in (inside, outside):
            side = all_rows(trainer, kept, self.max_rows, torch.float32)
            if isinstance(side, str):
                self.warn_once(f"nothing is measured: {side}.")
                return
            sides.append(side)
        (own, target), (other, _) = sides
        if not len(own) or not len(other):
            if not self._failed:  # else it was said why
                empty = "other data" if len(own) else "epoch"
                self.warn_once(f"the {empty} had no row that counts, so nothing is measured.")
            return
        values = self._compare(own.double(), target, other.double())
        self.publish_epoch(
            {f"{self.name}/{key}": value.float().to(module.device) for key, value in values.items()}
        )

    def _compare(self, own: Tensor, target: Tensor, other: Tensor) -> dict[str, Tensor]:
        """Measures by name, of rows of scores and features ``(N, 2 + D)``."""
        first = len(SCORES)
        pairs = {name: [(own[:, i], other[:, i])] for i, name in enumerate(SCORES)}
        x, y, z = own[:, first:], target, other[:, first:]
        if x.shape[1] and x.shape[1] == z.shape[1] and bool((y >= 0).any()):
            pairs |= self._gaussians(x, y, z)
        values = {}
        for name, sides in pairs.items():
            if any(not bool(side.isfinite().all()) for pair in sides for side in pair):
                continue  # what a row has not, or is not finite
            for key, measure in (("auroc", auroc), ("fpr95", fpr_at_tpr)):
                found = [measure(inside, outside) for inside, outside in sides]
                values[f"{name}_{key}"] = torch.stack(found).mean()
        if not values:
            self.warn_once(
                "neither logits of a softmax nor features with class indices are passed to "
                "compute_loss, or they are not finite, so nothing is measured."
            )
        return values

    def _gaussians(self, x: Tensor, y: Tensor, z: Tensor) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """Scores of each half of the rows, and of other data, by Gaussians of the other half."""
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {"mahalanobis": [], "gmm": []}
        for half in (0, 1):
            try:
                fitted = ClassGaussians(x[1 - half :: 2], y[1 - half :: 2], self.shrinkage)
            except ValueError as error:
                self.warn_once(f"{error} There is neither mahalanobis nor gmm.")
                return {}
            judged = x[half::2]
            pairs["mahalanobis"].append((fitted.mahalanobis(judged), fitted.mahalanobis(z)))
            pairs["gmm"].append((fitted.log_density(judged), fitted.log_density(z)))
        return pairs

    # -- the other data ----------------------------------------------------------------------

    def _loader(self, trainer: Trainer, module: LightningModule) -> Iterable[Any] | None:
        if self._made is None:
            given = self.loader
            for owner in (module, getattr(trainer, "datamodule", None)):
                if given is None:
                    given = getattr(owner, "ood_dataloader", None)
            self._made = given() if callable(given) else given
        return self._made

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the loader of this run."""
        super().teardown(trainer, pl_module, stage)
        self._made = None

    def _sample(self, trainer: Trainer) -> StrideSample:
        return StrideSample(max(1, self.max_rows // num_row_ranks(trainer)))

    def _outside(
        self, trainer: Trainer, module: LightningModule, loader: Iterable[Any], stage: str
    ) -> StrideSample:
        """Rows of the other data, of this rank."""
        kept, self._failed = self._sample(trainer), False
        # Before the loader is asked: to begin an epoch it draws a random number.
        training, state = module.training, TrainingState(module, trainer.strategy.root_device)
        module.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.val_step_context():
                for batch, counts in _share(trainer, loader):
                    named = _named(trainer, module, batch, stage)
                    if named is None:
                        self.warn_once(f"{stage} step reaches no compute_loss on the other data.")
                    elif counts:
                        _keep(kept, _record(named))
        except Exception as error:
            kept, self._failed = self._sample(trainer), True
            self.warn_once(
                f"the {stage} step fails on the other data, so nothing is measured "
                f"({type(error).__name__}: {error}). The loader must give batches as validation "
                "has them; compute_loss reads no target of theirs, the step before it may."
            )
        finally:
            state.put_back()
            module.train(training)
        self.mark_seen(module)
        return kept


def _share(trainer: Trainer, loader: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Batches of this rank, and whether they count; as many on every rank.

    A model that is split over ranks needs all of them in every pass: at the end a rank without a
    batch runs another's, which does not count.
    """
    ranks, rank = num_row_ranks(trainer), row_rank(trainer)
    limit = trainer.limit_test_batches if trainer.testing else trainer.limit_val_batches
    most = limit if isinstance(limit, int) else math.inf  # fast_dev_run makes it an integer
    if isinstance(getattr(loader, "sampler", None), DistributedSampler):
        ranks, rank = 1, 0
    own: Any = None
    last: Any = None
    place = -1
    for place, batch in enumerate(loader):
        if place >= most * ranks:
            return
        own = batch if place % ranks == rank else own
        if place % ranks == ranks - 1:
            yield own, True
        last = batch
    left = (place + 1) % ranks
    if left:
        yield (own, True) if rank < left else (last, False)


def _named(
    trainer: Trainer, module: LightningModule, batch: Any, stage: str
) -> dict[str, Any] | None:
    """What the step passes to its first ``compute_loss``."""
    found: list[dict[str, Any]] = []

    def capture(named: dict[str, Any]) -> None:
        found.append(named)
        raise Captured

    batch = trainer.precision_plugin.convert_input(batch)
    batch = trainer.strategy.batch_to_device(batch)
    name = "test_step" if stage == "test" else "validation_step"
    compiled = getattr(module, "_compiler_ctx", None) or {}
    # What Dynamo made of the step cannot be left by an exception; the original can.
    step = compiled.get(f"original_{name}", getattr(module, name))
    arguments = [batch]
    for index in ("batch_idx", "dataloader_idx"):
        if is_param_in_hook_signature(step, index, min_args=len(arguments) + 1):
            arguments.append(0)
    with muted(module, _capture=capture), contextlib.suppress(Captured):
        step(*arguments)
    return found[0] if found else None


class _OfSoftmax(nn.Module):
    """Stands for a loss where only the statistics are wanted."""

    scope, contract = "rows", Contract(target=("none",))

    def forward(self, logsumexp: Tensor) -> Tensor:
        return logsumexp * 0


class _OfFeatures(nn.Module):
    """The same without a softmax."""

    scope, contract = "rows", Contract(target=("none",), head="none")

    def forward(self, features: Tensor) -> Tensor:
        return features.flatten(1).sum(1) * 0


def _record(named: dict[str, Any]) -> LossRecord:
    """The record of a loss that asks nothing of the target."""
    named = {name: named[name] for name in READ if named.get(name) is not None}
    if not named.keys() & {"logits", "hidden", "features"}:
        raise ValueError("compute_loss gets neither logits, nor hidden states, nor features")
    softmax = "logits" in named or "hidden" in named
    objective = Objective({"none": _OfSoftmax() if softmax else _OfFeatures()})
    objective.watch("ood", *OODMonitor.watches)
    return objective(**named)  # type: ignore[no-any-return]


def _keep(kept: StrideSample, record: LossRecord) -> None:
    """Scores and features of the rows that count, and their classes, -1 for none."""
    stats, rows = record.stats, feature_rows(record)
    columns = [stats.logsumexp, stats.confidence] if record.head == "softmax" else [None, None]
    features, target = (None, None) if isinstance(rows, str) else rows[:2]
    there = next((c for c in (*columns, features) if c is not None), None)
    if there is None:
        return
    nothing = there.new_full((len(there),), torch.nan, dtype=torch.float32)
    scores = torch.stack([nothing if c is None else c.float() for c in columns], 1)
    if features is not None:
        scores = torch.cat([scores, features.float()], 1)
    if target is None:
        target = torch.full((len(scores),), -1, device=scores.device)
    if stats.valid is not None:
        scores, target = scores[stats.valid], target[stats.valid]
    kept.add(scores, target.clamp(min=-1))
