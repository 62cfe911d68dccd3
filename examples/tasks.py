# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Three LightningModules with `LossMixin`: what a user's own training code looks like."""

from __future__ import annotations

import copy

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from models import DigitsNet, TinyDecoder
from torch import Tensor

from lightning_losses import LossMixin, Objective, softmax_stats
from lightning_losses.losses.policy.advantage import grpo_advantage
from lightning_losses.sampling import draw

Batch = tuple[Tensor, Tensor]


class Classifier(LossMixin, L.LightningModule):
    """Images (B, 1, 8, 8) to classes; passes whatever a loss of the catalogue may ask for."""

    def __init__(self, net: DigitsNet, loss: Objective, lr: float = 1e-3) -> None:
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        features = self.net.features(x)
        logits = self.net.head(features)
        self.log_accuracy(logits, y)
        return self.compute_loss(
            logits=logits, target=y, features=features, input=x, model=self.net
        )

    validation_step = test_step = training_step

    def log_accuracy(self, logits: Tensor, y: Tensor) -> None:
        if not self.training:
            accuracy = (logits.argmax(-1) == y).float().mean()
            self.log(f"{self.stage}/accuracy", accuracy, batch_size=len(y), sync_dist=True)

    @property
    def stage(self) -> str:
        return "test" if self.trainer.testing else "val"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


class LanguageModel(LossMixin, L.LightningModule):
    """Bytes (B, T) to the next byte, from hidden states and the head: no logits are held."""

    def __init__(self, net: TinyDecoder, loss: Objective, lr: float = 1e-3) -> None:
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        tokens, target = batch
        hidden = self.net(tokens)
        return self.compute_loss(hidden=hidden, head_weight=self.net.lm_head.weight, target=target)

    validation_step = test_step = training_step

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameter_groups(), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, max(steps, 2))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class SortPolicy(LossMixin, L.LightningModule):
    """A policy that sorts digits, rewarded by the share of places that are right.

    Each step draws `samples` answers to every prompt, compares them with one another, and hands the
    loss hidden states and the head: log p and entropy of the answers come from one pass.
    """

    def __init__(
        self,
        net: TinyDecoder,
        loss: Objective,
        lr: float = 1e-3,
        samples: int = 8,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr
        self.samples, self.temperature = samples, temperature
        # The reference of kl_estimator: the policy before training; in a list, so not trained.
        self.reference = [copy.deepcopy(net).eval().requires_grad_(False)]

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        (prompts,) = batch
        length = prompts.shape[1] - 1
        group = torch.arange(len(prompts), device=self.device).repeat_interleave(self.samples)
        asked = prompts[group]
        answers, old_log_prob = self.answer(asked)
        right = (answers == asked[:, :-1].sort(1).values).float().mean(1)
        name = "train" if self.training else "test" if self.trainer.testing else "val"
        self.log(f"{name}/reward", right.mean(), batch_size=len(right), sync_dist=True)
        text = torch.cat([asked, answers], 1)
        reference = self.reference[0].to(self.device)
        with torch.no_grad():
            known = softmax_stats(
                hidden=reference(text[:, :-1])[:, length:],
                head_weight=reference.lm_head.weight,
                target=answers,
            )
        row = torch.arange(len(answers), device=self.device)
        spread = answers.shape
        return self.compute_loss(
            hidden=self.net(text[:, :-1])[:, length:],
            head_weight=self.net.lm_head.weight,
            target=answers,
            old_log_prob=old_log_prob,
            ref_log_prob=known.log_prob,
            advantage=grpo_advantage(right, group)[:, None].expand(spread),
            reward=right[:, None].expand(spread),
            sequence_id=row[:, None].expand(spread),
            prompt_id=group[:, None].expand(spread),
        )

    validation_step = test_step = training_step

    @torch.no_grad()
    def answer(self, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Answers (B, length) and the log p that each token was drawn with."""
        text, logs = asked, []
        for _ in range(asked.shape[1] - 1):
            logits = self.net.lm_head(self.net(text)[:, -1]) / self.temperature
            drawn = draw(logits)
            text = torch.cat([text, drawn.token[:, None]], 1)
            logs.append(drawn.log_prob)
        return text[:, asked.shape[1] :], torch.stack(logs, 1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)
