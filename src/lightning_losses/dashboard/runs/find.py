# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From what was typed to runs: a folder, a file, a sweep's folder, or a path on a server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from lightning_losses.dashboard.runs.config import config_of, overrides
from lightning_losses.dashboard.runs.csv_run import read_csv_log, read_tables
from lightning_losses.dashboard.runs.files import problem
from lightning_losses.dashboard.runs.run import (
    Log,
    Part,
    Rows,
    Run,
    clock_of,
    is_resumed,
    series_of,
    trainings,
)
from lightning_losses.dashboard.runs.wandb_run import read_live_runs, read_offline_runs

CSV_PLACES = ("metrics.csv", "csv/metrics.csv")
VERSIONS = ("version_*", "lightning_logs/version_*", "*/version_*")
WANDB_PLACES = ("run-*.wandb", "*run-*/run-*.wandb", "wandb/*run-*/run-*.wandb")

Watch = Callable[[Sequence[Path]], Iterable[Path]]
T = TypeVar("T")


def find_runs(places: Sequence[str], watch: Watch = iter) -> list[Run]:
    """The runs at some places; a Hydra multirun's folder stands for all its jobs.

    Versions of `lightning_logs` are runs of their own, but for those that a checkpoint resumed,
    which are one with what they go on from. Runs of a comparison are named by those overrides in
    which they differ, else by their folders.

    Args:
        watch: is handed the folders that are read and gives them back one by one.

    Raises:
        ValueError: there is no run at a place; says what was looked for.
    """
    runs: list[Run] = []
    local: list[Path] = []
    swept: set[Path] = set()
    for place in places:
        path = Path(place)
        if exists(path):
            found = readable(path, jobs)
            local += found or [path]
            swept |= set(found)
        elif re.fullmatch(r"[^/\s]+/[^/\s]+/[^/\s]+", place) and not place.startswith((".", "/")):
            runs += read_live_runs(place)
        else:
            raise ValueError(
                f"{place} is not there; pass a run's folder, a Hydra multirun's folder, a "
                "run-*.wandb file, or entity/project/run_id of a Weights & Biases run."
            )
    for path in watch(local):
        runs += readable(path, lambda one: read_runs(one, job=one in swept))
    return named(runs) if len(runs) > 1 else runs


