# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Is the model as often right as it says? Calibration over every validation and test epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.monitor import RecordReader
from lightning_losses.callbacks.table import write_table
from lightning_losses.metrics import StreamingCalibration

LOGGED = (
    "ece",
    "ece_equal_mass",
    "smece_fixed",
    "over",
    "under",
    "gap",
    "brier",
    "nll",
    "auroc_correctness",
    "accuracy",
)
COLUMNS = ("stage", "epoch", "lower", "upper", "count", "confidence", "accuracy")


class CalibrationMonitor(RecordReader):
    """Logs ``calibration/<stage>/<measure>`` at the end of every validation and test epoch.

    The measures are those of `StreamingCalibration`, over the rows that count of all batches and
    ranks: ``ece``, ``ece_equal_mass``, ``smece_fixed``, its parts ``over`` and ``under``, ``gap``
    (confidence minus accuracy), ``accuracy`` and ``auroc_correctness`` (fractions), ``brier`` (in
    [0, 2]), ``nll`` (nats). The stage is ``val`` or ``test``; from the second dataloader on
    ``val/dataloader_idx_1`` and so on. A measure that is undefined (``auroc_correctness`` when all
    rows are right; everything when no row counts) is not logged that epoch.

    The bins behind a reliability diagram are kept in ``table`` (rows of the last epoch, a dict
    each, on every rank) and, if the run has a logger with a folder, written to
    ``<trainer.log_dir>/reliability.csv``, one table a stage and epoch (the last, if an epoch is
    validated several times).

    Needs class indices as ``target``; without them it says so once and does nothing. The sanity
    check is skipped. The last ``compute_loss`` of a step counts. A DistributedSampler repeats rows
    to make ranks even, and those count twice. Nothing is kept between epochs, so there is nothing
    to resume.

    Args:
        bins: equal-width bins of ``ece`` and of the table.
        name: first part of the logged names, and of the file's name if it is not ``calibration``;
            give a second monitor another one.
    """

    watches = ("log_prob", "collision", "confidence", "prediction", "target")

    def __init__(self, bins: int = 15, name: str = "calibration") -> None:
        super().__init__()
        self.bins, self.name = bins, name
        self.table: list[dict[str, Any]] = []
        self._metrics = [StreamingCalibration(bins)]  # one a dataloader

    @property
    def state_key(self) -> str:
        """Unique for the arguments, so that two monitors of one class can live together."""
        return self._generate_state_key(bins=self.bins, name=self.name)

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and have the records carry what is read here."""
        self._metrics = []
        for _ in range(max(dataloaders, 1)):
            metric = StreamingCalibration(self.bins).to(module.device)
            nothing = torch.zeros(0, device=module.device)
            metric.update(nothing, nothing)  # or torchmetrics warns of a rank without batches
            self._metrics.append(metric)
        self.watch(module, True)

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Count the rows of the record that this batch left behind."""
        record = self.new_record(module)
        if record is None:
            self.say_once("this step did not call compute_loss, so there is nothing to count.")
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
            self.say_once(
                "needs logits (N, C) (or hidden and head_weight) and class indices (N,) as target; "
                "this step has none, so nothing is logged."
            )
            return
        brier = (1 - 2 * stats.log_prob.exp() + stats.collision).clamp(min=0)
        self._metrics[dataloader_idx].update(
            stats.confidence, stats.prediction == target, -stats.log_prob, brier, stats.valid
        )

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Reduce over ranks, which therefore all come here; log, and write the table."""
        self.watch(module, False)
        # log_dir is a broadcast, so it is asked for before anything that only rank zero does.
        folder = trainer.log_dir if trainer.loggers else None
        self.table = []
        for index, metric in enumerate(self._metrics):
            label = f"{stage}/dataloader_idx_{index}" if index else stage
            values, bins = metric.compute(), metric.reliability()
            if not int(values["count"]):
                continue
            if nan_rows := int(values["nan_rows"]):
                self.say_once(f"{nan_rows} rows of {label} hold NaN and were left out.")
            # What is undefined is so on every rank, because the values are those of all ranks.
            known = {key: values[key].float() for key in LOGGED if not values[key].isnan()}
            self.log_dict(
                {f"{self.name}/{label}/{key}": value for key, value in known.items()},
                batch_size=1,
                sync_dist=True,  # equal already; without it Lightning advises to set it
                add_dataloader_idx=False,  # it is in the label
            )
            rows = zip(*(bins[key].tolist() for key in COLUMNS[2:]), strict=True)
            self.table += [
                dict(zip(COLUMNS, (label, trainer.current_epoch, *row), strict=True))
                for row in rows
            ]
        if folder and self.table and trainer.is_global_zero:
            suffix = "" if self.name == "calibration" else f"_{self.name.replace('/', '_')}"
            self._write(str(folder), f"reliability{suffix}.csv")

    def _write(self, folder: str, file: str) -> None:
        if "://" in folder:
            self.say_once(f"reliability.csv is only written to a local folder, not to {folder}.")
            return
        write_table(Path(folder, file), COLUMNS, self.table, key=2)

    # -- when: confidence on data that is being fitted says little, so training is left out ------

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, unless this is the sanity check."""
        if not trainer.sanity_checking:
            self.start(pl_module, len(trainer.num_val_batches))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count this batch."""
        if not trainer.sanity_checking:
            self.add(pl_module, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log this epoch."""
        if not trainer.sanity_checking:
            self.report(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self.start(pl_module, len(trainer.num_test_batches))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count this batch."""
        self.add(pl_module, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log this epoch."""
        self.report(trainer, pl_module, "test")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no request with the objective when a run is cut off within an epoch."""
        self.watch(pl_module, False)
