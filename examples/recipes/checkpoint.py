# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Save hyperparameters, stop, load, resume: the checkpoint holds the keys of losses, no objects.

Hand the module what `build_objective` takes (a key, a list of keys, or `cfg.loss` as plain data)
and let it build: then `save_hyperparameters()` writes plain data, `load_from_checkpoint` needs no
argument, and both pass `weights_only=True`. An `Objective` as argument would be pickled whole;
who must pass one writes `save_hyperparameters(ignore=["loss"])` and hands it over again on loading.

python examples/recipes/checkpoint.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective

#: As Hydra composes it: `OmegaConf.to_container(cfg.loss, resolve=True)`.
LOSS = {
    "ce": {"_target_": "lightning_losses.losses.CrossEntropy", "label_smoothing": 0.1},
    "opl": {
        "_target_": "lightning_losses.losses.OrthogonalProjection",
        "weight": {"start": 0.0, "end": 0.3, "steps": 40},
    },
}


class Classifier(LossMixin, L.LightningModule):
    def __init__(self, loss: str | list[str] | dict[str, Any] = "ce", lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body, self.head, self.lr = nn.Linear(20, 16), nn.Linear(16, 10), lr
        self.loss = build_objective(loss)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        features = self.body(x).relu()
        return self.compute_loss(logits=self.head(features), target=y, features=features)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


def rows() -> DataLoader[Any]:
    x = torch.randn(500, 20, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(x, x[:, :10].argmax(1)), batch_size=25)


def trainer(epochs: int) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        first, path = trainer(1), Path(folder) / "epoch.ckpt"
        first.fit(Classifier(LOSS), rows())
        first.save_checkpoint(path)

        model = Classifier.load_from_checkpoint(path, weights_only=True)
        assert model.hparams["loss"] == LOSS
        assert list(model.loss.terms) == ["ce", "opl"]
        print(f"loaded: {model.hparams['loss']}")

        resumed = trainer(2)
        resumed.fit(model, rows(), ckpt_path=path, weights_only=True)
        whole = trainer(2)
        torch.manual_seed(0)
        straight = Classifier(LOSS)
        whole.fit(straight, rows())
    weight = float(model.loss_record.weights["opl"])  # type: ignore[union-attr]
    print(f"resumed at step 20 of 40; the weight of opl in the last step is {weight:.4f}")
    assert abs(weight - 0.3 * 39 / 40) < 1e-6
    same = zip(model.parameters(), straight.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same), "resuming changed the training"
    print("every weight equals that of a training without a stop, to the last bit")


if __name__ == "__main__":
    main()
