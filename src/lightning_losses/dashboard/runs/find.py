# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From what was typed to runs: a folder, a file, a sweep's folder, or a path on a server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_losses.dashboard.runs.csv_run import read_csv_run
from lightning_losses.dashboard.runs.run import Run
from lightning_losses.dashboard.runs.wandb_run import read_live_run, read_offline_run

PLACES = ("", "csv", "lightning_logs/version_*", "version_*", "*/version_*")


def find_runs(places: Sequence[str]) -> list[Run]:
    """The runs at some places; a Hydra multirun's folder stands for all its jobs.

    Runs of a comparison are named by those overrides in which they differ, else by their folders.

    Raises:
        ValueError: there is no run at a place; says what was looked for.
    """
    runs = []
    for place in places:
        path = Path(place)
        if not path.exists():
            if re.fullmatch(r"[^/\s]+/[^/\s]+/[^/\s]+", place) and not place.startswith((".", "/")):
                runs.append(read_live_run(place))
                continue
            raise ValueError(
                f"{place} is not there; pass a run's folder, a Hydra multirun's folder, a "
                "run-*.wandb file, or entity/project/run_id of a Weights & Biases run."
            )
        folders = jobs(path)
        runs += [read_run(folder) for folder in folders or [path]]
    return named(runs) if len(runs) > 1 else runs


def jobs(path: Path) -> list[Path]:
    """The job folders of a Hydra multirun in the order of their numbers; none if it is not one."""
    if not path.is_dir() or where(path) is not None:
        return []
    found = [child for child in path.iterdir() if child.is_dir() and where(child) is not None]
    hydra = (path / "multirun.yaml").exists() or any((one / ".hydra").exists() for one in found)
    if not hydra and len(found) < 2:
        return []
    return sorted(found, key=lambda one: [int(n) for n in re.findall(r"\d+", one.name)] or [0])


def where(path: Path) -> Path | None:
    """The file that holds a run's curves: CSV before Weights & Biases, the newest of several."""
    if path.is_file():
        return path
    for pattern in PLACES:
        found = list(path.glob(f"{pattern}/metrics.csv" if pattern else "metrics.csv"))
        if found:
            return max(found, key=lambda one: one.stat().st_mtime)
    for pattern in ("run-*.wandb", "*run-*/run-*.wandb", "wandb/*run-*/run-*.wandb"):
        found = list(path.glob(pattern))
        if found:
            return max(found, key=lambda one: one.stat().st_mtime)
    return None


def read_run(path: Path) -> Run:
    """One run from its folder or file.

    Raises:
        ValueError: neither metrics.csv nor a run-*.wandb file is there.
    """
    found = where(path)
    if found is None:
        raise ValueError(
            f"{path} holds no run: looked for metrics.csv (in it, in csv/ and in version_*/) and "
            "for run-*.wandb (in it and in wandb/)."
        )
    folder = path if path.is_dir() else path.parent
    if found.suffix == ".wandb":
        run = read_offline_run(found)
    else:
        run = read_csv_run(found, folder.resolve().name)
    return run._replace(overrides=overrides(folder))


def overrides(folder: Path) -> list[str]:
    """What was typed after the program's name, if Hydra ran it; it writes a list of strings."""
    path = folder / ".hydra" / "overrides.yaml"
    if not path.exists():
        return []
    from omegaconf import OmegaConf

    try:
        found = OmegaConf.to_container(OmegaConf.load(path))
    except Exception:  # half-written YAML of a crashed run: the folder's name will do
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def named(runs: Sequence[Run]) -> list[Run]:
    """Names in which runs differ: their own overrides, else their names, numbered if need be."""
    shared = set.intersection(*(set(run.overrides) for run in runs))
    names = [" ".join(one for one in run.overrides if one not in shared) for run in runs]
    names = [name or run.name for name, run in zip(names, runs, strict=True)]
    for position, name in enumerate(names):
        if names.count(name) > 1:
            names[position] = f"{name} ({position + 1})"
    return [run._replace(name=name) for run, name in zip(runs, names, strict=True)]
