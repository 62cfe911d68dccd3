# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The main job: train on real data with a composed objective, monitors on, a report at the end.

python examples/train.py                                       digits, two minutes at most
python examples/train.py data=library_text                     a byte-level language model
python examples/train.py data=sorting                          a policy that learns by reward (GRPO)
python examples/train.py 'loss=[ce,opl]' loss.opl.weight=0.3   another objective
"""

from __future__ import annotations

import os
from pathlib import Path

import hydra
import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from lightning_losses import build_objective
from lightning_losses.dashboard.charts.picture import training_picture
from lightning_losses.dashboard.report.write import write_report


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    os.environ.setdefault("WANDB_SILENT", "true")
    L.seed_everything(cfg.seed, verbose=False)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    objective = build_objective(cfg.get("loss"), kernel=cfg.kernel)
    print(OmegaConf.to_yaml(cfg.loss, resolve=True))
    data = instantiate(cfg.datamodule)
    task = instantiate(cfg.task, loss=objective)
    trainer = L.Trainer(
        **cfg.trainer,
        logger=list(instantiate(cfg.get("logger") or {}).values()),
        callbacks=list(instantiate(cfg.get("callbacks") or {}).values()),
    )
    try:
        trainer.fit(task, datamodule=data)
        results = trainer.test(task, datamodule=data, verbose=False)[0]
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):  # or the jobs of a sweep would share one run
                logger.experiment.finish()
    for name, value in results.items():
        print(f"{name:32} {value:.4f}")
    if hasattr(data, "unigram_entropy"):
        print(f"{'unigram entropy (bar to beat)':32} {data.unigram_entropy:.4f}")
    run = Path(HydraConfig.get().runtime.output_dir)
    metrics = run / "csv" / "metrics.csv"
    if metrics.exists():
        print(f"picture: {training_picture(metrics, run / 'training.png')}")
        print(f"report:  {write_report([run], run, pictures=False)}")


if __name__ == "__main__":
    main()
