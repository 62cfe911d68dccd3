# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Calibrator`: what all have in common. Fit on logits and classes, then turn logits into p."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_losses.wide_buffers import WideBuffers

Own = TypeVar("Own", bound="Calibrator")

#: Logits are not taken to be further below the row's largest one than this: -inf (a masked class)
#: stays a probability of 0 at any temperature allowed here, and its products stay numbers.
FLOOR = -1e5


class Calibrator(WideBuffers):
    """A map from logits `(..., C)` to probabilities `(..., C)`, fitted on held-out rows.

    A subclass names its numbers in `names`, sets them in `solve`, and reads them in `apply_to`.
    They are float64 buffers, empty until `fit`, and part of the `state_dict`, which a new, unfitted
    calibrator can load. Nothing here trains with the model: there are no parameters.

    Raises:
        ValueError: in `fit`, shapes that do not go together, or no row is left.
        RuntimeError: when it is called, not fitted.

    Examples:
        >>> class Frequencies(Calibrator):
        ...     names = ("share",)
        ...
        ...     def solve(self, logits, target):
        ...         counts = torch.bincount(target, minlength=logits.shape[1])
        ...         return {"share": counts / len(target)}
        ...
        ...     def apply_to(self, logits):
        ...         return self.number("share", logits).expand(logits.shape)
        >>> fitted = Frequencies().fit(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
        >>> fitted(torch.zeros(1, 2))
        tensor([[0.7500, 0.2500]])
    """

    names: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        for name in self.names:
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))

    @property
    def fitted(self) -> bool:
        """Whether `fit` was called, or a fitted state was loaded."""
        return all(getattr(self, name).numel() > 0 for name in self.names)

    def fit(self: Own, logits: Tensor, target: Tensor) -> Own:
        """Choose the map by these rows, in float64; works inside `torch.inference_mode`.

        Args:
            logits: `(N, C)`, any floating dtype, of rows the model was not trained on.
            target: `(N,)` int64 classes. Rows whose target is outside [0, C), or that hold a NaN or
                a +inf, are left out.

        Raises:
            ValueError: shapes do not go together, or no row is left.
        """
        if logits.ndim != 2 or target.shape != logits.shape[:1]:
            raise ValueError(
                f"{type(self).__name__}.fit needs logits (N, C) and classes (N,), found "
                f"{tuple(logits.shape)} and {tuple(target.shape)}"
            )
        # Validation runs in inference mode, whose tensors autograd refuses; copies made outside of
        # it are ordinary.
        with torch.inference_mode(False):
            z, target = logits.detach().clone(), target.detach().clone().long()
            keep = (target >= 0) & (target < z.shape[1]) & (z < torch.inf).all(1)
            z, target = finite(z[keep].double()), target[keep]
            if not len(z):
                raise ValueError(
                    f"{type(self).__name__}.fit was given no usable row out of {len(logits)}; pass "
                    "rows with a class and finite logits"
                )
            with torch.enable_grad():
                found = self.solve(z, target)
            for name in self.names:
                setattr(self, name, found[name].detach().double())
        return self

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities `(..., C)`, float32 at least.

        Raises:
            RuntimeError: not fitted.
        """
        if not self.fitted:
            raise RuntimeError(
                f"{type(self).__name__} is not fitted; call fit(logits, target) on held-out rows"
            )
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return self.apply_to(finite(logits.to(dtype)))

    def solve(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The numbers of the map by name, from float64 logits `(N, C)` and classes `(N,)`."""
        raise NotImplementedError

    def apply_to(self, logits: Tensor) -> Tensor:
        """Probabilities `(..., C)` of logits `(..., C)`, in their dtype."""
        raise NotImplementedError

    def number(self, name: str, like: Tensor) -> Tensor:
        """One of `names` in the dtype and on the device of a tensor."""
        value: Tensor = getattr(self, name)
        return value.to(like)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in self.names:  # sizes are only known after a fit
            value = state_dict.get(prefix + name)
            if isinstance(value, Tensor):
                setattr(self, name, torch.empty_like(value, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def finite(logits: Tensor) -> Tensor:
    """Logits with -inf, and what is as good as that, a large number below the row's largest."""
    top = logits.amax(-1, keepdim=True)
    return torch.maximum(logits, torch.where(top.isfinite(), top, 0) + FLOOR)


def minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor], steps: int = 200) -> None:
    """LBFGS with a line search until the gradient is 1e-9, for smooth losses in float64."""
    optimizer = torch.optim.LBFGS(
        list(parameters),
        lr=1.0,
        max_iter=steps,
        tolerance_grad=1e-9,
        tolerance_change=1e-13,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
