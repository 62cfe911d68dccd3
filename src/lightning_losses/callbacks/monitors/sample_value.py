# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which training samples are hard, forgotten, or perhaps wrong? Scores by ``sample_index``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.deferred_reads import DeferredReads
from lightning_losses.callbacks.base.monitor import RecordReader
from lightning_losses.callbacks.reading.feature_rows import feature_rows
from lightning_losses.callbacks.reading.gather import gather, summed
from lightning_losses.callbacks.reading.logits import RECORD_LOGITS, record_logits
from lightning_losses.callbacks.reading.training_plan import rate_of
from lightning_losses.metrics.sample_value.history import SampleHistory
from lightning_losses.metrics.sample_value.scores import (
    el2n,
    errors,
    last_layer_norm,
    margin,
    mean_gradient,
    tracin,
)
from lightning_losses.record import LossRecord

COLUMNS = (
    "rank", "sample_index", "target", "prediction", "el2n", "aum", "grad_norm", "influence",
    "forgotten", "learned", "presentations",
)  # fmt: skip
#: What suspects may be sorted by, and whether the largest are the suspects.
ORDERS = {"aum": False, "el2n": True, "grad_norm": True, "forgotten": True, "influence": False}


#: Batches whose scores are computed at once: a step pays for few small kernels.
TOGETHER = 64


class Batch(NamedTuple):
    """What a step leaves behind: copies, for whoever made the tensors may use them again."""

    whole: Tensor
    """``(3, N)``: index (-1 does not count), target, prediction."""
    real: dict[str, int]
    """Row of ``values`` by name; what the step does not have is missing."""
    values: Tensor
    """``(K, N)``."""


def rows_of(batches: Sequence[Batch]) -> Tensor:
    """``(N, 8)``: index, right, target, prediction and the four sums."""

    def joined(name: str) -> Tensor:
        parts = [
            one.values[one.real[name]] if name in one.real else one.values[0] * torch.nan
            for one in batches
        ]
        return double(torch.cat(parts))

    def double(x: Tensor) -> Tensor:  # on the CPU where the device has no float64
        return (x.cpu() if x.device.type == "mps" else x).double()

    index, target, prediction = double(torch.cat([one.whole for one in batches], 1))
    log_prob = joined("log_prob")
    error = el2n(log_prob, joined("collision"))
    columns = (
        torch.where(log_prob.isfinite(), index, -1), (prediction == target).double(), target,
        prediction, error, joined("aum"), error * joined("length"), joined("effect"),
    )  # fmt: skip
    return torch.stack(columns, 1)


