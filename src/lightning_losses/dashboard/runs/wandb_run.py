# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A run from Weights & Biases: an offline run's folder, or a live run by its path."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_losses.dashboard.runs.run import Rows, Run, series_of, table_of
from lightning_losses.dashboard.runs.wandb_log import read_wandb_file


def read_offline_run(path: Path) -> Run:
    """The `.wandb` file and, from the folder it lies in, the tables that were logged."""
    found = read_wandb_file(path)

    def load(name: str) -> str:
        return (path.parent / "files" / name).read_text(encoding="utf-8")

    tables, notes = logged_tables(found.history, load)
    notes = [*found.notes, *notes, *(f"alert: {title}. {text}" for title, text in found.alerts)]
    series, epochs = series_of([without_media(row) for row in found.history])
    return Run(found.name or path.stem, series, tables, notes, epochs=epochs)


def read_live_run(path: str) -> Run:
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
            run.file(name).download(root=folder, replace=True)
            return (Path(folder) / name).read_text(encoding="utf-8")

        tables, notes = logged_tables(history, load)
    if state != "finished":
        notes.append(f"the run's state is {state}")
    series, epochs = series_of(history)
    return Run(name, series, tables, notes, epochs=epochs)


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
                notes.append(f"table {key} could not be read ({type(error).__name__})")
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
