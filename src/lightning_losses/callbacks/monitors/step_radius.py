# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`StepRadiusMonitor`: how far an optimizer step moves the logits, in units of the safe radius."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_losses.callbacks.replay.forward_ad import rows_along
from lightning_losses.callbacks.replay.measured_step import Kept, MeasuredStep, is_coarse, rounding
from lightning_losses.callbacks.replay.step_rows import StepRows
from lightning_losses.callbacks.replay.step_watcher import StepWatcher
from lightning_losses.metrics.step_radius.secant import Secant, secant


class Measured(NamedTuple):
    """One optimizer's step, over all ranks; 0-dim each."""

    r: Tensor
    r_p99: Tensor
    r_dom: Tensor
    r_var: Tensor
    update_norm: Tensor
    rows: Tensor
    descent: Tensor | None  # None without class targets
    noise_floor: Tensor | None  # None in float32 and float64


class StepRadiusMonitor(StepWatcher[Measured]):
    """Measures ``r = max over rows of spread(logits after - logits before) / pi`` of a step.

    "After" is one re-run of ``training_step`` on the same batch right after the optimizer has
    stepped (see `Probe`), so ``r`` belongs to the update as it was applied. Up to ``r = 1`` no
    row's loss changed by more than pi nats, and the log-softmax along the update is analytic
    (P. Sao, arXiv 2603.13552). That does not say that the loss fell.

    Where the loss puts a sigmoid on each column (`bce`), every label is a row of two classes, so
    that r = max \\|dz\\| / pi: log(1 + e^z) has its nearest singularity at a distance of pi.

    Logs, at each measured step:

    - ``step_radius/r``, ``step_radius/r_p99``: the largest over rows, and their 99th percentile
      (on several ranks the largest of the ranks' percentiles)
    - ``step_radius/update_norm``: Euclidean length of the applied update
    - ``step_radius/rho_a``: ``update_norm / r``, the radius as a length in parameter space
    - ``step_radius/rho_dom``, ``step_radius/rho_var``: in the same units two larger lengths that
      are as safe, with the logits' change over the whole step as their direction: the smallest
      over rows of `rho_dom` and ``rho_var``. With so many classes
      that 2^20 logits are few rows, the others count with ``rho_a``, which is smaller. All three
      are 0 where there is no such length: the update moved no measured logit (r = 0)
    - ``step_radius/descent``: for class targets, the certificate ``8 * -slope / mean spread^2``,
      where slope is the derivative of the measured rows' mean cross-entropy along that direction.
      It is the certified step in units of this one: above 1, that cross-entropy fell for certain;
      0 to 1, it falls for that part of the way at least; below 0, it rises at first. It is small
      as a rule (1e-3 to 4e-2 of r = 1): a number to look at, not to control by
    - ``step_radius/rows``: how many rows were measured, all ranks together
    - ``step_radius/noise_floor``: in bf16 or fp16, the r that rounding alone may show

    Where several optimizers step in a batch each is measured, ``r`` and ``r_p99`` are the largest,
    and the rest is logged by optimizer, as in ``step_radius/update_norm/0``.

    The first measurement also re-runs the step at the old parameters. If that does not reproduce
    the real step, or if the step changes parameters by itself, the monitor says so and turns itself
    off; training is not affected. A ``probe_step(self, batch)`` that returns the named tensors is
    the remedy. With it, and with a compiled module, "before" is a re-run like "after".

    Holds a copy of the trained parameters while a step is measured, two copies of all parameters at
    the first one, and costs one forward pass.

    Args:
        every_n_steps: optimizer steps between measurements.
        max_rows: larger batches are measured on every k-th row; that can only lower ``r``.
        call: which ``compute_loss`` of a step to measure where there are several; 0 is the first.
        method: ``secant`` measures how the logits changed. ``forward_ad`` measures, in one more
            forward pass, how they would change if they were linear in the update: all of the above
            with the derivative along the update as the direction, which is the paper's own radius.
            Where the model has an operation without forward AD (fused attention, LSTM, custom
            functions) this is said once, and the secant stays.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: an unknown method, or a count below 1.

    Examples:
        >>> monitor = StepRadiusMonitor(every_n_steps=50, method="secant")
    """

    identity = ("every_n_steps", "call", "name")

    def __init__(
        self,
        every_n_steps: int = 50,
        max_rows: int = 4096,
        call: int = 0,
        method: Literal["secant", "forward_ad"] = "secant",
        name: str = "step_radius",
    ) -> None:
        super().__init__(every_n_steps, max_rows, call, name)
        if method not in ("secant", "forward_ad"):
            raise ValueError(f"Unknown method {method!r}; write method=secant or forward_ad.")
        self.method = method
        self.refused: str | None = None
        """Why forward AD is not used although asked for."""

    def make_step(self, *args: Any, **options: Any) -> RadiusStep:
        forward = self.method == "forward_ad" and self.refused is None
        return RadiusStep(*args, refuse=self._refuse if forward else None, **options)

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.warn_once(f"forward AD is not available here, the secant is measured: {reason}")

    def summary(self, measured: dict[int, Measured], optimizers: int) -> dict[str, Tensor]:
        steps = list(measured.values())
        values = {
            "r": torch.stack([step.r for step in steps]).amax(),
            "r_p99": torch.stack([step.r_p99 for step in steps]).amax(),
            "rows": steps[0].rows,
        }
        for number, step in measured.items():
            own = {
                "r": step.r,
                "update_norm": step.update_norm,
                "rho_a": radius(step.update_norm, step.r),
                "rho_dom": radius(step.update_norm, step.r_dom),
                "rho_var": radius(step.update_norm, step.r_var),
                "descent": step.descent,
                "noise_floor": step.noise_floor,
            }
            end = f"/{number}" if optimizers > 1 else ""
            values |= {f"{name}{end}": v for name, v in own.items() if v is not None}
        return {f"{self.name}/{key}": value for key, value in values.items()}


