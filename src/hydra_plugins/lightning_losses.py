# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Where Hydra looks for plug-ins: ours puts the configs of lightning-losses on the search path.

The folder is a namespace that other packages put their plug-ins in too, so it has no ``__init__``.
"""

from lightning_losses.config.searchpath import LightningLossesSearchPath

__all__ = ["LightningLossesSearchPath"]