class SampleValueMonitor(RecordReader):
    """Follows every training sample through its presentations; the step passes ``sample_index``.

    Of each sample, over all its presentations so far: the mean ``el2n`` (length of the error of the
    probabilities), the mean margin of its logit over the others, ``aum``, events of ``forgotten``,
    and where the step passes ``features`` (or ``hidden``) the mean length of its gradient at the
    last layer, ``grad_norm``. Sources and limits are in `metrics.sample_value.scores`.

    **What this cannot tell**: a high score is of a sample that is hard, or rare, or wrongly
    labelled. Ranks differ from seed to seed; EL2N is meant for the first epochs, and the margin for
    those before the learning rate first falls. It is a list to look through, not to delete by.

    At the end of each training epoch it writes the ``most`` most suspect samples to
    ``sample_value.csv`` beside the metrics, sorted by ``order``, keeps all in ``table``, and logs
    ``sample_value/el2n`` (mean over samples), ``sample_value/aum``, ``sample_value/forgotten``
    (share of samples that were forgotten at least once) and ``sample_value/never_learned`` (share
    that was never right).

    With ``influence`` it also adds up learning rate times the inner product of the sample's
    gradient with the mean gradient of the last validation epoch, both of the last layer: the
    approximation of TracIn whose checkpoints are the steps (positive helps validation). It needs
    ``logits`` and ``features`` in both stages, and costs a product of N x C x D a step.

    Nothing is read from the device in a step: what steps leave is put together every 64 of them and
    sent to the host, a few numbers a row, to be read when the epoch ends. Memory grows with the
    largest index. Ranks exchange their rows at the end of an epoch; a sample that a sampler repeats
    counts twice. The state is in checkpoints. Needs class indices as ``target``; of hidden states
    and a head alone there is no ``aum``.

    Args:
        order: what the suspects are sorted by: ``aum``, ``el2n``, ``grad_norm``, ``forgotten`` or
            ``influence``.
        most: suspects in the file.
        influence: see above.
        name: first part of the logged names, and the file's; give a second monitor another one.

    Examples:
        >>> monitor = SampleValueMonitor(order="aum", most=100)
    """

    watches = (
        "log_prob", "collision", "prediction", "target", "sample_index", "features", "hidden",
        *RECORD_LOGITS,
    )  # fmt: skip
    identity = ("name",)

    def __init__(
        self,
        order: str = "aum",
        most: int = 100,
        influence: bool = False,
        name: str = "sample_value",
    ) -> None:
        super().__init__()
        if order not in ORDERS or most < 1:
            raise ValueError(
                f"order must be one of {', '.join(ORDERS)} and most at least 1, got {order!r} and "
                f"{most}."
            )
        if order == "influence" and not influence:
            raise ValueError("order='influence' needs influence=True.")
        self.order, self.most, self.influence, self.name = order, most, influence, name
        self.history = SampleHistory()
        self.table: dict[str, Tensor] = {}
        self._measuring = False
        self._batches: list[Batch] = []  # of the last steps, on their device
        self._waiting: DeferredReads[None] = DeferredReads()  # rows, on their way to the host
        self._gradient: Tensor | None = None  # of the last validation epoch
        self._sums: list[tuple[Tensor, int]] = []

    def reset(self) -> None:
        super().reset()
        self.history, self.table = SampleHistory(), {}
        self._batches, self._waiting = [], DeferredReads()
        self._gradient, self._sums = None, []

    # -- training ----------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Ask the records to keep what is read, of every step from here to the next validation."""
        if not self._measuring:
            self.start_measuring(pl_module)
            self._measuring = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation need not keep it; what it leaves is no step of training."""
        super().on_validation_start(trainer, pl_module)
        self._stop(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no request with the objective."""
        super().on_train_end(trainer, pl_module)
        self._stop(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Nor when a run is cut off."""
        super().on_exception(trainer, pl_module, exception)
        self._measuring = False

    def _stop(self, module: LightningModule) -> None:
        if self._measuring:
            self.stop_measuring(module)
            self._measuring = False

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the numbers of this batch, on its device."""
        record = self.new_record(pl_module)
        batch_rows = None if record is None else self._read(record, rate_of(trainer))
        if batch_rows is not None:
            self._batches.append(batch_rows)
            if len(self._batches) >= TOGETHER:
                self._settle()

    def _read(self, record: LossRecord, rate: float) -> Batch | None:
        """What is kept of a step: as little arithmetic as can be, for there are many steps."""
        stats, captured = record.stats, record.captured
        index, target = captured.get("sample_index"), captured.get("target")
        if not isinstance(index, Tensor):
            self.warn_once(
                "needs sample_index (N,), the index of each sample in its data set: write "
                "self.compute_loss(..., sample_index=i), and have the data set return i."
            )
            return None
        if (
            stats.log_prob is None
            or stats.collision is None
            or stats.prediction is None
            or not isinstance(target, Tensor)
            or target.ndim != 1
            or target.is_floating_point()
        ):
            self.warn_once(
                "needs logits (N, C) (or hidden and head_weight) and class indices (N,) as target; "
                "this step has none, so nothing is kept."
            )
            return None
        # Rows that do not count may have a label that is no class.
        if stats.valid is not None:
            index, target = torch.where(stats.valid, index, -1), torch.where(stats.valid, target, 0)
        logits, features = record_logits(record), _features(record)
        if logits is None and self.order == "aum":
            self.warn_once(
                "hidden states and a head, or logits that are split by classes over ranks, tell no "
                "aum; suspects are sorted by el2n instead. Write order='el2n'."
            )
        values = {"log_prob": stats.log_prob.detach(), "collision": stats.collision.detach()}
        if logits is not None and logits.shape[1] > 1:
            values["aum"] = margin(logits, target)
        if features is not None:
            values["length"] = last_layer_norm(1.0, features)
        if self.influence and logits is not None and features is not None:
            values["effect"] = torch.zeros_like(values["log_prob"])
            if self._gradient is not None:
                gradient = self._gradient.to(features)
                effect = tracin(errors(logits, target).to(features), features, gradient)
                values["effect"] = rate * effect
        return Batch(
            torch.stack([index, target, stats.prediction]),
            {name: row for row, name in enumerate(values)},
            torch.stack([*values.values()]),
        )

    def _settle(self) -> None:
        """Make rows of the batches that wait, all at once, and send them to the host."""
        if self._batches:
            self._waiting.put(None, rows_of(self._batches))
            self._batches = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take in the epoch, on every rank; log, and write the suspects."""
        self._settle()
        empty = torch.zeros(0, 8, dtype=torch.float64)
        rows = gather(trainer, torch.cat([empty, *self._waiting.tensors()]))
        rows = rows[rows[:, 0] >= 0]
        whole = rows[:, :4].long()
        self.history.add(whole[:, 0], whole[:, 1] > 0, rows[:, 4:], whole[:, 2], whole[:, 3])
        if len(rows):
            self._report(trainer)
        super().on_train_epoch_end(trainer, pl_module)

    def _report(self, trainer: Trainer) -> None:
        table = self.table = self.history.table()
        share = {
            "el2n": table["el2n"].mean(),
            "forgotten": (table["forgotten"] > 0).double().mean(),
            "never_learned": (table["learned"] == 0).double().mean(),
        }
        if not bool(table["aum"].isnan().all()):
            share["aum"] = table["aum"].nanmean()
        self.publish(trainer, {f"{self.name}/{key}": float(v) for key, v in share.items()})
        if self._folder is None or not trainer.is_global_zero:
            return
        rows = [
            {"rank": rank, **{name: table[name][place].item() for name in COLUMNS[1:]}}
            for rank, place in enumerate(self.suspects(), 1)
        ]
        path = self._folder / f"{self.name.replace('/', '_')}.csv"
        self.save_table(path, COLUMNS, rows, key=1)

    def suspects(self) -> list[int]:
        """Rows of ``table`` of the most suspect samples, the most suspect first."""
        score = self.table[self.order].double()
        if bool(score.isnan().all()):
            score = -self.table["el2n"] if not ORDERS[self.order] else self.table["el2n"]
        score = -score if ORDERS[self.order] else score
        order = score.nan_to_num(nan=torch.inf).argsort(stable=True)
        return order[: self.most].tolist()

    # -- validation: the gradient that training samples are held against ---------------------------

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if there is something to be held against."""
        self._sums = []
        if self.influence and not trainer.sanity_checking:
            self.start_measuring(pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the gradient of this batch."""
        if not self.influence or trainer.sanity_checking:
            return
        record = self.new_record(pl_module)
        logits = None if record is None else record_logits(record)
        features = None if record is None else _features(record)
        if record is None or logits is None or features is None:
            self.warn_once("influence needs logits and features in validation too; it stays 0.")
            return
        target = record.captured["target"]
        valid = torch.ones_like(target).bool() if record.stats.valid is None else record.stats.valid
        error = errors(logits[valid], target[valid]).to(features)
        self._sums.append((mean_gradient(error, features[valid]) * len(error), len(error)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Their mean over all ranks, which all come here."""
        if not self.influence or trainer.sanity_checking:
            return
        self.stop_measuring(pl_module)
        # A rank without a batch knows no shape, and must still come along.
        own = self._sums[0][0].shape if self._sums else (0, 0)
        classes, width = gather(trainer, torch.tensor([[*own]])).amax(0).tolist()
        if not classes:
            return
        total = torch.zeros(classes, width, device=pl_module.device)
        for part, _ in self._sums:
            total += part
        count = torch.tensor(float(sum(n for _, n in self._sums)), device=pl_module.device)
        total, count = summed(trainer, total), summed(trainer, count)
        self._gradient, self._sums = total / count.clamp(min=1), []

    def state_dict(self) -> dict[str, Any]:
        """All samples, and what an unfinished epoch has left."""
        self._settle()
        waiting = self._waiting.tensors()
        for rows in waiting:
            self._waiting.put(None, rows)
        gradient = None if self._gradient is None else self._gradient.cpu()
        return {"history": self.history.state_dict(), "waiting": waiting, "gradient": gradient}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.history.load_state_dict(state_dict["history"])
        self._batches, self._waiting, self._gradient = [], DeferredReads(), state_dict["gradient"]
        for rows in state_dict["waiting"]:
            self._waiting.put(None, rows)


def _features(record: LossRecord) -> Tensor | None:
    rows = feature_rows(record)
    return None if isinstance(rows, str) else rows.features.detach().float()
