# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the small examples share: arguments, a training with a CSV log, and the report."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger

from lightning_losses.dashboard.report.write import write_report


def arguments(name: str, steps: int, about: str | None) -> argparse.ArgumentParser:
    """`--steps`, `--out` and `--seed`; examples add their own."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=steps, help="optimizer steps; 4 for a try")
    parser.add_argument("--out", type=Path, default=Path("build") / "examples" / name)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def train(
    module: L.LightningModule,
    loader: Any,
    validation: Any,
    callbacks: Sequence[L.Callback],
    steps: int,
    out: Path,
) -> dict[str, float]:
    """Fit, validate at the end, write the report, and return what was last logged."""
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=list(callbacks),
        logger=CSVLogger(out, name="", version=""),
        log_every_n_steps=max(min(10, steps // 4), 1),
        check_val_every_n_epoch=None,
        val_check_interval=max(steps // 5, 1),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=os.isatty(2),
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader, validation)
    logged = dict(trainer.callback_metrics)
    if validation is not None:
        trainer.validate(module, validation, verbose=False)
    print(f"report: {write_report([out], out)}")
    return {name: float(one) for name, one in (logged | trainer.callback_metrics).items()}
