# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Who pays for the mean? Loss, accuracy and calibration by group of rows, over every epoch."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.csv_table import folder_of
from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.gather import gather, num_row_ranks
from lightning_losses.callbacks.reading.logits import FEW_LOGITS, logits_of_few
from lightning_losses.callbacks.reading.module_tree import objectives_of
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.metrics.groups.by_group import (
    Groups,
    by_group,
    js_distance,
    quantile_bins,
    worst_group,
)
from lightning_losses.record import LossRecord

MEASURES = ("loss", "entropy", "accuracy", "confidence")
COLUMNS = ("stage", "epoch", "group", "lower", "upper", "count", *MEASURES)

#: Classes whose mean prediction is kept by group at most.
MAX_CLASSES = 1024
#: Rows that are kept for quantile bins at most, on each rank.
MAX_ROWS = 1_000_000


class LossByMonitor(EpochMonitor):
    """Logs ``loss_by/<stage>/...`` by value of a named tensor, over validation and test epochs.

    ``by`` is any named tensor with one number a row: ``group_id``, ``target`` (a group a class), or
    a name of your own, such as ``domain``, ``timestep``, ``position`` or ``length``, passed to
    ``compute_loss``. Of each group the mean over its rows of the negative log-likelihood of the
    target (nats), the entropy of the prediction (nats), accuracy and confidence (fractions; their
    difference is the group's calibration gap). Over the rows that count, with a ``sample_weight``
    other than 0, of all batches and ranks.

    - ``loss_by/<stage>/worst_loss`` and ``worst_accuracy``: of the group that has the largest loss,
      and the least accuracy, among groups of at least ``min_count`` rows. They are in
      ``callback_metrics``: ``EarlyStopping("loss_by/val/worst_loss")`` stops on the worst group;
    - ``gap`` and ``gap_to_best``: the worst loss less the mean over rows, and less the best;
    - ``worst_calibration``: the largest absolute gap of confidence and accuracy of a group;
    - ``js_distance``: the largest Jensen-Shannon distance between the mean predictions of two
      groups (root, base 2, in [0, 1]), where the step passes ``logits`` of at most 1,024 classes;
    - ``loss/<group>`` and ``accuracy/<group>``: of the first ``most`` groups.

    All groups are in ``table`` (rows of the last epoch, on every rank), and in ``loss_by.csv``
    beside the metrics. Real numbers are grouped by value, or with ``bins`` into as many quantile
    bins, of up to a million evenly spaced rows a rank, named ``bin_0`` and so on.

    Args:
        by: the named tensor.
        bins: quantile bins; null groups by value.
        min_count: rows of a group that may be named the worst.
        most: groups that have curves of their own.
        name: first part of the logged names, and the file's; give a second monitor another one.

    Examples:
        >>> by_group = LossByMonitor(by="group_id")
        >>> by_length = LossByMonitor(by="length", bins=4, name="loss_by_length")
    """

    watches = (
        "log_prob", "entropy", "confidence", "prediction", "target", "sample_weight",
        *FEW_LOGITS,
    )  # fmt: skip
    identity = ("by", "bins", "name")

    def __init__(
        self,
        by: str = "group_id",
        bins: int | None = None,
        min_count: int = 10,
        most: int = 12,
        name: str = "loss_by",
    ) -> None:
        super().__init__()
        if (bins is not None and bins < 2) or min_count < 1 or most < 0:
            raise ValueError(
                "loss_by needs bins of at least 2 or null, min_count of at least 1 and most of at "
                f"least 0, got {bins}, {min_count} and {most}."
            )
        self.by, self.bins, self.min_count, self.most, self.name = by, bins, min_count, most, name
        self.watches = (*self.watches, by)  # type: ignore[misc, assignment]
        self.table: list[dict[str, Any]] = []
        self._groups: list[Groups] = []
        self._predictions: list[Groups] = []
        self._rows = StrideSample(MAX_ROWS)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read ``by`` in every step: a name that nobody reads would be taken for a misspelt one."""
        super().setup(trainer, pl_module, stage)
        for objective in objectives_of(pl_module):
            objective.watch(f"{self.state_key}/by", self.by)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        for objective in objectives_of(pl_module):
            objective.watch(f"{self.state_key}/by")

    def start(self, module: LightningModule, dataloaders: int) -> None:
        self._groups, self._predictions, self._rows = [], [], StrideSample(MAX_ROWS)
        self.start_measuring(module)

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        record = self.new_record(module)
        found = None if record is None else self._read(record)
        if record is None or found is None:
            return
        value, rows, keep = found
        value, rows = value[keep], rows[keep]
        if self.bins is not None:
            finite = value.isfinite()
            self._rows.add(value[finite].double(), rows[finite])
            return
        if value.is_floating_point():
            whole = value == value.round()
            if not bool(whole.all()):
                self.warn_once(f"{self.by} holds real numbers: write bins=10 for quantile bins.")
                return
        self._groups.append(by_group(value, rows))
        logits = logits_of_few(record, MAX_CLASSES)
        if logits is not None:
            self._predictions.append(by_group(value, logits[keep].softmax(1)))

    def _read(self, record: LossRecord) -> tuple[Tensor, Tensor, Tensor] | None:
        """The number that groups, measures ``(N, 4)``, rows that count; None, having said why."""
        stats, target, value = record.stats, record.captured.get("target"), None
        value = record.captured.get(self.by)
        if not isinstance(value, Tensor) or value.numel() != record.num_rows:
            self.warn_once(
                f"needs {self.by}, one number a row, and this step passes none: write "
                f"self.compute_loss(logits=..., target=..., {self.by}=...)."
            )
            return None
        each = (stats.log_prob, stats.entropy, stats.confidence, stats.prediction)
        if any(x is None for x in each) or not isinstance(target, Tensor) or target.ndim != 1:
            self.warn_once(
                "needs logits (N, C) (or hidden and head_weight) and class indices (N,) as target; "
                "this step has none, so nothing is logged."
            )
            return None
        log_prob, entropy, confidence, prediction = (x for x in each if x is not None)
        rows = torch.stack(
            [-log_prob, entropy, (prediction == target).to(entropy), confidence], 1
        ).double()
        keep = torch.ones_like(target, dtype=torch.bool) if stats.valid is None else stats.valid
        keep = keep & rows.isfinite().all(1)
        weight = record.captured.get("sample_weight")
        if isinstance(weight, Tensor):
            keep = keep & (weight.reshape(-1) != 0)
        return value.detach().reshape(-1), rows.detach(), keep

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.stop_measuring(module)
        folder = folder_of(trainer)  # all ranks ask
        edges: Tensor | None = None
        if self.bins is not None:
            empty = (torch.zeros(0).double(), torch.zeros(0, len(MEASURES)).double())
            parts = [empty, *self._rows.parts()]
            value, rows = (gather(trainer, torch.cat([p[i] for p in parts])) for i in range(2))
            if not len(value):
                return
            edges, place = quantile_bins(value, self.bins)
            groups = by_group(place, rows)
        else:
            groups = together(trainer, self._groups, len(MEASURES))
        if not len(groups.ids):
            return
        means = dict(zip(MEASURES, groups.means.unbind(1), strict=True))
        names = [f"bin_{i}" if edges is not None else str(i) for i in groups.ids.tolist()]
        values: dict[str, float] = {}
        loss = worst_group(means["loss"], groups.count, self.min_count)
        wrong = worst_group(-means["accuracy"], groups.count, self.min_count)
        off = worst_group(
            (means["confidence"] - means["accuracy"]).abs(), groups.count, self.min_count
        )
        if loss is not None and wrong is not None and off is not None:
            values |= {"worst_loss": loss.value, "gap": loss.to_mean, "gap_to_best": loss.to_best}
            values |= {"worst_accuracy": -wrong.value, "worst_calibration": off.value}
        else:
            self.warn_once(f"no group has {self.min_count} rows, so none is named the worst.")
        distance = self._distance(trainer)
        if distance is not None:
            values["js_distance"] = distance
        for i, group in enumerate(names[: self.most]):
            values |= {f"{m}/{group}": float(means[m][i]) for m in ("loss", "accuracy")}
        self.publish_epoch({f"{self.name}/{stage}/{key}": v for key, v in values.items()})
        self.table = []
        for i, group in enumerate(names):
            at = int(groups.ids[i])
            span = (float(edges[at]), float(edges[at + 1])) if edges is not None else (
                float(at), float(at))  # fmt: skip
            measured = (float(means[m][i]) for m in MEASURES)
            row = (stage, trainer.current_epoch, group, *span, int(groups.count[i]), *measured)
            self.table.append(dict(zip(COLUMNS, row, strict=True)))
        if folder is not None and trainer.is_global_zero:
            self.save_table(folder / f"{self.name.replace('/', '_')}.csv", COLUMNS, self.table, 2)

    def _distance(self, trainer: Trainer) -> float | None:
        """The largest distance between mean predictions of groups with enough rows."""
        classes = self._predictions[0].sums.shape[1] if self._predictions else 0
        widths = gather(trainer, torch.tensor([classes]))
        classes = int(widths.max())
        if not classes or any(w not in (0, classes) for w in widths.tolist()):
            return None
        same = [one for one in self._predictions if one.sums.shape[1] == classes]
        groups = together(trainer, same, classes)
        means = groups.means[groups.count >= self.min_count][:64]  # pairs of them are many
        pairs = list(combinations(range(len(means)), 2))
        if not pairs:
            return None
        a, b = torch.tensor(pairs).unbind(1)
        return float(js_distance(means[a], means[b], 2.0).max())


def together(trainer: Trainer, parts: list[Groups], columns: int) -> Groups:
    """Groups of batches, of all ranks, which must all come here."""
    zeros = torch.zeros(0, dtype=torch.float64)
    ids = torch.cat([torch.zeros(0).long(), *(p.ids for p in parts)])
    count = torch.cat([zeros, *(p.count for p in parts)])
    sums = torch.cat([torch.zeros(0, columns, dtype=torch.float64), *(p.sums for p in parts)])
    own = by_group(ids, sums, count)
    if num_row_ranks(trainer) == 1:
        return own
    return by_group(gather(trainer, own.ids), gather(trainer, own.sums), gather(trainer, own.count))
