# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Has the model's confidence moved since the first validation? PSI of its histogram."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.alerts import Action, announce, check_action
from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.events import events, no_probabilities
from lightning_losses.metrics.calibration.fine_bins import arcsine_edges
from lightning_losses.metrics.calibration.histogram import ConfidenceHistogram
from lightning_losses.metrics.calibration.psi import pool, psi

BINS, CELLS = 1024, 10


class DriftMonitor(EpochMonitor):
    """Logs ``drift/psi`` of every validation and test epoch against a frozen first one.

    The population stability index (nats) between the confidences of the first validation epoch and
    those of this one, over the tenths of the first. By the usual rule 0.1 is a small shift and 0.25
    a large one; chance alone gives about 18 / N for N rows on either side, which is taken off
    before the comparison with ``threshold``. The first epoch itself logs nothing, so that a
    ModelCheckpoint or EarlyStopping on ``drift/psi`` finds no such key then: let it monitor another
    one, or give this callback its reference first, by ``trainer.validate``.

    From a model that is still learning, drift is expected. What this is for: attach it to a trained
    model (or resume from its checkpoint, which holds the reference) and validate on data that keeps
    coming. Counts valid rows of all dataloaders and ranks; targets are not read. Works on logits,
    and on hidden states and a head. Where the loss puts a sigmoid on each column (`bce`), the
    confidence is the probability of the event, and each label counts.

    Args:
        threshold: drift above this is announced, once until it was below again.
        action: how: ``log``, ``warn``, ``alert`` or ``stop``; see `announce`.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: a threshold that is not positive, or an unknown action.
    """

    watches = ("confidence", "logits")
    identity = ("name",)

    def __init__(
        self, threshold: float = 0.25, action: Action = "warn", name: str = "drift"
    ) -> None:
        super().__init__()
        if threshold <= 0:
            raise ValueError(f"threshold must be positive, got {threshold}; write threshold=0.25.")
        check_action("action", action)
        self.threshold, self.action, self.name = threshold, action, name
        self.reference: Tensor | None = None
        self.told = False
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
        """Freeze the first histogram of all ranks, which all come here; compare later ones."""
        self.stop_measuring(module)
        counts: Tensor = self._histogram.compute().cpu()
        if not int(counts.sum()):
            return
        if self.reference is None:
            if stage == "val":
                self.reference = counts.clone()
            return
        cell = pool(self.reference, CELLS)
        before, now = (
            torch.zeros(CELLS, dtype=torch.int64).index_add(0, cell, side)
            for side in (self.reference, counts)
        )
        shift = psi(before, now)
        self.publish_epoch({f"{self.name}/psi": shift.psi.float().to(module.device)})
        drifted = float(shift.psi - shift.bias) > self.threshold
        if drifted and not self.told:
            means = [float((h * _CENTRES).sum() / h.sum()) for h in (self.reference, counts)]
            announce(
                trainer,
                self.action,
                "Confidence has drifted",
                f"{self.name}: PSI of the confidences of this {stage} epoch against the reference "
                f"is {float(shift.psi):.3f} (threshold {self.threshold}); mean confidence went "
                f"from {means[0]:.3f} to {means[1]:.3f}. Look at what changed in the data, then "
                "at calibration, before trusting confidences.",
            )
        self.told = drifted

    def state_dict(self) -> dict[str, Any]:
        """The reference, and whether drift was announced."""
        return {"reference": self.reference, "told": self.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.reference, self.told = state_dict["reference"], state_dict["told"]


_EDGES = arcsine_edges(BINS)
_CENTRES = (_EDGES[1:] + _EDGES[:-1]) / 2
