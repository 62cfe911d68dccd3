# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Is the model as often right as it says? Calibration over every validation and test epoch."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.csv_table import folder_of
from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.events import Events, event_nll, events
from lightning_losses.callbacks.reading.gather import largest, row_ranks
from lightning_losses.callbacks.reading.logits import FEW_LOGITS, logits_of_few
from lightning_losses.metrics import StreamingCalibration
from lightning_losses.metrics.calibration.classwise import ClasswiseCalibration
from lightning_losses.metrics.sync import GatherState

LOGGED = (
    "ece",
    "ece_equal_mass",
    "ece_debiased",
    "ece_classwise",
    "mce",
    "rmsce",
    "over",
    "under",
    "gap",
    "brier",
    "brier_reliability",
    "brier_resolution",
    "brier_uncertainty",
    "nll",
    "ks",
    "smece",
    "smece_fixed",
    "aurc",
    "augrc",
    "auroc_correctness",
    "accuracy",
)
#: Of events: what is logged under another name, and what has no meaning of them.
EVENT_NAMES = {"accuracy": "event_rate", "auroc_correctness": "auroc", "aurc": "", "augrc": ""}
COLUMNS = ("stage", "epoch", "lower", "upper", "count", "confidence", "accuracy")


class CalibrationMonitor(EpochMonitor):
    """Logs ``calibration/<stage>/<measure>`` at the end of every validation and test epoch.

    The measures are those of `StreamingCalibration` and `ClasswiseCalibration`, over the rows that
    count of all batches and ranks, as listed in `LOGGED`: calibration errors (fractions), ``gap``
    (confidence minus accuracy), ranking of right above wrong, ``brier`` (in [0, 2]) and the parts
    of the Brier score of "the prediction is right", ``nll`` (nats), ``accuracy``. ``ece_classwise``
    needs the step's ``logits`` (not just hidden and head_weight) and at most 100 classes, and is
    left out elsewhere. The stage is ``val`` or ``test``; from the second dataloader on
    ``val/dataloader_idx_1`` and so on. A measure that is undefined (``auroc_correctness`` when all
    rows are right; everything when no row counts) is not logged that epoch.

    Where the loss puts a sigmoid on each column (`bce`), every label of every row is an event, and
    the confidence is its probability: ``gap`` is mean probability minus ``event_rate``, ``auroc``
    ranks what happened above what did not, ``brier`` is in [0, 1], and ``accuracy``, ``aurc`` and
    ``augrc`` are left out. Labels that are neither 0 nor 1 do not count.

    The bins behind a reliability diagram are kept in ``table`` (rows of the last epoch, a dict
    each, on every rank) and, if the run has a logger with a folder, written to
    ``<trainer.log_dir>/reliability.csv``, one table a stage and epoch (the last, if an epoch is
    validated several times).

    Needs class indices as ``target``, or events; without them it says so once and does nothing.
    The sanity check is skipped. The last ``compute_loss`` of a step counts. A DistributedSampler
    repeats rows to make ranks even, and those count twice. Nothing is kept between epochs, so there
    is nothing to resume.

    Args:
        bins: equal-width bins of ``ece`` and of the table.
        name: first part of the logged names, and of the file's name if it is not ``calibration``;
            give a second monitor another one.

    Examples:
        >>> monitor = CalibrationMonitor(bins=15)
    """

    watches = ("log_prob", "collision", "confidence", "prediction", "target", *FEW_LOGITS)
    identity = ("bins", "name")

    def __init__(self, bins: int = 15, name: str = "calibration") -> None:
        super().__init__()
        self.bins, self.name = bins, name
        self.table: list[dict[str, Any]] = []
        self._metrics = [StreamingCalibration(bins)]  # one a dataloader
        self._classwise = [ClasswiseCalibration(bins=bins)]
        self._of_events = False

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and have the records carry what is read here."""
        self._metrics, self._classwise, self._of_events = [], [], False
        sync = GatherState(row_ranks(module.trainer))
        for _ in range(max(dataloaders, 1)):
            metric = StreamingCalibration(self.bins, dist_sync_fn=sync).to(module.device)
            classwise = ClasswiseCalibration(bins=self.bins, dist_sync_fn=sync).to(module.device)
            nothing = torch.zeros(0, device=module.device)
            metric.update(nothing, nothing)  # or torchmetrics warns of a rank without batches
            classwise.update(nothing[:, None], nothing.long())
            self._metrics.append(metric)
            self._classwise.append(classwise)
        self.start_measuring(module)

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Count the rows of the record that this batch left behind."""
        record = self.new_record(module)
        if record is None:
            self.warn_once("this step did not call compute_loss, so there is nothing to count.")
            return
        found = events(record)
        if found is not None:
            self._add_events(found, dataloader_idx)
            return
        stats, target = record.stats, record.captured.get("target")
        if (
            stats.confidence is None
            or stats.prediction is None
            or stats.log_prob is None
            or stats.collision is None
            or not isinstance(target, Tensor)
            or target.ndim != 1
        ):
            self.warn_once(
                "needs logits (N, C) (or hidden and head_weight) and class indices (N,) as target; "
                "this step has none, so nothing is logged."
            )
            return
        brier = (1 - 2 * stats.log_prob.exp() + stats.collision).clamp(min=0)
        self._metrics[dataloader_idx].update(
            stats.confidence, stats.prediction == target, -stats.log_prob, brier, stats.valid
        )
        classwise = self._classwise[dataloader_idx]
        logits = logits_of_few(record, classwise.max_classes)
        if logits is not None:
            classwise.update(logits.softmax(1), target, stats.valid)

    def _add_events(self, found: Events, dataloader_idx: int) -> None:
        """Count every label whose answer is known."""
        z, target, known = found
        if target is None:
            self.warn_once("needs a target that says which events happened; nothing is logged.")
            return
        self._of_events = True
        known = known & ((target == 0) | (target == 1))
        p = z.sigmoid()
        brier = (p - target).square()
        values = (p, target, event_nll(z, target), brier, known)
        self._metrics[dataloader_idx].update(*(value.flatten() for value in values))
        classwise = self._classwise[dataloader_idx]
        if z.shape[1] <= classwise.max_classes:
            classwise.update(p, target, known)

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Reduce over ranks, which therefore all come here; log, and write the table."""
        self.stop_measuring(module)
        folder = folder_of(trainer)  # all ranks ask
        self.table = []
        kind = torch.tensor(float(self._of_events), device=module.device)
        kind = largest(trainer, kind)  # a rank may have seen no batch
        names = EVENT_NAMES if bool(kind) else {}
        for index, metric in enumerate(self._metrics):
            label = f"{stage}/dataloader_idx_{index}" if index else stage
            values, bins = metric.compute(), metric.reliability()
            values["ece_classwise"] = self._classwise[index].compute()["ece_classwise"]
            if not int(values["count"]):
                continue
            if nan_rows := int(values["nan_rows"]):
                self.warn_once(f"{nan_rows} rows of {label} hold NaN and were left out.")
            # What is undefined is so on every rank, because the values are those of all ranks.
            known = {key: values[key].float() for key in LOGGED if not values[key].isnan()}
            known = {names.get(key, key): value for key, value in known.items()}
            self.publish_epoch({f"{self.name}/{label}/{k}": v for k, v in known.items() if k})
            rows = zip(*(bins[key].tolist() for key in COLUMNS[2:]), strict=True)
            self.table += [
                dict(zip(COLUMNS, (label, trainer.current_epoch, *row), strict=True))
                for row in rows
            ]
        if folder is not None and self.table and trainer.is_global_zero:
            suffix = "" if self.name == "calibration" else f"_{self.name.replace('/', '_')}"
            self.save_table(folder / f"reliability{suffix}.csv", COLUMNS, self.table, key=2)
