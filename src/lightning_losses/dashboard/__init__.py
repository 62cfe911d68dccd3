# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Reports and Weights & Biases views of what was logged; nothing in the package imports it."""

from lightning_losses.dashboard.wandb_ui.callback import WandbDashboard

__all__ = ["WandbDashboard"]
