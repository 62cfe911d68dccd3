# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`muted`: a LightningModule whose methods do nothing beyond the module, for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import LightningModule

#: Methods that log, speak, differentiate or change gradients.
ACTING = (
    "log",
    "log_dict",
    "print",
    "manual_backward",
    "clip_gradients",
    "zero_grad",
    "toggle_optimizer",
    "untoggle_optimizer",
)


@contextlib.contextmanager
def muted(module: LightningModule, **attributes: Any) -> Iterator[None]:
    """Put methods that act beyond the module out of action, by attributes of the instance.

    Optimizers and schedulers are replaced by as many that can be read and do not step.

    Args:
        module: whose methods are muted.
        **attributes: further attributes of the instance for the same while.
    """
    optimizers, schedulers = module.optimizers, module.lr_schedulers
    shadows: dict[str, Any] = {
        **dict.fromkeys(ACTING, _nothing),
        "optimizers": lambda *args, **kwargs: _idle(optimizers(*args, **kwargs)),
        "lr_schedulers": lambda: _idle(schedulers()),
        **attributes,
    }
    hidden = {name: module.__dict__[name] for name in shadows if name in module.__dict__}
    module.__dict__.update(shadows)
    try:
        yield
    finally:
        for name in shadows:
            module.__dict__.pop(name, None)
        module.__dict__.update(hidden)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


class _Idle:
    """An optimizer or scheduler that can be read and does nothing, but for running a closure."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def step(self, closure: Any = None, *args: Any, **kwargs: Any) -> Any:
        return closure() if callable(closure) else None

    def zero_grad(self, *args: Any, **kwargs: Any) -> None:
        return None

    def toggle_model(self, *args: Any, **kwargs: Any) -> Any:
        return contextlib.nullcontext()


def _idle(real: Any) -> Any:
    """Idle stand-ins, as many and in the same container as the real ones."""
    if isinstance(real, (list, tuple)):
        return type(real)(_Idle(one) for one in real)
    return None if real is None else _Idle(real)