def radius(update_norm: Tensor, r: Tensor) -> Tensor:
    """The length of an update with r = 1 in this direction; 0 where r is 0 and it has no end."""
    return (update_norm / r).nan_to_num(0, 0, 0)


class RadiusStep(MeasuredStep[Measured]):
    """Measures each optimizer's step and leaves it as it is.

    Args:
        *args: see `MeasuredStep`.
        refuse: told why there is no forward AD; None measures by the secant from the start.
        **options: see `MeasuredStep`.
    """

    def __init__(self, *args: Any, refuse: Callable[[str], None] | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.refuse = refuse

    def resolve_step(
        self, before: StepRows, kept: Kept, norm: Tensor
    ) -> tuple[Measured | None, StepRows | None]:
        compared = self.compare(before, kept, bounds=True)
        if compared is None:
            return None, None
        after, change = compared
        if self.refuse is not None:
            change = self._derivative(before, kept) or change
        return self._share(before, change, norm), after

    def _derivative(self, before: StepRows, kept: Kept) -> Secant | None:
        """The change along the derivative; None, and told why, if any rank cannot have it."""
        along, reason = None, ""
        try:
            along = rows_along(self.probe, kept, self._read)
        except Exception as error:  # an operation without a formula raises as it likes
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        failed = torch.tensor(float(along is None), device=self.trainer.strategy.root_device)
        if self.trainer.world_size > 1:  # ranks with the same rows too: they share the secant
            failed = self.trainer.strategy.reduce(failed, reduce_op="max")
        if along is not None and not bool(failed):
            return secant(before.problem, along.problem, bounds=True)
        if self.refuse is not None:
            self.refuse(reason or "another rank has failed")
            self.refuse = None
        return None

    def _share(self, before: StepRows, change: Secant, norm: Tensor) -> Measured:
        """The measurement over all ranks."""
        rows, device, bounds = len(change.spread), norm.device, change.bounds
        assert bounds is not None
        maxima, sums = torch.zeros(5, device=device), torch.zeros(3, device=device)
        if rows:
            widths = change.spread.float()
            ordered = widths.sort().values / math.pi
            maxima = torch.stack(
                [
                    ordered[-1],
                    ordered[math.ceil(0.99 * rows) - 1],
                    1 / bounds.rho_dom.float().amin(),
                    1 / bounds.rho_var.float().amin(),
                    rounding(change, before).float().amax(),
                ]
            )
            slope = sums[0] if bounds.slope is None else bounds.slope.float().sum()
            sums = torch.stack([sums[0] + rows, slope, widths.square().sum()])
        r, r_p99, r_dom, r_var, noise = self.largest(maxima)
        count, slope, squares = self.total(sums)
        descent = None
        if bounds.slope is not None:  # 0, nothing certified, where nothing moved or a NaN came out
            descent = torch.where(squares > 0, -8 * slope / squares, 0).nan_to_num(0, 0, 0)
        floor = noise.clamp(min=self.replay or 0) if is_coarse(before) else None
        return Measured(r, r_p99, r_dom, r_var, norm, count, descent, floor)
