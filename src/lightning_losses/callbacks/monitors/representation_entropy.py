# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does the representation collapse? Its diffusion spectral entropy, every validation epoch."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.feature_rows import FEATURES, feature_rows
from lightning_losses.callbacks.reading.gather import all_rows
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.metrics.representation.spectral_entropy import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
)


class RepresentationEntropyMonitor(EpochMonitor):
    """Logs ``representation_entropy/dse`` and ``dsmi`` (bits) of every validation and test epoch.

    Liao, Liu and others 2023 (arXiv 2312.04823). ``dse`` is how widely features spread, 0 where
    all are equal; ``dsmi`` is how much of that the class explains, and grows as classes separate.
    See `spectral_entropy` for formulas.

    Reads ``features`` (or else ``hidden``) of the rows that count, and class indices ``target``,
    without which there is no ``dsmi``; nor is there with fewer than two classes, or fewer than
    two rows a class. Evenly spaced rows of all dataloaders and ranks are used: at least
    ``max_rows / 2`` of many, the same in every run. Takes about a second for 1000 rows, O(N^3).
    Nothing is kept between epochs, so there is nothing to resume.

    Args:
        bandwidth: of the Gaussian kernel, in units of the features. None: the median distance
            between rows of this epoch, so that features which shrink alike keep their ``dse``. To
            see those too, give a number: the typical distance of an early epoch.
        t: power of the eigenvalues.
        max_rows: 2 to 1000.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: an option out of range.

    Examples:
        >>> monitor = RepresentationEntropyMonitor(max_rows=500)
    """

    watches = FEATURES
    identity = ("bandwidth", "t", "name")

    def __init__(
        self,
        bandwidth: float | None = None,
        t: float = 1.0,
        max_rows: int = 1000,
        name: str = "representation_entropy",
    ) -> None:
        super().__init__()
        if not t > 0 or (bandwidth is not None and not bandwidth > 0):
            raise ValueError(f"bandwidth and t must be positive, got {bandwidth} and {t}.")
        if not 2 <= max_rows <= 1000:
            raise ValueError(f"max_rows must be 2 to 1000, got {max_rows}.")
        self.bandwidth, self.t, self.max_rows, self.name = bandwidth, t, max_rows, name
        self._rows = StrideSample(max_rows)

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and have the records carry what is read here."""
        self._rows = StrideSample(self.max_rows)
        self.start_measuring(module)

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Keep some of the rows of the record that this batch left behind."""
        record = self.new_record(module)
        if record is None:
            self.warn_once("this step did not call compute_loss, so there is nothing to read.")
            return
        rows = feature_rows(record)
        if isinstance(rows, str):
            self.warn_once(rows)
            return
        features, target = rows.counted()
        if target is None:
            self.warn_once("needs class indices (N,) as target for dsmi; only dse is logged.")
            target = torch.full((len(features),), -1, device=features.device)
        self._rows.add(features, target)

    @torch.no_grad()
    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Bring the rows of all ranks together, which therefore all come here; log."""
        self.stop_measuring(module)
        rows = all_rows(trainer, self._rows, self.max_rows)
        self._rows = StrideSample(self.max_rows)
        if isinstance(rows, str) or len(rows[0]) < 2:
            why = rows if isinstance(rows, str) else "fewer than two rows of features were seen"
            self.warn_once(f"{why}, so nothing is logged.")
            return
        features, target = rows
        values = {"dse": diffusion_spectral_entropy(features, self.bandwidth, self.t)}
        classes = len(torch.unique(target)) if bool((target >= 0).all()) else 0
        if classes >= 2 and 2 * classes <= len(target):
            values["dsmi"] = diffusion_spectral_mutual_information(
                features, target, self.bandwidth, self.t
            )
        elif classes:
            self.warn_once(
                f"{len(target)} rows of {classes} classes say nothing of dsmi, which takes two "
                "classes and two rows each."
            )
        self.publish_epoch(
            {f"{self.name}/{k}": value.float().to(module.device) for k, value in values.items()}
        )
