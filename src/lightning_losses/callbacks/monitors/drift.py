# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Has the model's confidence moved since its training ended? PSI of its histogram."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_losses.callbacks.base.alerts import Action, announce, check_action
from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.events import events, no_probabilities
from lightning_losses.metrics.calibration.fine_bins import arcsine_edges
from lightning_losses.metrics.calibration.histogram import ConfidenceHistogram
from lightning_losses.metrics.calibration.psi import pool, psi

BINS, CELLS = 1024, 10
COUNTS = "rows in each of 1024 bins of confidence, arcsine edges"
WRITES = "Write the path of a drift_reference.json that a training with this callback has left."


class DriftMonitor(EpochMonitor):
    """Logs ``drift/psi``: the shift of the confidences against those at the end of training.

    The population stability index (nats) between the confidences of a reference epoch and those of
    this one, over the tenths of the reference. By the usual rule 0.1 is a small shift and 0.25 a
    large one; chance alone gives about 18 / N for N rows on either side (``drift/psi_chance``),
    which is taken off before the comparison with ``threshold``. ``drift/psi_standard_error`` is how
    far another sample of as many rows would be off (arXiv 2509.09855; too small where the shift is
    within chance).

    While a model learns its confidences move, as they should. So the validations of a training log
    nothing: each becomes the reference, and the last one stays. What comes after it, by
    ``trainer.validate`` and ``trainer.test``, on data that keeps coming, is compared. A training
    that ended some batches after its last validation (``max_steps``) has a model that no reference
    knows: then the first ``trainer.validate`` is the reference, and a ``trainer.test`` before it is
    not compared, which is said. Checkpoints hold the reference of their moment, and when training
    ends it is written beside the metrics, as ``drift_reference.json``. Give that file as
    ``reference`` where there is no checkpoint of this callback, or to compare a training that goes
    on with where it began: a given reference is never replaced, and training's own validations are
    compared with it as well. Without training and without a file the first epoch of
    ``trainer.validate`` is the reference.

    A ModelCheckpoint or EarlyStopping on ``drift/psi`` therefore needs a file. Counts valid rows of
    all dataloaders and ranks; targets are not read. Works on logits, and on hidden states and a
    head. Where the loss puts a sigmoid on each column (`bce`), the confidence is the probability of
    the event, and each label counts.

    Args:
        threshold: drift above this is announced, once until it was below again.
        action: how: ``log``, ``warn``, ``alert`` or ``stop``; see `announce`.
        reference: path of a file that this callback has written.
        name: first part of the logged names, and of the file's; give a second monitor another one.

    Raises:
        ValueError: a threshold that is not positive, an unknown action, or a file that holds no
            reference.
        OSError: a file that cannot be read.

    Examples:
        >>> monitor = DriftMonitor(threshold=0.25, action="warn")
    """

    watches = ("confidence", "logits")
    identity = ("name",)

    def __init__(
        self,
        threshold: float = 0.25,
        action: Action = "warn",
        reference: str | Path | None = None,
        name: str = "drift",
    ) -> None:
        super().__init__()
        if threshold <= 0:
            raise ValueError(f"threshold must be positive, got {threshold}; write threshold=0.25.")
        check_action("action", action)
        self.threshold, self.action, self.name = threshold, action, name
        self.given = reference is not None
        self.reference = None if reference is None else read_reference(Path(reference))
        self.told = False
        self._behind = False  # whether the model was trained on after the reference
        self._histogram = ConfidenceHistogram(BINS)

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and have the records carry confidences."""
        self._histogram = ConfidenceHistogram(BINS).to(module.device)
        self._histogram.update(torch.zeros(0, device=module.device))  # a rank may see no batch
        self.start_measuring(module)

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Count the confidences of this batch."""
        record = self.new_record(module)
        if record is None:
            self.warn_once("this step did not call compute_loss, so there is nothing to count.")
            return
        found, confidence = events(record), record.stats.confidence
        if found is not None:
            self._histogram.update(found.z.sigmoid().flatten(), found.known.flatten())
        elif confidence is not None:
            self._histogram.update(confidence, record.stats.valid)
        else:
            self.warn_once(no_probabilities(record, "nothing to count"))

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Compare the histogram of all ranks, which all come here, or keep it as the reference."""
        self.stop_measuring(module)
        counts: Tensor = self._histogram.compute().cpu()
        if not int(counts.sum()):
            return
        learning = trainer.state.fn == TrainerFn.FITTING or self._behind
        if self.reference is None or (learning and not self.given):
            if stage == "val":
                self.reference, self._behind = counts.clone(), False
                if trainer.state.fn != TrainerFn.FITTING:
                    self._write(trainer)
            elif self._behind:
                self.warn_once(
                    "the model was trained on after its last validation, so that this epoch has "
                    "no reference. Write trainer.validate(...) before trainer.test(...)."
                )
            return
        cell = pool(self.reference, CELLS)
        before, now = (
            torch.zeros(CELLS, dtype=torch.int64).index_add(0, cell, side)
            for side in (self.reference, counts)
        )
        shift = psi(before, now)
        values = {"": shift.psi, "_standard_error": shift.standard_error, "_chance": shift.bias}
        self.publish_epoch(
            {f"{self.name}/psi{k}": value.float().to(module.device) for k, value in values.items()}
        )
        drifted = float(shift.psi - shift.bias) > self.threshold
        if drifted and not self.told:
            means = [float((h * _CENTRES).sum() / h.sum()) for h in (self.reference, counts)]
            announce(
                trainer,
                self.action,
                "Confidence has drifted",
                f"DriftMonitor: PSI of the confidences of this {stage} epoch against the reference "
                f"is {float(shift.psi):.3f} (threshold {self.threshold}); mean confidence went "
                f"from {means[0]:.3f} to {means[1]:.3f}. Look at what changed in the data, then "
                "at calibration, before trusting confidences.",
            )
        self.told = drifted

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """From here on the reference is of an earlier model."""
        self._behind = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the reference for those who come without a checkpoint."""
        super().on_train_end(trainer, pl_module)
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self.given or self.reference is None or self._folder is None:
            return
        if trainer.is_global_zero:
            path = self._folder / f"{self.name.replace('/', '_')}_reference.json"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({COUNTS: self.reference.tolist()}), encoding="utf-8")
            except OSError as error:
                self.warn_once(f"{path.name} cannot be written ({error}); training goes on.")

    def state_dict(self) -> dict[str, Any]:
        """The reference, of which model it is, and whether drift was announced."""
        return {"reference": self.reference, "behind": self._behind, "told": self.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.told, self._behind = state_dict["told"], state_dict.get("behind", False)
        if not self.given:
            self.reference = state_dict["reference"]


def read_reference(path: Path) -> Tensor:
    """The histogram ``(1024,)`` int64 that a training has left in a file.

    Raises:
        ValueError: if the file holds anything else.
        OSError: if it cannot be read.
    """
    try:
        counts = torch.tensor(json.loads(path.read_text(encoding="utf-8"))[COUNTS])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is no reference of DriftMonitor: {error}. {WRITES}") from error
    whole = counts.dtype == torch.int64 and counts.shape == (BINS,)
    if not whole or int(counts.min()) < 0 or not int(counts.sum()):
        text = f"{path} is no reference of DriftMonitor: {BINS} counts of rows were asked for. "
        raise ValueError(text + WRITES)
    return counts


_EDGES = arcsine_edges(BINS)
_CENTRES = (_EDGES[1:] + _EDGES[:-1]) / 2
