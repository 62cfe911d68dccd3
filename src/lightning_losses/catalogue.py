# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What is in the catalogue: a key is the name of a file in ``conf/<group>/``."""

from __future__ import annotations

from importlib.resources import files


def keys(group: str) -> list[str]:
    """The keys of a config group (``loss``, ``target``, ``callbacks``, ...), sorted."""
    folder = files("lightning_losses.conf") / group
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def yaml_text(group: str, key: str) -> str:
    """The YAML of a key, as shipped."""
    return (files("lightning_losses.conf") / group / f"{key}.yaml").read_text()
