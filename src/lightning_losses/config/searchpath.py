# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Puts this package's configs on Hydra's search path, after the user's own, so that theirs win.

Hydra finds it by ``hydra_plugins/lightning_losses.py``, from 1.4 on by an entry point as well; and
`build_objective` registers it, for environments where Hydra looks in neither. Here is also the
resolver that those configs use.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf


class LightningLossesSearchPath(SearchPathPlugin):
    """Appends ``pkg://lightning_losses.conf``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra once per application."""
        search_path.append(provider="lightning-losses", path="pkg://lightning_losses.conf")


def run_dir() -> str:
    """The folder of the running Hydra job; ``.`` where none runs, as in a notebook.

    ``${hydra:runtime.output_dir}`` would be an error there.
    """
    if not HydraConfig.initialized():
        return "."
    runtime = HydraConfig.get().runtime
    return "." if OmegaConf.is_missing(runtime, "output_dir") else str(runtime.output_dir)


# Not cached: the jobs of a multirun share a process and differ in the folder.
OmegaConf.register_new_resolver("lightning_losses.run_dir", run_dir, replace=True)
