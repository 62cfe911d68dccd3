# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a predicted Gaussian say how far off it is? Streaming, in constant memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import sum_metric as sums
from lightning_losses.metrics.calibration.fine_bins import running_sum
from lightning_losses.metrics.calibration.top_label import counting
from lightning_losses.metrics.regression.scores import (
    crps_gaussian,
    nll_gaussian,
    quantile_score,
    same_shape,
)

#: Levels of the quantiles that are scored: 0.01 to 0.99.
SCORED = 99


class GaussianCalibration(sums.SumMetric):
    """Calibration, sharpness and scores of `N(mean, deviation^2)` against what came.

    A central interval of the predicted Gaussian that should hold a share `q` of the targets is
    asked, for `levels` shares q from 0 to 1, how many it holds (Kuleshov, Fenner and Ermon, arXiv
    1807.00263; the numbers are those of uncertainty-toolbox). The state is a count a level, exact
    whatever the number of rows, and sums over processes.

    Args:
        levels: shares q, evenly spaced from 0 to 1, at least 2.
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: fewer than two levels.

    Examples:
        >>> normal = torch.special.ndtri((torch.arange(1000) + 0.5) / 1000)  # N(0, 1), in order
        >>> for deviation in (1.0, 0.5):
        ...     metric = GaussianCalibration()
        ...     metric.update(torch.zeros(1000), torch.full((1000,), deviation), normal)
        ...     print(deviation, round(abs(metric.compute()["gap"].item()), 2))
        1.0 0.0
        0.5 0.2
    """

    edges: Tensor
    tau: Tensor
    held: Tensor
    totals: Tensor
    rows: Tensor
    skipped: Tensor

    def __init__(self, levels: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if levels < 2:
            raise ValueError(f"GaussianCalibration needs at least 2 levels, found {levels}")
        real = sums.sum_dtype(self.device)
        edges = torch.linspace(0, 1, levels, dtype=torch.float64).to(real)
        self.register_buffer("edges", edges, persistent=False)
        tau = torch.arange(1, SCORED + 1, dtype=torch.float64) / (SCORED + 1)
        self.register_buffer("tau", tau.to(real), persistent=False)
        self.add_sums(
            held=((levels,), torch.int64),  # by the smallest interval that holds the target
            totals=((4,), real),  # variance, crps, nll, score of quantiles
            rows=((), torch.int64),
            skipped=((), torch.int64),
        )

    def update(
        self, mean: Tensor, deviation: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> None:
        """Add predictions, all of one shape, `(N,)` or any other.

        A row with a NaN or an infinity does not count, and is counted in `skipped`.

        Args:
            mean: of the Gaussian.
            deviation: its standard deviation, positive (not the variance).
            target: what came.
            valid: bool, False where a row does not count.

        Raises:
            ValueError: shapes differ; on a CPU, a deviation that is not positive. Elsewhere such a
                row is skipped.
        """
        given = {"mean": mean, "deviation": deviation, "target": target}
        same_shape("GaussianCalibration", **given)
        real = self.totals.dtype
        m, s, y = (tensor.detach().flatten().to(real) for tensor in given.values())
        counts = counting(valid, mean, "GaussianCalibration").flatten()
        flat = counts & (s <= 0)
        if flat.device.type == "cpu" and bool(flat.any()):
            raise ValueError(
                f"GaussianCalibration needs positive deviations, found {s[flat][0].item():.6g}; "
                "write softplus or exp of what the network says, variance.sqrt() of a variance"
            )
        keep = counts & (s > 0) & m.isfinite() & s.isfinite() & y.isfinite()
        m, y = (torch.where(keep, part, 0) for part in (m, y))
        s = torch.where(keep, s, 1)
        z = (y - m) / s
        share = torch.erf(z.abs() / math.sqrt(2))  # of the least central interval that holds y
        where = torch.bucketize(share, self.edges).clamp(max=len(self.edges) - 1)
        self.held = self.held.index_add(0, where, keep.long())
        quantiles = m[:, None] + s[:, None] * torch.special.ndtri(self.tau)
        pinball = quantile_score(quantiles, y[:, None].expand_as(quantiles), self.tau).mean(1)
        parts = (s.square(), crps_gaussian(m, s, y), nll_gaussian(m, s, y), pinball)
        self.totals = self.totals + torch.stack([torch.where(keep, p, 0).sum() for p in parts])
        self.rows = self.rows + keep.sum()
        self.skipped = self.skipped + (counts & ~keep).sum()

    def compute(self) -> dict[str, Tensor]:
        """0-dim tensors, all-reduced over processes; NaN where nothing was seen.

        `calibration_error`: mean over levels of |share promised - share held|. `miscalibration_
        area`: the area between the curve of held against promised shares and the diagonal, in
        [0, 1/2]. `gap`: the signed area, positive where intervals are too narrow. `sharpness`: root
        of the mean variance, unit of the target. `crps` (unit of the target), `nll` (nats),
        `quantile_score`: mean pinball loss of the quantiles 0.01 to 0.99. `count` and `skipped`:
        int64.
        """
        gap = self.edges - self.curve_held()
        left, right = gap[:-1], gap[1:]
        step = self.edges.diff()
        # Of a segment that crosses the diagonal, two triangles.
        crosses = left * right < 0
        size = left.abs() + right.abs()
        triangles = (left.square() + right.square()) / torch.where(crosses, size, 1)
        area = torch.where(crosses, triangles, size) / 2
        variance, crps, nll, pinball = self.totals / self.rows
        return {
            "calibration_error": gap.abs().mean(),
            "miscalibration_area": (area * step).sum(),
            "gap": ((left + right) / 2 * step).sum(),
            "sharpness": variance.sqrt(),
            "crps": crps,
            "nll": nll,
            "quantile_score": pinball,
            "count": self.rows.clone(),
            "skipped": self.skipped.clone(),
        }

    def curve_held(self) -> Tensor:
        """Share of this process's rows within the interval of each level, `(levels,)`."""
        return running_sum(self.held.to(self.edges)) / self.rows
