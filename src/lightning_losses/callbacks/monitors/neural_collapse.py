# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do features collapse to one point a class? NC1 to NC4 over every validation epoch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.feature_rows import FEATURES, feature_rows
from lightning_losses.callbacks.reading.gather import row_ranks, stacked, summed
from lightning_losses.callbacks.reading.module_tree import matching_parameter
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.distributed import is_on_mesh
from lightning_losses.metrics.representation.class_moments import nearest_centre
from lightning_losses.metrics.representation.neural_collapse import NeuralCollapse
from lightning_losses.metrics.sync import GatherState
from lightning_losses.record import LossRecord
from lightning_losses.softmax import ClassRange

LOGGED = ("nc1", "nc2_norms", "nc2_angles", "nc2_etf", "nc3")
SAMPLE = 2048
LARGEST = 1 << 25  # numbers in the state: 256 MiB of float64


class NeuralCollapseMonitor(EpochMonitor):
    """Logs ``neural_collapse/<measure>`` at the end of every validation and test epoch.

    Papyan, Han and Donoho 2020 (arXiv 2008.08186); all are 0 at full collapse. ``nc1`` spread
    within classes against that between them, ``nc2_norms``, ``nc2_angles`` and ``nc2_etf``
    uneven lengths and angles of class means, ``nc3`` class weights against class means, ``nc4``
    the fraction of rows where the prediction is not the class of the nearest mean. Formulas:
    `neural_collapse`; means are centred at the mean of
    the class means.

    Reads ``features`` (or else ``hidden``), class indices ``target`` and the softmax's prediction;
    all rows that count, of all batches, dataloaders and ranks. ``nc1`` to ``nc3`` are exact and
    stream; ``nc4`` holds the class means of this epoch, all rows of it, against up to 2048 evenly
    spaced rows a rank, which makes its standard error at most 0.011. ``nc3`` needs the head: the
    step's ``head_weight``, or a parameter by name. Classes without rows do not take part; what is
    undefined is not logged, and what is missing is said once.

    The phenomenon is one of training rows. ``stage="train"`` measures those, in training epochs
    instead, but across the updates of an epoch, in training mode; for the model as it is at the
    end, give the trainer the training rows as a validation dataloader. Nothing is kept between
    epochs, so there is nothing to resume; a training epoch resumed in the middle is measured from
    there on.

    Args:
        head: name of the ``(C, D)`` weight among ``module.named_parameters()``, or a pattern that
            one name matches, such as ``"*head.weight"``. None: ``head_weight`` of the step, or no
            ``nc3``.
        stage: ``val`` (and test) or ``train``.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: another word for ``stage``.

    Examples:
        >>> monitor = NeuralCollapseMonitor(head="net.head", stage="train")
    """

    watches = (*FEATURES, "prediction", "head_weight", "logits", "class_range")
    identity = ("stage", "name")

    def __init__(
        self,
        head: str | None = None,
        stage: Literal["val", "train"] = "val",
        name: str = "neural_collapse",
    ) -> None:
        super().__init__()
        if stage not in ("val", "train"):
            raise ValueError(f"stage is {stage!r}; write 'val' or 'train'.")
        self.head, self.stage, self.name = head, stage, name
        self._metric: NeuralCollapse | None = None
        self._sample = StrideSample(SAMPLE)
        self._weight: Tensor | None = None  # of the step
        self._held: ClassRange | None = None  # the classes that it is of

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and have the records carry what is read here."""
        if (self.stage == "train") == module.trainer.training:
            self._metric, self._weight, self._sample = None, None, StrideSample(SAMPLE)
            self.start_measuring(module)

    @torch.no_grad()
    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Count the rows of the record that this batch left behind."""
        if (self.stage == "train") != module.trainer.training:
            return
        record = self.new_record(module)
        if record is None:
            self.warn_once("this step did not call compute_loss, so there is nothing to count.")
            return
        rows, prediction = feature_rows(record), record.stats.prediction
        if isinstance(rows, str):
            self.warn_once(rows)
            return
        classes = _classes(record)
        if rows.target is None or prediction is None or classes is None:
            self.warn_once("needs class indices (N,) as target and logits (N, C); there are none.")
            return
        if self._metric is None:
            width = rows.features.shape[1]
            if (classes + width) * width > LARGEST:
                self.warn_once(
                    f"{classes} classes of {width} features are too many to hold, so nothing is "
                    "measured. Pass narrower features."
                )
                return
            sync = GatherState(row_ranks(module.trainer))
            self._metric = NeuralCollapse(classes, width, dist_sync_fn=sync).to(module.device)
        if rows.features.shape[1] != self._metric.features:
            self.warn_once("features of different lengths in one epoch; only the first count.")
            return
        self._metric.update(rows.features, rows.target, rows.valid)
        keep = rows.features.isfinite().all(1) & (rows.target >= 0)
        keep = keep if rows.valid is None else keep & rows.valid
        self._sample.add(rows.features[keep], prediction[keep])
        part = record.captured.get("slices", {}).get("head_weight")
        weight = record.captured.get("head_weight", part)
        self._weight = weight.detach() if isinstance(weight, Tensor) else None
        self._held = record.captured.get("class_range")

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Reduce over ranks, which therefore all come here, and log."""
        if (self.stage == "train") != (stage == "train"):
            return
        self.stop_measuring(module)
        metric, self._metric = same_metric(trainer, self._metric, module.device), None
        if metric is None:
            return
        if isinstance(metric, str):
            self.warn_once(metric)
            return
        weight = self._head_weight(trainer, module)
        if weight is not None and weight.shape != (metric.classes, metric.features):
            self.warn_once(
                f"the head's weight is {tuple(weight.shape)}, not (classes, features) = "
                f"{(metric.classes, metric.features)}, so there is no nc3."
            )
            weight = None
        measures = metric.compute(weight)
        if skipped := int(measures["skipped"]):
            self.warn_once(f"{skipped} rows of features are not finite and were left out.")
        count, mean = measures["class_count"], measures["class_mean"]
        values = {key: measures[key] for key in LOGGED if key in measures}
        if not values:
            self.warn_once(
                f"{int((count > 0).sum())} classes had rows, and it takes two whose means differ, "
                "so nothing is logged."
            )
            return
        values["nc4"] = mismatch(trainer, self._sample, mean, count)
        self._sample = StrideSample(SAMPLE)
        named = {f"{self.name}/{k}": value.float().to(module.device) for k, value in values.items()}
        if stage == "train":
            self.publish(trainer, named)
        else:
            self.publish_epoch(named)

    def _head_weight(self, trainer: Trainer, module: LightningModule) -> Tensor | None:
        """The step's weight, or the parameter that was named; None, having said why."""
        if self.head is not None:
            parameter = matching_parameter(module, self.head)
            if is_on_mesh(parameter):
                whole: Tensor = parameter.full_tensor()  # type: ignore[union-attr]
                return whole.detach()
            if isinstance(parameter, Tensor):
                return parameter
            self.warn_once(f"{parameter}; there is no nc3.")
            return None
        there = torch.tensor([self._weight is not None], device=trainer.strategy.root_device)
        there = stacked(trainer, there)  # a rank without batches has none, and keys must be equal
        if bool(there.all()):
            if self._held is None or self._weight is None:
                return self._weight
            return self._held.whole(self._weight.t()).t()  # as large as the means of all classes
        self.warn_once(
            "without head_weight in the step there is no nc3; write "
            "NeuralCollapseMonitor(head='head.weight')."
        )
        return None

    # -- training epochs, which `EpochMonitor` leaves out -----------------------------------------

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if training rows are what is asked for."""
        if self.stage == "train":
            self.start(pl_module, 1)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count this batch."""
        if self.stage == "train":
            self.add(pl_module, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log this epoch."""
        if self.stage == "train":
            self.report(trainer, pl_module, "train")
        super().on_train_epoch_end(trainer, pl_module)


def _classes(record: LossRecord) -> int | None:
    """How many classes the softmax is over."""
    logits, weight = record.captured.get("logits"), record.captured.get("head_weight")
    if (held := record.captured.get("class_range")) is not None:
        return int(held.num_classes)
    if isinstance(logits, Tensor):
        return logits.shape[1] if logits.ndim == 2 else None
    return len(weight) if isinstance(weight, Tensor) else None


def same_metric(
    trainer: Trainer, metric: NeuralCollapse | None, device: torch.device
) -> NeuralCollapse | str | None:
    """The metric, an empty one on a rank that saw no rows; None if no rank saw any.

    Every rank must come here. A text says what is wrong: sizes that differ between ranks.
    """
    sizes = [0, 0] if metric is None else [metric.classes, metric.features]
    every = stacked(trainer, torch.tensor(sizes, device=trainer.strategy.root_device))
    sizes = every.amax(0).tolist()
    seen = every[every[:, 0] > 0]
    if bool((seen != seen[:1]).any()):
        return "ranks have features of different shapes, so nothing is measured."
    if metric is None and sizes[0]:
        sync = GatherState(row_ranks(trainer))
        metric = NeuralCollapse(sizes[0], sizes[1], dist_sync_fn=sync).to(device)
        nothing = torch.zeros(0, sizes[1], device=device)
        metric.update(nothing, nothing[:, 0].long())  # or torchmetrics warns
    return metric


def mismatch(trainer: Trainer, sample: StrideSample, mean: Tensor, count: Tensor) -> Tensor:
    """NC4 of the kept ``(features, prediction)`` of all ranks, which must all come here.

    The fraction whose prediction is not the class of the nearest mean, 0-dim float64.
    """
    rows = torch.zeros(2, dtype=mean.dtype, device=mean.device)
    for features, prediction in sample.parts():
        nearest = nearest_centre(features.to(mean.device), mean, count)
        rows[0] += (nearest != prediction.to(mean.device)).sum()
        rows[1] += len(prediction)
    rows = summed(trainer, rows)
    return rows[0] / rows[1].clamp(min=1)
