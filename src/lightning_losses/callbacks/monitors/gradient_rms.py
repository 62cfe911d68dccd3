# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Are gradients so small that Adam's epsilon, and not they, decides how far a tensor moves?"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_losses.callbacks.base.alerts import Action, Alarm, announce, check_action
from lightning_losses.callbacks.base.deferred_reads import DeferredReads
from lightning_losses.callbacks.base.monitor import RecordReader
from lightning_losses.callbacks.replay.step_watcher import SHARDED


class Scale(NamedTuple):
    """How large the gradient of one tensor is to its optimizer."""

    parameter: Tensor
    rms: Tensor
    """0-dim float32, on the device of the parameter."""
    epsilon: float
    """The optimizer's."""


class GradientRmsMonitor(RecordReader):
    """Logs the smallest gradient scale of all tensors, and warns where the optimizer's eps rules.

    Adam moves a tensor by ``lr m / (sqrt(v) + eps)``. Once sqrt(v) is near eps, the step shrinks
    with the gradient instead of being independent of it, and the tensor all but stops; in large
    models that happens in silence (arXiv 2309.14322). Logged after an optimizer step, every
    ``every_n_steps`` of them:

    - ``gradient_rms/smallest``: over tensors, the smallest root mean square of sqrt(v_hat), v_hat
      the bias-corrected second moment;
    - ``gradient_rms/share_near_epsilon``: the fraction of tensors with one below ``factor`` times
      the eps of their group.

    It warns when that fraction is above 0 ``patience`` times in a row, and names the tensor that is
    smallest against its eps; training waits for an accelerator once in 100 measurements at most,
    else the warning comes at the next validation or epoch end.

    Works with Adam, AdamW, NAdam and RAdam (foreach, fused, amsgrad) and RMSprop, on any
    LightningModule, no Objective needed. Optimizers with an eps that keep the second moment in
    another way are measured by the gradient itself. Those without (SGD, Lion) are left out, which
    is said once. A tensor without any gradient so far, or whose gradients were all exactly 0, does
    not count: no eps would move it. Nor does one that is not finite.

    Args:
        every_n_steps: optimizer steps between measurements.
        factor: how near to eps is near.
        patience: measurements in a row that a warning needs.
        action: what it does: ``log``, ``warn``, ``alert`` (W&B) or ``stop``.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: a count below 1, a factor that is not positive, an unknown action.

    Examples:
        >>> monitor = GradientRmsMonitor(every_n_steps=50, factor=10.0)
    """

    identity = ("every_n_steps", "name")

    def __init__(
        self,
        every_n_steps: int = 50,
        factor: float = 10.0,
        patience: int = 3,
        action: Action = "warn",
        name: str = "gradient_rms",
    ) -> None:
        super().__init__()
        if every_n_steps < 1 or patience < 1 or not factor > 0:
            raise ValueError(
                "every_n_steps and patience must be at least 1 and factor positive, got "
                f"{every_n_steps}, {patience} and {factor}; write 50, 3 and 10."
            )
        check_action("action", action)
        self.every_n_steps, self.factor = every_n_steps, factor
        self.action, self.name = action, name
        self.alarm = Alarm(patience)
        self._step = 0
        self._names: dict[int, str] = {}  # of parameters, by id
        self._measured: list[str] = []  # tensors of the last measurement, in its order
        self._waiting: DeferredReads[int] = DeferredReads()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Steps are counted from here, or from where a checkpoint was taken."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step
        self._names = {id(p): name for name, p in pl_module.named_parameters()}

    def reset(self) -> None:
        super().reset()
        self.alarm.reset()
        self._measured, self._waiting = [], DeferredReads()

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure, if a due optimizer step has just been made."""
        before, self._step = self._step, trainer.global_step
        if (self._step - 1) // self.every_n_steps == (before - 1) // self.every_n_steps:
            return
        if isinstance(trainer.strategy, SHARDED):
            self.warn_once(f"{type(trainer.strategy).__name__} shards the moments: nothing read.")
            return
        scales = [scale for o in trainer.optimizers for scale in self._scales(o)]
        if not scales:
            return
        device = pl_module.device
        rms = torch.stack([scale.rms.to(device) for scale in scales])
        # Of a list of numbers no tensor can be made on a device without waiting for it.
        ratio = torch.stack([(scale.rms / scale.epsilon).to(device) for scale in scales])
        counts = (rms > 0) & rms.isfinite()
        near = counts & (ratio < self.factor)
        share = near.sum() / counts.sum().clamp(min=1)
        smallest = torch.where(counts, rms, torch.inf).amin()
        smallest = torch.where(counts.any(), smallest, 0.0)
        self.publish(
            trainer, {f"{self.name}/smallest": smallest, f"{self.name}/share_near_epsilon": share}
        )
        worst = torch.where(counts, ratio, torch.inf).argmin(0, keepdim=True)
        self._measured = [self._names.get(id(s.parameter), "a tensor") for s in scales]
        reading = (share[None], worst.to(rms), rms.gather(0, worst), ratio.gather(0, worst))
        self._judge(trainer, self._waiting.add(self._step, torch.cat(reading)))

    def catch_up(self, trainer: Trainer) -> None:
        """Judge what was measured, too."""
        super().catch_up(trainer)
        self._judge(trainer, self._waiting.read())

    def _scales(self, optimizer: Optimizer) -> list[Scale]:
        scales = []
        for group in optimizer.param_groups:
            epsilon = group.get("eps")
            if not isinstance(epsilon, (int, float)) or epsilon <= 0:
                self.warn_once(
                    f"{type(optimizer).__name__} has no eps that gradients are compared with, so "
                    f"its tensors are left out of {self.name}/*; nothing needs to change."
                )
                continue
            for parameter in group["params"]:
                rms = scale_of(parameter, optimizer.state.get(parameter, {}), group)
                if rms is not None:
                    scales.append(Scale(parameter, rms, float(epsilon)))
        return scales

    def _judge(self, trainer: Trainer, readings: list[tuple[int, list[float]]]) -> None:
        for step, (share, worst, rms, ratio) in readings:
            if not self.alarm.update(bad=share > 0, good=share == 0):
                continue
            place, epsilon = int(worst), rms / ratio
            known = place < len(self._measured)  # not right after a restart
            name = self._measured[place] if known else "a tensor"
            announce(
                trainer,
                self.action,
                "Gradients near the optimizer's eps",
                f"GradientRmsMonitor: after step {step} the gradients of {name} have "
                f"a root mean square of {rms:.2g}, within {self.factor:g} times eps = "
                f"{epsilon:.2g}, and so have {share:.0%} of the tensors: eps shortens their "
                f"updates. Write eps={epsilon / 1e4:.0e}, or scale the loss up.",
            )

    def state_dict(self) -> dict[str, Any]:
        """The alarm, and what was not read yet."""
        return {"alarm": [self.alarm.on, self.alarm.count], "waiting": self._waiting.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.alarm.on, self.alarm.count = state_dict["alarm"]
        self._waiting.load_state_dict(state_dict["waiting"])


def scale_of(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor | None:
    """Root mean square of sqrt(v_hat) as the optimizer uses it, 0-dim; None without a gradient."""
    second = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
    if isinstance(second, Tensor):
        mean: Tensor = second.float().mean()
        return (mean / bias_correction(group["betas"][1], state["step"])).sqrt()
    square = state.get("square_avg")
    if isinstance(square, Tensor):  # RMSprop and Adadelta correct nothing
        mean = square.float().mean()
        return mean.sqrt()
    if "betas" in group and not state:
        return None  # not stepped yet, as under a GradScaler that skips: its moments will come
    gradient = parameter.grad
    if gradient is None or gradient.layout is not torch.strided:
        return None
    length: Tensor = torch.linalg.vector_norm(gradient.detach().float())
    return length / math.sqrt(max(gradient.numel(), 1))


def bias_correction(beta: Tensor | float, steps: Tensor | float) -> Tensor | float:
    """``1 - beta ** steps``, as a number where it can be had without waiting for a device."""
    beta, steps = (
        float(x) if not isinstance(x, Tensor) or x.device.type == "cpu" else x.double()
        for x in (beta, steps)
    )
    correction: Tensor | float = 1 - beta**steps
    return correction.float() if isinstance(correction, Tensor) else correction
