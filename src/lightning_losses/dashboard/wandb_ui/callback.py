# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a Weights & Biases run needs beside scalars: step axis, summaries, tables, pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeGuard

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from lightning_losses.dashboard.charts.charts import charts
from lightning_losses.dashboard.charts.theme import coloured, headed
from lightning_losses.dashboard.charts.vega import vega
from lightning_losses.dashboard.panels.catalogue import Panel
from lightning_losses.dashboard.runs.run import Rows, Run, table_of
from lightning_losses.dashboard.wandb_ui.names import (
    STEP,
    diagram_name,
    histogram_name,
    metrics,
    panel_of,
    table_name,
)


class WandbDashboard(Callback):
    """Completes what the monitors log, in every `WandbLogger` of the trainer, online or offline.

    When a run begins, every name of the panels is defined with ``trainer/global_step`` as its axis
    and, where the smallest or largest value is worth keeping, with a summary. At the end of
    validations, of tests and of training epochs, the newest table of every monitor (its ``table``)
    is logged: as ``tables/<table>``; as picture ``<monitor>/[<stage>/]diagram``, where a panel
    draws it, which has a step slider without any preset; and for calibration as
    ``calibration/<stage>/confidence_histogram``. A table that is still the same is not logged
    again. The views of these are made by ``lightning-losses push``.

    Only rank zero logs. Without a WandbLogger it says so once and does nothing. A picture takes a
    fifth of a second and needs vl-convert and pillow: ``pip install "lightning-losses[wandb]"``.
    ``WandbLogger(offline=True)`` sets the variable ``WANDB_MODE`` of the whole process; this
    callback puts back what it found when it was made.

    Args:
        pictures: also log pictures.
    """

    def __init__(self, pictures: bool = True) -> None:
        self.pictures = pictures
        self._mode = os.environ.get("WANDB_MODE")
        self._said: set[str] = set()
        self._defined: set[str] = set()  # ids of runs
        self._logged: dict[Callback, list[dict[str, Any]]] = {}  # its last table

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Define axes and summaries, before anything is logged."""
        loggers = [one for one in trainer.loggers if isinstance(one, WandbLogger)]
        if not loggers:
            self._say_once("the trainer has no WandbLogger, so nothing is done. Add logger=wandb.")
        for logger in loggers if trainer.is_global_zero else ():
            run = logger.experiment
            if str(run.id) in self._defined:
                continue
            self._defined.add(str(run.id))
            for metric in metrics():
                run.define_metric(
                    metric.name,
                    step_metric=STEP,
                    step_sync=True,  # as Lightning's own definition of * has it
                    summary=metric.summary or None,
                )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log; every monitor has finished its table by now."""
        if not trainer.sanity_checking:
            self._log(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same."""
        self._log(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, for runs that have no validation."""
        self._log(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put back the WANDB_MODE that `WandbLogger(offline=True)` has changed."""
        self._restore_mode(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The same."""
        self._restore_mode(trainer)

    def _restore_mode(self, trainer: Trainer) -> None:
        offline = any(isinstance(one, WandbLogger) and one._offline for one in trainer.loggers)
        if offline and os.environ.get("WANDB_MODE") == "dryrun":
            if self._mode is None:
                del os.environ["WANDB_MODE"]
            else:
                os.environ["WANDB_MODE"] = self._mode

    def _log(self, trainer: Trainer) -> None:
        loggers = [one for one in trainer.loggers if isinstance(one, WandbLogger)]
        if not loggers or not trainer.is_global_zero:
            return
        found: list[tuple[str, list[dict[str, Any]]]] = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            table = getattr(callback, "table", None)
            if is_table(table) and table is not self._logged.get(callback):
                self._logged[callback] = table
                found.append((str(getattr(callback, "name", type(callback).__name__)), table))
        if not found:
            return
        row: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            for name, table in found:
                row |= self._media(name, table, Path(folder))
            # Lightning counts so itself, and global_step is one ahead at a validation: with the
            # same count, a picture stands at the step of the scalars that belong to it.
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            for logger in loggers:
                logger.experiment.log({**row, STEP: step})

    def _media(self, monitor: str, table: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
        """A monitor's table as everything that W&B can show of it."""
        import numpy as np
        import wandb

        columns: list[str | int] = [*table[0]]
        cells = [[row[column] for column in table[0]] for row in table]
        panel = panel_of({*table[0]})
        if panel is None:
            return {f"tables/{monitor}": wandb.Table(columns=columns, data=cells)}
        found: dict[str, Any] = {
            table_name(panel, monitor): wandb.Table(columns=columns, data=cells)
        }
        if panel.kind == "reliability":
            for stage, counts, edges in histograms(table):
                histogram = wandb.Histogram(np_histogram=(np.array(counts), np.array(edges)))
                found[histogram_name(monitor, stage)] = histogram
        if self.pictures:
            try:
                import_module("PIL.Image")  # which wandb.Image needs
                drawn = pictures(panel, table_of(table[0], cells))
            except ImportError as error:
                self._say_once(
                    f"pictures are left out, because {error.name} is not installed; write: pip "
                    'install "lightning-losses[wandb]", or WandbDashboard(pictures=False).'
                )
                drawn = []
            for part, png in drawn:
                name = diagram_name(monitor, part)
                path = folder / f"{name.replace('/', '_')}.png"
                path.write_bytes(png)
                found[name] = wandb.Image(str(path))
        return found

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            rank_zero_warn(f"WandbDashboard: {message}")


def is_table(found: object) -> TypeGuard[list[dict[str, Any]]]:
    """Whether this is what a monitor keeps in `table`: rows, a dict each, and at least one."""
    return isinstance(found, list) and bool(found) and all(isinstance(row, dict) for row in found)


def histograms(table: Sequence[dict[str, Any]]) -> list[tuple[str, list[int], list[float]]]:
    """Stage, counts and edges of each stage in a reliability table."""
    found = []
    for stage in dict.fromkeys(str(row["stage"]) for row in table):
        rows = [row for row in table if row["stage"] == stage]
        edges = [float(row["lower"]) for row in rows] + [float(rows[-1]["upper"])]
        found.append((stage, [int(row["count"]) for row in rows], edges))
    return found


def pictures(panel: Panel, rows: Rows) -> list[tuple[str, bytes]]:
    """The PNGs that a panel draws of a table: part (a stage, or nothing) and bytes.

    Raises:
        ImportError: vl-convert is not installed.
    """
    import vl_convert

    found = []
    for chart in charts(panel, Run("", {}, {panel.table: rows}, [])):
        plain = vega(chart)
        if plain is not None:
            title = f"{panel.title}, {chart.part}" if chart.part else panel.title
            spec = headed(plain, title, [f"healthy: {panel.healthy}"]) | {"padding": 16}
            found.append((chart.part, vl_convert.vegalite_to_png(coloured(spec), scale=1.5)))
    return found
