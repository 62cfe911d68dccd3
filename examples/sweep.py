# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Search over terms and weights with Optuna: a study that resumes, prunes and ends in a report.

python examples/sweep.py 'loss=[ce],[ce,opl],[focal]' loss.opl.weight=0.01..1 task.lr=1e-4..1e-2
python examples/sweep.py ... --trials 40                              the same again goes on to 40

Arguments are overrides of `examples/train.py`: `KEY=a,b,c` is a choice, `KEY=low..high` a number,
its logarithm where that spans a factor of ten, and all others hold for every trial. A range of a
term is asked for only where the trial has the term.

Optuna is used directly, since its Hydra sweeper (1.3) has no pruner, takes a pruned trial for a
failure, repeats trials and overwrites folders after a resume, and stops at the first NaN. Here a
trial that is pruned, or whose loss is not finite, is one that the sampler learns from.

What is minimised is the same for every objective: the likelihood of validation. `val/loss` is the
weighted sum itself, and the smallest weights would win (`--metric val/loss` where no term changes).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import optuna
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from lightning_losses import build_objective
from lightning_losses.dashboard.report.write import write_report

FIXED = ("callbacks=[calibration]", "logger=[csv]", "trainer.enable_progress_bar=false")


def choices(value: str) -> list[str]:
    """Parts between commas that are in no bracket."""
    parts, level = [""], 0
    for letter in value:
        level += (letter in "[{(") - (letter in "]})")
        if letter == "," and level == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def asked(trial: optuna.Trial, overrides: Sequence[str], folder: Path) -> list[str]:
    """The overrides of a trial; choices first, for they say which ranges there are."""
    fixed, ranges = [f"run_dir={folder}", *FIXED], []
    for override in overrides:
        key, _, value = override.partition("=")
        bounds = re.fullmatch(r"([-+.\de]+)\.\.([-+.\de]+)", value)
        options = choices(value)
        if bounds:
            ranges.append((key, float(bounds[1]), float(bounds[2])))
        elif len(options) > 1:
            fixed.append(f"{key}={trial.suggest_categorical(key, options)}")
        else:
            fixed.append(override)
    config = compose("train", fixed)
    for key, low, high in ranges:
        if OmegaConf.select(config, key.lstrip("+")) is not None:
            log = low > 0 and high >= 10 * low
            fixed.append(f"{key}={trial.suggest_float(key, low, high, log=log):.6g}")
    return fixed


class Prune(L.Callback):
    """Reports the metric after each validation, and stops a trial that is not worth going on."""

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.metric, self.stopped = trial, metric, False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self.metric not in trainer.callback_metrics:
            names = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"--metric {self.metric} is not logged; there is {names}.")
        value = float(trainer.callback_metrics[self.metric])
        self.trial.report(value, trainer.current_epoch)
        if not math.isfinite(value) or self.trial.should_prune():
            self.stopped = trainer.should_stop = True


def train(config: DictConfig, folder: Path, prune: Prune) -> float:
    """One training; the metric at its end. Writes the trial's folder as Hydra would."""
    L.seed_everything(config.seed, verbose=False)
    data = instantiate(config.datamodule)
    task = instantiate(config.task, loss=build_objective(config.loss, kernel=config.kernel))
    trainer = L.Trainer(
        **config.trainer,
        logger=list(instantiate(config.logger).values()),
        callbacks=[*instantiate(config.callbacks).values(), prune],  # last: it reads the others
        enable_checkpointing=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers and log folders
        try:
            trainer.fit(task, datamodule=data)
        except ValueError as error:  # what compute_loss raises on a CPU at logits of NaN
            if "NaN or" not in str(error):
                raise
            print(f"{folder.name}: {error}")
            prune.trial.report(math.nan, trainer.current_epoch)
            return math.nan
    return float(trainer.callback_metrics[prune.metric])


def main(argv: Sequence[str] | None = None) -> optuna.Study:
    parser = argparse.ArgumentParser(prog="python examples/sweep.py")
    parser.add_argument("overrides", nargs="+", help="KEY=a,b or KEY=low..high or KEY=value")
    parser.add_argument(
        "--trials", type=int, default=20, help="in all, those of a resumed study too"
    )
    parser.add_argument("--metric", default="calibration/val/nll", help="what is minimised")
    parser.add_argument("--out", type=Path, default=Path("sweeps/study"))
    parser.add_argument("--seed", type=int, default=0, help="of the sampler")
    options = parser.parse_args(argv)
    sys.path.insert(0, str(Path(__file__).parent))  # data, models and tasks
    torch.set_num_threads(1)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="losses",
        storage=f"sqlite:///{out}/study.db",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
    )
    # Trials that a killed process left running are none; a sampler of the same seed would repeat.
    for one in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(one.number, state=TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=options.seed + len(study.trials))
    done = study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])

    def objective(trial: optuna.Trial) -> float:
        folder = out / "trials" / str(trial.number)
        overrides = asked(trial, options.overrides, folder)
        config = compose("train", overrides)
        hydra = folder / ".hydra"  # where the report looks for what a run was told
        hydra.mkdir(parents=True)
        OmegaConf.save(config, hydra / "config.yaml")
        told = [one for one in overrides[1:] if one not in FIXED]
        OmegaConf.save(OmegaConf.create(told), hydra / "overrides.yaml")
        prune = Prune(trial, options.metric)
        value = train(config, folder, prune)
        if prune.stopped or not math.isfinite(value):
            raise optuna.TrialPruned
        return value

    with initialize_config_dir(str(Path(__file__).parent.resolve() / "conf"), version_base="1.3"):
        study.optimize(objective, n_trials=max(0, options.trials - len(done)))
    finished = study.get_trials(states=[TrialState.COMPLETE])
    if finished:
        print(f"best of {len(finished)} finished trials: {study.best_trial.number}", end=", ")
        print(f"{options.metric} {study.best_value:.4f}, {study.best_params}")
    places = sorted((out / "trials").iterdir(), key=lambda place: int(place.name))
    logged = [place for place in places if (place / "csv" / "metrics.csv").exists()]
    if len(logged) < len(places):
        print(f"{len(places) - len(logged)} trials ended before they logged anything.")
    if logged:
        print(f"report: {write_report(logged, out)}")
    return study


if __name__ == "__main__":
    main()