def readable(path: Path, read: Callable[[Path], list[T]]) -> list[T]:
    """What is read of a place.

    Raises:
        ValueError: it may not be read.
    """
    try:
        return read(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{path} cannot be read ({reason}).") from error


def exists(path: Path) -> bool:
    """Whether there is anything at a path that was typed, which may be no path at all."""
    try:
        return path.exists() or path.is_symlink()
    except (OSError, ValueError):  # too long for a name, or NUL in it
        return False


def jobs(path: Path) -> list[Path]:
    """The job folders of a Hydra multirun in the order of their numbers; none if it is not one."""
    if not path.is_dir():
        return []
    folders = [child for child in path.iterdir() if child.is_dir()]
    hydra = [child for child in folders if (child / ".hydra").is_dir()]
    multirun = bool(hydra) or (path / "multirun.yaml").exists()
    if not multirun and logs(path):
        return []
    full = [child for child in folders if logs(child)]
    if not full or (not multirun and len(full) < 2):
        return []
    # A job that crashed before it logged anything is one of the sweep's too.
    return sorted(
        {*full, *hydra}, key=lambda one: ([int(n) for n in re.findall(r"\d+", one.name)], one.name)
    )


def logs(folder: Path) -> list[list[Path]]:
    """The files that hold curves in a run's folder: CSV before Weights & Biases.

    A list for each run; of several files in one, those after the first resume it.
    """
    if (own := [folder / place for place in CSV_PLACES if (folder / place).exists()]) != []:
        return [own[:1]]
    for pattern in VERSIONS:
        versions = sorted(folder.glob(f"{pattern}/metrics.csv"), key=version)
        if versions:
            return [[path] for path in versions]
    for pattern in WANDB_PLACES:
        by_id: dict[str, list[Path]] = {}
        for path in sorted(folder.glob(pattern)):
            by_id.setdefault(path.stem.removeprefix("run-"), []).append(path)
        if by_id:
            # Folders of offline runs begin with the time, so the last is the newest.
            return [list(unlinked(paths)) for paths in by_id.values()]
    return []


def unlinked(paths: Sequence[Path]) -> list[Path]:
    """Each file once: W&B links latest-run to one of the others."""
    return list({path.resolve(): path for path in paths}.values())


def version(path: Path) -> tuple[int, str]:
    """The number in the name of a metrics file's folder."""
    digits = re.findall(r"\d+", path.parent.name)
    return (int(digits[-1]) if digits else -1, path.parent.name)


def read_runs(path: Path, job: bool = False) -> list[Run]:
    """The runs of one folder or file.

    Args:
        job: of a sweep; then a folder without readable curves is a run of which only that is known.

    Raises:
        ValueError: neither metrics.csv nor a run-*.wandb file is there, or a file is no run.
    """
    if not path.is_dir():
        return file_runs(path)
    found = logs(path)
    if not found and job:
        return [unread(path, "nothing was logged: it ended before its first step was written")]
    if not found:
        raise ValueError(
            f"{path} holds no run: looked for metrics.csv (in it, in csv/ and in version_*/) and "
            "for run-*.wandb (in it and in wandb/)."
        )
    try:
        return logged_runs(found, path)
    except ValueError as error:
        if job:
            return [unread(path, str(error))]
        raise


def unread(folder: Path, note: str) -> Run:
    """A run of which only that is known."""
    name, config = folder.resolve().name, config_of(folder)[0]
    return Run(name, {}, {}, [note], overrides(folder), config=config)


def logged_runs(found: Sequence[Sequence[Path]], folder: Path) -> list[Run]:
    """The runs in the files of one folder, as `logs` found them.

    Raises:
        ValueError: none may be read, or one is no run.
    """
    if found[0][0].suffix != ".wandb":
        return csv_runs(inside([paths[0] for paths in found], folder), folder)
    runs = [run for paths in found for run in read_offline_runs(inside(paths, folder))]
    extra, notes = config_of(folder)
    return [
        run._replace(
            overrides=overrides(folder), config=extra | run.config, notes=run.notes + notes
        )
        for run in runs
    ]


def file_runs(path: Path) -> list[Run]:
    """The runs in one file that was named.

    Raises:
        ValueError: it is none of a run's files.
    """
    why = problem(path)
    if why:
        raise ValueError(f"{path} cannot be read: {why}.")
    if path.suffix == ".wandb":
        return read_offline_runs([path])
    if path.suffix != ".csv":
        raise ValueError(
            f"{path} is no run: pass the metrics.csv of a CSVLogger, a run-*.wandb file, or the "
            "folder of one."
        )
    log, notes = read_csv_log(path)
    if any("has no column step" in note for note in notes) or (
        not len(log.steps) and any("could not" in note for note in notes)
    ):
        raise ValueError(
            f"{path} is no run: {'; '.join(notes)}. Pass the metrics.csv of a CSVLogger."
        )
    return csv_runs([path], path.parent)


def inside(paths: Sequence[Path], root: Path) -> list[Path]:
    """Those files that may be read.

    Raises:
        ValueError: none of them may.
    """
    reasons = {path: problem(path, root) for path in paths}
    good = [path for path, why in reasons.items() if not why]
    if not good:
        raise ValueError(f"{root} holds no run that can be read: {'; '.join(reasons.values())}.")
    return good


def csv_runs(files: Sequence[Path], folder: Path) -> list[Run]:
    """The runs in the metrics files of one folder; what resumes another is joined with it."""
    groups: list[list[tuple[Path, Log, list[str]]]] = []
    for path in files:
        log, notes = read_csv_log(path)
        before = groups[-1] if groups else []
        if before and goes_on(log, before[-1][1]):
            before.append((path, log, notes))
        else:
            groups.append([(path, log, notes)])
    runs = []
    for group in groups:
        name = folder.resolve().name
        if len(groups) > 1:
            name = " to ".join(dict.fromkeys(group[at][0].parent.name for at in (0, -1)))
        runs += joined(group, name, folder)
    return runs


def goes_on(log: Log, before: Log) -> bool:
    """Whether a log begins, beyond its own stride, where another one has been or is about to be."""
    own, other = log.steps[log.main], before.steps[before.main]
    if not len(own) or not len(other):
        return False
    stride = float(np.median(np.diff(other))) if len(other) > 1 else 1.0
    return is_resumed(own, float(other[0])) and bool(own[0] <= other.max() + 2 * max(stride, 1.0))


def joined(group: Sequence[tuple[Path, Log, list[str]]], name: str, folder: Path) -> list[Run]:
    """The trainings in some files, of which each goes on from the one before."""
    log = stacked([log for _, log, _ in group])
    notes = [note for _, _, problems in group for note in problems]
    tables: dict[str, Rows] = {}
    ended = None
    for path, _, _ in group:
        more, ended, problems = read_tables(path.parent, folder)
        notes += problems
        for table, rows in more.items():
            tables[table] = tables.get(table, []) + rows
    config, problems = config_of(folder, group[-1][0])
    whole = Run(name, {}, tables, notes + problems, overrides(folder), config=config, ended=ended)
    if len(group) > 1:
        parts = ", ".join(path.parent.name for path, _, _ in group)
        whole.notes.append(f"joined: {len(group)} parts of one resumed training ({parts})")
    several = trainings(log) if len(log.steps) else [[Part(0, 0, 0.0)]]
    runs = []
    for at, parts_of in enumerate(several, 1):
        clock, epochs = clock_of(log, parts_of)
        run = whole._replace(
            series=series_of(log, parts_of),
            clock=clock,
            epochs=epochs,
            resumed=[part.first_step for part in parts_of[1:]],
        )
        if len(several) > 1:
            note = f"this is training {at} of {len(several)} in one metrics.csv"
            last = at == len(several)
            run = run._replace(
                name=f"{name}, training {at}",
                notes=[note, *(whole.notes if last else [])],
                tables=tables if last else {},
                ended=ended if last else None,
            )
        runs.append(run)
    return runs


def stacked(several: Sequence[Log]) -> Log:
    """Logs one after another, as if one process had written them."""
    if len(several) == 1:
        return several[0]
    starts = np.cumsum([0, *(len(log.steps) for log in several)])
    names = dict.fromkeys(name for log in several for name in log.columns)
    columns = {}
    for name in names:
        own = [
            (log.columns[name], start)
            for log, start in zip(several, starts, strict=False)
            if name in log.columns
        ]
        rows = np.concatenate([cells[0] + start for cells, start in own])
        columns[name] = rows, np.concatenate([cells[1] for cells, _ in own])
    return Log(np.concatenate([log.steps for log in several]), columns)


def named(runs: Sequence[Run]) -> list[Run]:
    """Names in which runs differ: their own overrides, else their names, numbered if need be."""
    shared = set.intersection(*(set(run.overrides) for run in runs))
    names = [" ".join(one for one in run.overrides if one not in shared) for run in runs]
    if len(set(names)) < len(runs) and len({run.name for run in runs}) == len(runs):
        names = [""] * len(runs)
    names = [name or run.name for name, run in zip(names, runs, strict=True)]
    numbered = [
        f"{name} ({position + 1})" if names.count(name) > 1 else name
        for position, name in enumerate(names)
    ]
    return [run._replace(name=name) for run, name in zip(runs, numbered, strict=True)]
