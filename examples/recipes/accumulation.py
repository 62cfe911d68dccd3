# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Accumulate over batches with uneven token counts and get the gradient of the one large batch.

The mean of the batches' means weighs a token of a short batch more. Pass the number of tokens that
the whole step has as `normalizer`; Lightning divides each loss by the number of batches, so divide
it too.

python examples/recipes/accumulation.py
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_losses import LossMixin, build_objective

BATCHES, VOCABULARY = 4, 50


class LanguageModel(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, VOCABULARY, bias=False)
        self.loss = build_objective("ce")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        hidden = self.embed(batch["input"])
        return self.compute_loss(
            hidden=hidden,
            head_weight=self.head.weight,
            target=batch["target"],
            normalizer=batch["normalizer"],
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def batches() -> list[dict[str, Any]]:
    """One optimizer step of four batches: 12, 3, 30 and 7 tokens count, the rest is padding."""
    torch.manual_seed(1)
    out: list[dict[str, Any]] = []
    for tokens in (12, 3, 30, 7):
        target = torch.randint(VOCABULARY, (2, 20))
        target.view(-1)[tokens:] = -100
        out.append({"input": torch.randint(VOCABULARY, (2, 20)), "target": target})
    counted = sum(int((batch["target"] != -100).sum()) for batch in out)
    for batch in out:
        batch["normalizer"] = counted / BATCHES
    return out


def train(data: list[dict[str, Any]], accumulate: int) -> list[Tensor]:
    model = LanguageModel()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    return [p.detach() for p in model.parameters()]


def main() -> None:
    parts = batches()
    whole = {k: torch.cat([part[k] for part in parts]) for k in ("input", "target")}
    one = train([{**whole, "normalizer": None}], 1)
    summed = train(parts, BATCHES)
    naive = train([{**part, "normalizer": None} for part in parts], BATCHES)
    right = max(float((a - b).abs().max()) for a, b in zip(one, summed, strict=True))
    wrong = max(float((a - b).abs().max()) for a, b in zip(one, naive, strict=True))
    print(
        f"largest difference to one large batch: {right:.1e} with normalizer, {wrong:.1e} without"
    )
    assert right < 1e-6 < 1e-3 < wrong


if __name__ == "__main__":
    main()
