# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Reports and Weights & Biases views of what was logged; nothing in the package imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_losses.dashboard.wandb_ui.callback import WandbDashboard

__all__ = ["WandbDashboard"]


def __getattr__(name: str) -> Any:
    """The callback when it is asked for: a report needs neither torch nor Lightning."""
    if name in __all__:
        from lightning_losses.dashboard.wandb_ui import callback

        return getattr(callback, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
