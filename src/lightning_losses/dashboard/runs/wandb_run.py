# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A run from Weights & Biases: an offline run's folder, or a live run by its path."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from lightning_losses.dashboard.runs.config import flat
from lightning_losses.dashboard.runs.files import problem, read_bytes
from lightning_losses.dashboard.runs.run import (
    EXITED,
    Cell,
    Ended,
    Rows,
    Run,
    clock_of,
    log_of,
    number,
    series_of,
    table_of,
    trainings,
)
from lightning_losses.dashboard.runs.wandb_log import read_wandb_file

VERSIONS = ("lightning-losses", "torch", "lightning", "pytorch-lightning", "transformers")


def read_offline_runs(paths: Sequence[Path]) -> list[Run]:
    """The trainings in the `.wandb` files of one run, which is resumed in a file of its own.

    Mostly that is one; a sweep that did not finish its run after each job leaves several in it.
    """
    history: list[dict[str, Any]] = []
    tables: dict[str, Rows] = {}
    notes: list[str] = []
    about: dict[str, str] = {}
    config: dict[str, Cell] = {}
    name, ended = paths[-1].stem, None
    for path in paths:
        why = problem(path)
        if why:
            raise ValueError(f"{path} cannot be read: {why}.")
        content = read_wandb_file(path)
        files = path.parent / "files"

        def load(name: str, files: Path = files) -> str:
            data, why = read_bytes(files / name, files)
            if data is None:
                raise ValueError(why[0])
            return data.decode()

        more, problems = logged_tables(content.history, load)
        for key, rows in more.items():
            tables.setdefault(key, []).extend(rows)
        history += [without_media(row) for row in content.history]
        last = path == paths[-1]
        notes += content.notes if last else [one for one in content.notes if "no exit" not in one]
        notes += [*problems, *(f"alert: {title}. {text}" for title, text in content.alerts)]
        about |= content.about | versions(files)
        config |= flat(content.config)
        name = content.name or name
        ended = ended_of(content.summary)
        if ended is None and content.exited:
            reason = f"exit code {content.exit_code}" if content.exit_code else EXITED
            ended = Ended(reason, nan, nan, nan, path.name)
    return split(history, Run(name, {}, tables, notes, config=config, about=about, ended=ended))


def ended_of(summary: Mapping[str, Any]) -> Ended | None:
    """What the callbacks wrote at the end of the training."""
    reason = summary.get("ended/reason")
    if not reason:
        return None
    step, planned, epoch, *sizes = (
        value if (value := number(summary.get(f"ended/{name}"))) is not None else nan
        for name in ("step", "planned_steps", "epoch", "num_parameters", "rows_seen")
    )
    return Ended(str(reason), step, planned, epoch, "ended/reason in the run's summary", *sizes)


def split(history: Iterable[Mapping[str, Any]], whole: Run) -> list[Run]:
    """A run's curves; one run a training if several were logged into it, which is said."""
    log = log_of(history)
    several = trainings(log)
    runs = []
    for at, parts in enumerate(several, 1):
        series = series_of(log, parts)
        clock, epochs = clock_of(log, parts)
        about = dict(whole.about)
        if len(clock.seconds):
            about["duration"] = duration(float(clock.seconds[-1]))
            if epochs and epochs > 1:
                about["an epoch"] = duration(float(clock.seconds[-1]) / epochs)
        run = whole._replace(series=series, clock=clock, epochs=epochs, about=about)
        run = run._replace(resumed=[part.first_step for part in parts[1:]])
        if len(several) > 1:
            note = (
                f"this is training {at} of {len(several)} in one Weights & Biases run, "
                f"{whole.name}: call wandb.finish() at the end of each job of a sweep"
            )
            # Notes, tables and how it ended are of the whole, so of the last training at best.
            last = at == len(several)
            run = run._replace(
                name=f"{whole.name}, training {at}",
                notes=[note, *(whole.notes if last else [])],
                tables=whole.tables if last else {},
                ended=whole.ended if last else None,
            )
        runs.append(run)
    return runs


def versions(files: Path) -> dict[str, str]:
    """Versions of the libraries that matter most, as W&B lists them beside a run."""
    data, _ = read_bytes(files / "requirements.txt", files)
    lines = (data or b"").decode(errors="replace").splitlines()
    pairs = dict(line.split("==", 1) for line in lines if line.count("==") == 1)
    known = [f"{name} {pairs[name].strip()}" for name in VERSIONS if name in pairs]
    return {"versions": ", ".join(known)} if known else {}


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def read_live_runs(path: str) -> list[Run]:
    """A run on a Weights & Biases server, by `entity/project/run_id`.

    Raises:
        ValueError: no login, no such run, or no connection; says what to do.
    """
    import wandb

    try:
        run = wandb.Api().run(path)
        history = [dict(row) for row in run.scan_history()]
        state, name = str(run.state), str(run.name or run.id)
    except Exception as error:  # wandb raises its own, requests' and plain ones alike
        raise ValueError(
            f"{path} is no file or folder here, and as a Weights & Biases run it could not be read "
            f"({type(error).__name__}: {str(error).strip()[:300]}). Run `wandb login` for a live "
            "run, or pass a run's folder."
        ) from error

    with tempfile.TemporaryDirectory() as folder:

        def load(name: str) -> str:
            place = Path(folder) / name
            if not place.resolve().is_relative_to(Path(folder).resolve()):
                raise ValueError("its path leads out of the run")
            run.file(name).download(root=folder, replace=True)
            return place.read_text(encoding="utf-8")

        tables, notes = logged_tables(history, load)
    ended = ended_of(dict(getattr(run, "summary", {})))
    if state == "finished":
        ended = ended or Ended(EXITED, nan, nan, nan, "the server")
    else:
        notes.append(f"the run's state is {state}")
    config = flat(dict(getattr(run, "config", {})))
    return split(history, Run(name, {}, tables, notes, config=config, ended=ended))


def logged_tables(
    history: Iterable[Mapping[str, Any]], load: Callable[[str], str]
) -> tuple[dict[str, Rows], list[str]]:
    """Every logged table's rows, by the last part of its name; later ones are appended."""
    tables: dict[str, Rows] = {}
    notes = []
    for row in history:
        for key, path in table_paths(row):
            name = key.rsplit("/", 1)[-1].removesuffix("_table")
            try:
                content = json.loads(load(path))
                rows = table_of(content["columns"], content["data"])
            except Exception as error:  # a table is not worth losing the report for
                why = str(error) if type(error) is ValueError else type(error).__name__
                notes.append(f"table {key} could not be read ({why})")
                continue
            known = tables.setdefault(name, [])
            known += [new for new in rows if new not in known]
    return tables, notes


def without_media(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an offline history without the sizes of its pictures, tables and histograms."""
    media = {key.removesuffix("._type") for key in row if key.endswith("._type")}
    return {key: value for key, value in row.items() if key.rpartition(".")[0] not in media}


def table_paths(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and path of the tables in a row, nested (live) or flattened with dots (offline)."""
    found = []
    for key, value in row.items():
        if isinstance(value, dict) and value.get("_type") == "table-file":
            found.append((key, str(value.get("path", ""))))
        elif key.endswith("._type") and value == "table-file":
            name = key.removesuffix("._type")
            found.append((name, str(row.get(f"{name}.path", ""))))
    return found
