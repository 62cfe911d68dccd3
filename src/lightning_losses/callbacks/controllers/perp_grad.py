# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`PerpGrad`: takes out of each gradient what only makes its weight longer or shorter."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_losses.callbacks.base.monitor import RecordReader
from lightning_losses.callbacks.replay.step_watcher import SHARDED

#: What is left of a gradient, over its length, that is rounding and must not be blown up to the
#: full length: so many times the dtype's epsilon.
NOISE = 64


class PerpGrad(RecordReader):
    """Makes every gradient orthogonal to its weight tensor, at the length it had.

    With g the gradient of a tensor w, both taken as one vector, the optimizer gets
    ``(g - (w.g / w.w) w)`` rescaled to ``|g|`` (the perpendicular gradient of "Grokking at the Edge
    of Numerical Stability", arXiv 2501.04697). So training cannot lower the loss by scaling the
    logits up, which ends in softmax collapse and delays generalisation.

    It acts in ``on_before_optimizer_step``: after all batches of an accumulated step, after ranks
    have averaged, after a GradScaler has unscaled, and before Lightning clips gradients. Works in
    automatic and manual optimisation, with LBFGS, and on any LightningModule; weight decay that
    the optimizer adds itself is not touched. Half precision is computed in float32. Left alone are
    tensors of one element, to which nothing is orthogonal, weights of 0, gradients that are sparse
    or not finite, and complex tensors. A gradient that is parallel to its weight up to rounding
    becomes 0. Where ranks hold pieces of tensors (FSDP, DeepSpeed) it says so and does nothing.

    Logs at each step ``perp_grad/removed_share``: the part of the squared length of the gradients,
    over the tensors it acts on, that pointed along the weights and was taken out, a fraction. With
    several optimizers it is that of the last to step.

    Args:
        parameters: patterns of parameter names, as ``module.named_parameters()`` gives them
            (``*`` any text); one pattern or several.
        exclude: patterns of names to leave alone, such as ``"*.bias"``.
        name: first part of the logged names; give a second one another.

    Raises:
        ValueError: when the fit begins, if no trainable parameter's name matches.

    Examples:
        >>> controller = PerpGrad(parameters="net.*", exclude="*.bias")
    """

    identity = ("parameters", "exclude", "name")

    def __init__(
        self,
        parameters: str | Sequence[str] = "*",
        exclude: str | Sequence[str] = (),
        name: str = "perp_grad",
    ) -> None:
        super().__init__()
        self.name = name
        self.parameters = [parameters] if isinstance(parameters, str) else list(parameters)
        self.exclude = [exclude] if isinstance(exclude, str) else list(exclude)
        self._chosen: set[int] = set()
        self._share: Tensor | None = None  # of the last optimizer step of this batch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the parameters by name."""
        super().on_train_start(trainer, pl_module)
        self._chosen, self._share = set(), None
        if isinstance(trainer.strategy, SHARDED):
            self.warn_once(
                f"{type(trainer.strategy).__name__} shards the parameters, and a piece does not "
                "tell what is orthogonal to the whole: gradients stay as they are. Use DDP."
            )
            return
        names = {n: p for n, p in pl_module.named_parameters() if p.requires_grad}
        chosen = {
            name: parameter
            for name, parameter in names.items()
            if any(fnmatchcase(name, pattern) for pattern in self.parameters)
            and not any(fnmatchcase(name, pattern) for pattern in self.exclude)
        }
        if not chosen:
            raise ValueError(
                f"PerpGrad(parameters={self.parameters}, exclude={self.exclude}) matches none of "
                f"the trainable parameters, among them {', '.join(list(names)[:8]) or 'none'}; "
                "write parameters='*' for all."
            )
        self._chosen = {id(parameter) for parameter in chosen.values()}

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Project the gradients of this optimizer's parameters."""
        if not self._chosen:
            return
        device = pl_module.device
        removed = torch.zeros((), device=device)
        whole = torch.zeros((), device=device)
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            gradient = parameter.grad
            if id(parameter) not in self._chosen or not acts_on(parameter, gradient):
                continue
            perpendicular, share = perpendicular_gradient(parameter, gradient)
            length = gradient.float().square().sum()  # before it is overwritten
            gradient.copy_(perpendicular)
            removed += (share * length).nan_to_num().to(device)
            whole += length.nan_to_num(posinf=0.0).to(device)
        self._share = torch.where(whole > 0, removed / whole, 0.0)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Tell of the last optimizer step of this batch, if there was one."""
        share, self._share = self._share, None
        if share is not None:
            self.publish(trainer, {f"{self.name}/removed_share": share})


def acts_on(parameter: Tensor, gradient: Any) -> bool:
    """Whether there is a dense real gradient that something can be orthogonal to."""
    return (
        isinstance(gradient, Tensor)
        and gradient.layout is torch.strided
        and parameter.numel() > 1
        and parameter.is_floating_point()
    )


def perpendicular_gradient(weight: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The part of a gradient orthogonal to a weight, at the gradient's length (arXiv 2501.04697).

    Both are taken as one vector, in float32 at least. Nothing waits for the device.

    Args:
        weight: any shape, floating point.
        gradient: the same shape.

    Returns:
        The new gradient, in shape and dtype of ``gradient``, and the part of its squared length
        that was along the weight, 0-dim, a fraction. A gradient that is all along the weight, up
        to rounding, gives 0 and 1; a weight of 0 and a gradient that is 0 or not finite give the
        gradient and 0.
    """
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    w, g = weight.detach().to(dtype).reshape(-1), gradient.detach().to(dtype).reshape(-1)
    # By the largest entry first, so that no square leaves the range of the dtype.
    largest = g.abs().amax()
    w, g = w / w.abs().amax(), g / largest
    w, g_length = w / torch.linalg.vector_norm(w), torch.linalg.vector_norm(g)
    g = g / g_length
    cosine = torch.dot(w, g)
    rest = g - cosine * w
    rest = rest - torch.dot(w, rest) * w  # once more: rounding of the first is of the size of g
    length = torch.linalg.vector_norm(rest)
    parallel = length <= NOISE * torch.finfo(dtype).eps
    new = torch.where(parallel, 0.0, rest * (g_length / length) * largest)
    usable = cosine.isfinite()  # not where a length is 0 or not finite
    new = torch.where(usable, new.reshape(gradient.shape).to(gradient.dtype), gradient.detach())
    return new, torch.where(usable, cosine.square().clamp(max=1.0), 0.0)
