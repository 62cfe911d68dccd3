# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`PostHocCalibration`: fits a map from logits to probabilities that can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.calibrators import (
    Calibrator,
    CorrectnessAware,
    DirichletScaling,
    HistogramBinning,
    Isotonic,
    TemperatureScaling,
    VectorScaling,
)
from lightning_losses.callbacks.base.epoch_monitor import EpochMonitor
from lightning_losses.callbacks.reading.gather import all_rows, num_row_ranks
from lightning_losses.callbacks.reading.logits import FEW_LOGITS, record_logits
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.metrics import StreamingCalibration, top_label

METHODS: dict[str, Callable[[], Calibrator]] = {
    "temperature": TemperatureScaling,
    "vector": VectorScaling,
    "dirichlet": DirichletScaling,
    "isotonic": Isotonic,
    "histogram": HistogramBinning,
    "correctness_aware": CorrectnessAware,
}


class PostHocCalibration(EpochMonitor):
    """Fits a calibrator on the logits of every validation epoch; the model is left as it is.

    Logs ``post_hoc/val/{ece_before,ece_after}`` (fractions), ``post_hoc/val/{nll_before,
    nll_after}`` (nats) and, for ``method="temperature"``, ``post_hoc/temperature``. The numbers
    after are cross-fitted: each half of the rows (even and odd ones) is judged by a calibrator of
    the other half, for on its own rows a flexible one always looks good. The calibrator that is
    kept is then fitted on all rows. A test epoch judges it on test rows, as ``post_hoc/test/...``.

    The newest calibrator is in every checkpoint, and back after ``trainer.predict(model,
    ckpt_path=...)`` or any other run from it with this callback attached. Use it by hand,
    ``callback.calibrate(logits)``, or let ``apply=True`` calibrate what ``predict_step`` returns:
    a dict with ``logits`` gets ``probabilities`` beside them; a tensor of logits is overwritten
    with probabilities, because Lightning takes no other one from a callback (so return a tensor
    that nothing else uses; half precision rounds them). Anything else is left alone, and said once.

    Rows are those that count of the first dataloader, without ``sample_weight``. Needs ``logits``
    (N, C) and class indices; with hidden states and a head, or classes that are split over ranks,
    it says so once and does nothing. What
    ``calibrate`` is given should be what the softmax is taken of: after ``softcap`` and
    ``logit_scale``, if the step passes these.

    Args:
        method: ``temperature``, ``vector``, ``dirichlet``, ``isotonic``, ``histogram`` or
            ``correctness_aware``; see `lightning_losses.calibrators`.
        max_rows: most rows of an epoch that are kept, over all ranks, on the CPU: row 0, k, 2k,
            ..., where k doubles when they become too many.
        apply: calibrate the outputs of ``predict_step``.
        name: first part of the logged names; give a second one another.

    Raises:
        ValueError: an unknown method, or fewer than two rows.

    Examples:
        >>> controller = PostHocCalibration(method="temperature", apply=True)
    """

    watches = ("target", *FEW_LOGITS)
    identity = ("method", "name")

    def __init__(
        self,
        method: str = "temperature",
        max_rows: int = 10_000,
        apply: bool = False,
        name: str = "post_hoc",
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"method is {method!r}; write one of {', '.join(METHODS)}.")
        if max_rows < 2:
            raise ValueError(f"max_rows must be at least 2, got {max_rows}; write max_rows=10000.")
        self.method, self.max_rows, self.apply, self.name = method, max_rows, apply, name
        self.calibrator = METHODS[method]()
        self.classes = 0
        self._rows = StrideSample(max_rows)

    def calibrate(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities ``(..., C)``, float32 at least, of logits ``(..., C)``.

        Raises:
            RuntimeError: nothing was fitted yet: validate, or start from a checkpoint.
            ValueError: another number of classes than was fitted on.
        """
        if not self.calibrator.fitted:
            raise RuntimeError(
                "PostHocCalibration is not fitted; run trainer.validate(model, dataloader), or pass"
                " the ckpt_path of a run that had this callback."
            )
        if not logits.ndim or logits.shape[-1] != self.classes:
            raise ValueError(
                f"PostHocCalibration was fitted on {self.classes} classes, got logits "
                f"{tuple(logits.shape)}; classes go last."
            )
        return self.calibrator(logits)  # type: ignore[no-any-return]

    # -- an epoch ----------------------------------------------------------------------------

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch's rows, and have the records carry logits."""
        self._rows = StrideSample(max(self.max_rows // num_row_ranks(module.trainer), 1))
        self.start_measuring(module)

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Keep some of the rows of this batch."""
        if dataloader_idx:
            return
        record = self.new_record(module)
        if record is None:
            self.warn_once("this step did not call compute_loss, so there are no logits to read.")
            return
        logits, target = record_logits(record), record.captured.get("target")
        if record.head == "sigmoid":
            self.warn_once(
                "the loss puts a sigmoid on each column of the logits, and what is fitted here is "
                "of a softmax over columns, so nothing is fitted."
            )
            return
        if "class_range" in record.captured:
            self.warn_once(
                "classes are split over ranks, and what is fitted here reads all logits of a row, "
                "so nothing is fitted: in validation_step pass "
                "logits.redistribute(placements=[Replicate(), ...])."
            )
            return
        if logits is None or not isinstance(target, Tensor) or target.ndim != 1:
            self.warn_once(
                "needs logits (N, C) and class indices (N,) as target; this step passes "
                f"{', '.join(sorted(record.captured)) or 'neither'}, so nothing is fitted. Hidden "
                "states and a head will do for training: pass logits= in validation_step."
            )
            return
        if target.is_floating_point():
            self.warn_once("needs class indices as target, not real values; nothing is fitted.")
            return
        valid = record.stats.valid
        if valid is not None:
            logits, target = logits[valid], target[valid]
        self._rows.add(logits.float(), target)

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Fit (after validation) on the rows of all ranks, which all come here; log."""
        self.stop_measuring(module)
        rows = all_rows(trainer, self._rows, self.max_rows, torch.float32)
        self._rows = StrideSample(1)  # an epoch's logits are not kept through training
        if isinstance(rows, str):
            self.warn_once(f"nothing is fitted: {rows}.")
            return
        logits, target = rows
        if len(target) < 2:
            return
        try:
            after = self._fit(logits, target) if stage == "val" else self._judge(logits)
        except ValueError as error:
            self.warn_once(f"nothing is fitted: {error}")
            return
        if after is None:
            return
        values: dict[str, Tensor] = {}
        for when, log_p in (("before", logits), ("after", after.log())):
            metric = StreamingCalibration(sync_on_compute=False)  # these are the rows of all ranks
            metric.update(*top_label(log_p, target))
            measures = metric.compute()
            for key in ("ece", "nll"):
                values[f"{self.name}/{stage}/{key}_{when}"] = measures[key].float()
        if self.method == "temperature" and stage == "val":
            temperature: Any = self.calibrator.temperature
            values[f"{self.name}/temperature"] = temperature.float()
        self.publish_epoch({key: value.to(module.device) for key, value in values.items()})

    def _fit(self, logits: Tensor, target: Tensor) -> Tensor:
        """Fit on all rows; probabilities of each half from a calibrator of the other."""
        after = torch.zeros_like(logits)
        for half in (0, 1):
            other = METHODS[self.method]().fit(logits[1 - half :: 2], target[1 - half :: 2])
            after[half::2] = other(logits[half::2])
        self.calibrator = METHODS[self.method]().fit(logits, target)
        self.classes = logits.shape[1]
        return after

    def _judge(self, logits: Tensor) -> Tensor | None:
        if not self.calibrator.fitted:
            self.warn_once("not fitted, so the test epoch has nothing to judge; validate first.")
            return None
        return self.calibrate(logits)

    # -- predictions and checkpoints ---------------------------------------------------------

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Calibrate what ``predict_step`` returned, if that was asked for."""
        if not self.apply:
            return
        logits = outputs.get("logits") if isinstance(outputs, dict) else outputs
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            self.warn_once(
                f"predict_step returned {type(outputs).__name__}, which is left as it is; return "
                "logits, or a dict with logits, or call calibrate(logits) yourself."
            )
            return
        try:
            probabilities = self.calibrate(logits)
        except (RuntimeError, ValueError) as error:
            self.warn_once(f"{error} Predictions are left as they are.")
            return
        if isinstance(outputs, dict):
            outputs["probabilities"] = probabilities
        else:
            outputs.copy_(probabilities)

    def state_dict(self) -> dict[str, Any]:
        """The fitted calibrator."""
        return {"calibrator": dict(self.calibrator.state_dict()), "classes": self.classes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the calibrator that `state_dict` was taken of."""
        self.calibrator = METHODS[self.method]()
        self.calibrator.load_state_dict(state_dict["calibrator"])
        self.classes = state_dict["classes"]
