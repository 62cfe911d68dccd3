# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Training objectives for PyTorch Lightning, composed by Hydra, computed in one pass, watched."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_losses.config.build import build_objective
    from lightning_losses.mixin import LossMixin
    from lightning_losses.objective import Objective
    from lightning_losses.record import LossRecord
    from lightning_losses.softmax import ClassRange, SoftmaxStats, softmax_stats
    from lightning_losses.spectral_reparam import sigma_reparam
    from lightning_losses.term import Term

__all__ = [
    "ClassRange",
    "LossMixin",
    "LossRecord",
    "Objective",
    "SoftmaxStats",
    "Term",
    "build_objective",
    "sigma_reparam",
    "softmax_stats",
]

# Imported when they are asked for: torch and Lightning take seconds, and neither the command line
# nor Hydra's search for plug-ins, which import this package too, need them.
_MODULES = {
    "ClassRange": "softmax",
    "LossMixin": "mixin",
    "LossRecord": "record",
    "Objective": "objective",
    "SoftmaxStats": "softmax",
    "Term": "term",
    "build_objective": "config.build",
    "sigma_reparam": "spectral_reparam",
    "softmax_stats": "softmax",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
