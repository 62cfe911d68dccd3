# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a run was started with: Hydra's config and overrides, a logger's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_losses.dashboard.runs.files import problem, read_bytes
from lightning_losses.dashboard.runs.run import Cell, number

MOST_BYTES = 1_000_000  # a config larger than this is none
DEEPEST = 20


def overrides(folder: Path) -> list[str]:
    """What was typed after the program's name, if Hydra ran it; it writes a list of strings."""
    value = load_yaml(folder / ".hydra" / "overrides.yaml", folder)[0]
    return [str(one) for one in value] if isinstance(value, list) else []


def config_of(folder: Path, metrics: Path | None = None) -> tuple[dict[str, Cell], list[str]]:
    """Hydra's config of a run's folder and the hyperparameters beside the metrics, flat."""
    config: dict[str, Cell] = {}
    notes: list[str] = []
    places = [folder / ".hydra" / "config.yaml"]
    if metrics is not None:
        places.append(metrics.parent / "hparams.yaml")
    for path in places:
        value, problems = load_yaml(path, folder)
        notes += problems
        if isinstance(value, dict):
            config |= flat(value)
    return config, notes


def load_yaml(path: Path, root: Path) -> tuple[Any, list[str]]:
    """What a YAML file holds, plain; None if it is not there or not plain."""
    if not path.exists() and not path.is_symlink():
        return None, []
    why = problem(path, root)
    if not why and path.stat().st_size > MOST_BYTES:
        why = f"{path.name} was not read: it is too large for a config"
    if why:
        return None, [why]
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data, problems = read_bytes(path, root)
    if data is None or deep(data):
        return None, problems or [f"{path.name} was not read: it is nested too deeply"]
    try:
        return yaml.load(data.decode(errors="replace"), loader), []
    except Exception as error:  # half-written by a crashed run, or with tags of Python
        return None, [f"{path.name} could not be read ({type(error).__name__})"]


def deep(data: bytes) -> bool:
    """Whether brackets are nested so deeply that a parser might not come back."""
    level = most = 0
    for letter in data:
        if letter in b"[{":
            level += 1
            most = max(most, level)
        elif letter in b"]}":
            level -= 1
    return most > 100


def flat(config: Mapping[str, Any], before: str = "", depth: int = 0) -> dict[str, Cell]:
    """Nested names joined by dots; lists as text; W&B's own entries left out."""
    cells: dict[str, Cell] = {}
    for key, value in config.items():
        name = f"{before}{key}"
        if str(key) == "_wandb":
            continue
        if isinstance(value, Mapping) and depth < DEEPEST:
            cells |= flat(value, f"{name}.", depth + 1)
        elif isinstance(value, bool) or value is None:
            cells[name] = str(value).lower() if value is not None else "null"
        else:
            as_number = number(value) if not isinstance(value, str) else None
            cells[name] = as_number if as_number is not None else str(value)[:200]
    return cells
