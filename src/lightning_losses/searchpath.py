# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Puts this package's configs on Hydra's search path, after the user's own, so that theirs win.

Registered at import, not through the `hydra_plugins` namespace package: an editable install does
not find that, silently.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin


class LightningLossesSearchPath(SearchPathPlugin):
    """Appends ``pkg://lightning_losses.conf``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once per application."""
        search_path.append(provider="lightning-losses", path="pkg://lightning_losses.conf")


Plugins.instance().register(LightningLossesSearchPath)
