# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the entropy monitor measures: the distribution of entropies, and pairs of numbers a row.

A rank tells the others a `sketch` of its entropies and the moments of its `pairs`; `gathered` makes
of these the numbers of all ranks, and `ValidationGap` those of a validation epoch.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.monitor import Monitor
from lightning_losses.callbacks.reading.events import event_entropy, event_nll, events
from lightning_losses.callbacks.reading.gather import num_row_ranks, stacked
from lightning_losses.callbacks.reading.mean_prediction import is_class_index
from lightning_losses.metrics.entropy.token_covariance import (
    moments,
    pooled_covariance,
    pooled_difference,
)
from lightning_losses.record import LossRecord

#: What is logged of the distribution of entropies over rows.
NAMES = ("mean", "effective_classes", "p10", "p50", "p90")

#: A rank of several tells the others this many of its sorted rows: quantiles across ranks are exact
#: up to 1024 rows a rank, and beyond that off by at most 1/2048 of the rows.
SKETCH = 1024

#: From the `moments` of all ranks to what is logged.
PAIRS = {"nll_gap": pooled_difference, "token_covariance": pooled_covariance}


def sketch(entropy: Tensor, valid: Tensor | None, size: int | None) -> Tensor:
    """What a rank tells the others: a vector of one length, whatever rows it has.

    Args:
        entropy: ``(N,)`` nats.
        valid: ``(N,)`` bool, or None for all.
        size: how many sorted rows to tell; None for all of them.

    Returns:
        ``(2 size + 3,)``: values, how many rows each stands for, the sums of H and of e^H over
        the finite rows that count, and the number of rows that count but are not finite.
    """
    finite = entropy.isfinite()
    use = finite if valid is None else finite & valid
    bad = (~finite if valid is None else ~finite & valid).sum()
    masked = torch.where(use, entropy, 0)
    # One more than there are, so that no rows at all need no case of their own.
    ordered = torch.cat([entropy.where(use, torch.inf), entropy.new_full((1,), torch.inf)])
    ordered = ordered.sort().values
    size = len(ordered) if size is None else size
    share = torch.arange(size + 1, device=entropy.device) * use.sum() // size
    middle = (share[:-1] + share[1:]) // 2  # of the sorted rows that each value stands for
    weights = share.diff().to(entropy.dtype)
    classes = torch.where(use, masked.exp(), 0)
    sums = torch.stack([masked.sum(), classes.sum(), bad.to(entropy.dtype)])
    return torch.cat([ordered[middle], weights, sums])


def merge(sketches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values in the order of `NAMES`, number of rows, and of rows left out, from all ranks.

    A quantile q is the smallest value with at least a fraction q of the rows at or below it.
    """
    body, sums = sketches[:, :-3], sketches[:, -3:].sum(0)
    ordered, order = body[:, : body.shape[1] // 2].flatten().sort()
    weights = body[:, body.shape[1] // 2 :].flatten()[order].long()
    rows = weights.sum()
    tenths = torch.arange(1, 10, 4, device=rows.device)  # 1, 5, 9
    rank = (tenths * rows + 9) // 10  # rounded up
    quantiles = ordered[torch.searchsorted(weights.cumsum(0), rank).clamp(max=len(ordered) - 1)]
    return torch.cat([sums[:2] / rows.clamp(min=1), quantiles]), rows.to(sums), sums[2]


def pairs(record: LossRecord, supervised: bool) -> dict[str, Tensor]:
    """`moments` of NLL and H, and of advantage and log p, by the name that is logged.

    Nothing where there is no class index: log p is then none, or one of a soft target. In policy
    training the target is an action that was drawn, so NLL - H says nothing of calibration. Of a
    sigmoid head both are means over the labels that are known.
    """
    found = events(record)
    if found is not None:
        z, target, known = found
        if target is None or not supervised:
            return {}
        count = known.sum(1)
        nll, uncertain = (
            torch.where(known, values, 0).sum(1) / count.clamp(min=1)
            for values in (event_nll(z, target), event_entropy(z))
        )
        use = (count > 0) & nll.isfinite() & uncertain.isfinite()
        return {"nll_gap": moments(nll, uncertain, use)}
    entropy, log_prob = record.stats.entropy, record.stats.log_prob
    if entropy is None or log_prob is None or not is_class_index(record.captured.get("target")):
        return {}
    advantage = record.captured.get("advantage")
    numbers = {"nll_gap": (-log_prob, entropy)} if supervised else {}
    if isinstance(advantage, Tensor) and advantage.shape == log_prob.shape:
        numbers["token_covariance"] = (advantage, log_prob)
    valid = record.stats.valid
    out = {}
    for name, (a, b) in numbers.items():
        use = a.isfinite() & b.isfinite()
        out[name] = moments(a, b, use if valid is None else use & valid)
    return out


def gathered(
    trainer: Trainer, record: LossRecord, entropy: Tensor, supervised: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The distribution of entropies and the `pairs` of all ranks, rows, and rows of NaN."""
    packed = sketch(entropy, record.stats.valid, SKETCH if num_row_ranks(trainer) > 1 else None)
    own = pairs(record, supervised)
    told = torch.cat([packed, *own.values()])
    told = stacked(trainer, told)
    values, rows, bad = merge(told[:, : len(packed)])
    named = dict(zip(NAMES, values.unbind(), strict=True))
    for place, key in enumerate(own):
        begin = len(packed) + 4 * place
        named[key] = PAIRS[key](told[:, begin : begin + 4])
    return named, rows, bad


class ValidationGap(Monitor):
    """Takes NLL - H over validation epochs, all dataloaders together; the sanity check is skipped.

    A subclass writes `judge_gap`, has a ``name``, and watches entropy, log_prob and target.
    """

    name: str
    supervised: bool

    def __init__(self, every_n_steps: int) -> None:
        super().__init__(every_n_steps)
        self._validated: list[Tensor] | None = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no request with the objective, and no epoch half counted."""
        super().on_exception(trainer, pl_module, exception)
        self._validated = None

    def judge_gap(self, trainer: Trainer, gap: float) -> None:
        """Look at the gap of a validation epoch; every rank comes here."""
        raise NotImplementedError

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        if self.supervised and not trainer.sanity_checking:
            self._validated = []
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
        """Count this batch."""
        record = None if self._validated is None else self.new_record(pl_module)
        if record is not None and self._validated is not None:
            self._validated += pairs(record, True).values()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and judge; nothing if no rank has seen a row with a class."""
        if self._validated is None:
            return
        self.stop_measuring(pl_module)
        parts = torch.stack([p.double() for p in self._validated or [torch.zeros(4)]])
        self._validated = None
        sums = torch.stack([parts[:, 0].sum(), pooled_difference(parts)])
        # float32: not every device has float64.
        gathered = stacked(trainer, sums.float().to(pl_module.device))
        rows = gathered[:, 0].sum()
        if not float(rows):
            return
        gap = (gathered.prod(1).sum() / rows).reshape(())
        self.publish_epoch({f"{self.name}/val_nll_gap": gap})
        self.judge_gap(trainer, float(gap))
