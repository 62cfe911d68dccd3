# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Small networks of four kinds for digits, a decoder for tokens, and training under Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch import Callback
from study import Digits, loss_config, mlp
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective

KINDS = ("mlp", "mlp + LayerNorm", "cnn + BatchNorm", "transformer")


def network(kind: str, seed: int) -> nn.Module:
    """One of `KINDS`, from rows of 64 pixels to 10 logits; the seed is its start."""
    torch.manual_seed(seed)
    if kind == "mlp":
        return mlp(64, 64, 64, 10, seed=seed)
    if kind == "mlp + LayerNorm":
        return nn.Sequential(
            nn.Linear(64, 64),
            nn.LayerNorm(64),
            nn.ReLU(),
            nn.Linear(64, 64),
            nn.LayerNorm(64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
    if kind == "cnn + BatchNorm":
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )
    return Transformer()


class Transformer(nn.Module):
    """Two blocks on 16 patches of 2 x 2 pixels, norm first; the head reads all patches."""

    def __init__(self, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.patch, self.head = nn.Linear(4, width), nn.Linear(16 * width, 10)
        self.place = nn.Parameter(0.3 * torch.randn(16, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(2)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        h = self.blocks(self.patch(patches) + self.place)
        out: Tensor = self.head(self.norm(h).flatten(1))
        return out


class Block(nn.Module):
    """Self-attention, then two linear layers, each added to what came in."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        qkv = self.qkv(self.before_attention(h)).reshape(*h.shape[:2], 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        looked = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        looked = looked.transpose(1, 2).flatten(2)
        h = h + self.out(looked)
        out: Tensor = h + self.down(F.relu(self.up(self.before_mlp(h))))
        return out


class Decoder(nn.Module):
    """Two blocks that look back: tokens (B, T) -> logits (B, T, vocabulary) of the next one."""

    def __init__(self, vocabulary: int, context: int, width: int = 32, *, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.3 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(Block(width, 2, causal=True) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        nn.init.normal_(self.head.weight, std=0.02)  # starts out open: all tokens about as likely
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.token(tokens) + self.place[: tokens.shape[1]]
        out: Tensor = self.head(self.norm(self.blocks(h)))
        return out


class Classifier(LossMixin, L.LightningModule):
    """A net under cross-entropy and Adam, whose learning rate is multiplied at every step."""

    def __init__(self, net: nn.Module, lr: float, factor: Callable[[int], float]) -> None:
        super().__init__()
        self.net, self.lr, self.factor, self.loss = net, lr, factor, build_objective(composed())

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return self.compute_loss(logits=self.net(batch[0]), target=batch[1])

    def configure_optimizers(self) -> Any:
        adam = torch.optim.Adam(self.net.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(adam, self.factor)
        return [adam], [{"scheduler": schedule, "interval": "step"}]


@cache
def composed() -> Any:
    """Cross-entropy's config; composing it takes as long as 100 small steps."""
    return loss_config("ce")


class Logged(Callback):
    """What was logged under some names, as (step, value)."""

    def __init__(self, *names: str) -> None:
        self.values: dict[str, list[tuple[int, float]]] = {name: [] for name in names}

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        for name, values in self.values.items():
            if name in trainer.callback_metrics:
                values.append((trainer.global_step, float(trainer.callback_metrics[name])))

    def end(self, name: str, steps: int = 20) -> float:
        """Mean over the last steps."""
        return fmean(value for _, value in self.values[name][-steps:])


def train(
    net: nn.Module,
    data: Digits,
    *,
    epochs: int,
    seed: int,
    lr: float,
    batch_size: int = 64,
    factor: Callable[[int], float] = lambda _: 1.0,
    callbacks: Sequence[Callback] = (),
    clip: float | None = None,
) -> None:
    """Train under Lightning, batches in an order of the seed; leaves the net in eval mode."""
    L.seed_everything(seed, verbose=False)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    order = torch.Generator().manual_seed(seed)
    rows = TensorDataset(data.x, data.y)
    with warnings.catch_warnings():
        # About workers, log folders and GPUs that nobody needs here.
        warnings.simplefilter("ignore")
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=list(callbacks),
            gradient_clip_val=clip,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches = DataLoader(rows, batch_size, shuffle=True, generator=order)
        trainer.fit(Classifier(net, lr, factor), batches)
    net.eval()


def steps_of(data: Digits, epochs: int, batch_size: int = 64) -> int:
    """Optimizer steps of `train`."""
    return epochs * -(-len(data.y) // batch_size)
