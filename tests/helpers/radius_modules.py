# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny modules that train in as many ways as a step-radius monitor meets, and the true radius."""

from __future__ import annotations

import copy
import math
import random
from datetime import timedelta
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
import torchmetrics
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective

FEATURES, CLASSES, BATCH, BATCHES = 6, 5, 8, 6


class Module(LossMixin, L.LightningModule):
    """Batch norm and dropout, AdamW, automatic optimisation."""

    lr = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.net = self.make_net()
        self.loss = build_objective("ce")

    def make_net(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, 12), nn.BatchNorm1d(12), nn.Dropout(0.3), nn.Linear(12, CLASSES)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> Any:
        g = torch.Generator().manual_seed(1)
        x = torch.randn(BATCH * BATCHES, FEATURES, generator=g)
        y = torch.randint(CLASSES, (len(x),), generator=g)
        y[::5] = -100  # rows that do not count
        return DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)


class Momentum(Module):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


class Lbfgs(Module):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.5, max_iter=4)


class Manual(Module):
    """Manual optimisation that steps every `every` batches."""

    every = 1

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        if (batch_idx + 1) % self.every == 0:
            self.clip_gradients(optimizer, 1.0)
            optimizer.step()
            optimizer.zero_grad()


class ManualAccumulating(Manual):
    every = 2


class Spectral(Module):
    """Forward moves a buffer that the next forward reads."""

    def make_net(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, 12), nn.GELU(), spectral_norm(nn.Linear(12, CLASSES))
        )


class Hidden(Module):
    """The route of language models: hidden states and a head."""

    def make_net(self) -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 12), nn.Tanh(), nn.Linear(12, CLASSES))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        head = self.net[2]
        return self.compute_loss(
            hidden=self.net[:2](x), head_weight=head.weight, head_bias=head.bias, target=y
        )


class Busy(Module):
    """Does before and after compute_loss whatever people do in a training step."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=CLASSES, ignore_index=-100)
        self.mean = torchmetrics.MeanMetric()
        self.generator = torch.Generator().manual_seed(3)
        self.numpy = np.random.default_rng(3)
        self.random = random.Random(3)
        self.counter, self.history, self.nested = 0, [], {"ema": torch.zeros(3), "seen": {0}}
        self.ema = torch.zeros(FEATURES)
        self.replaced = torch.zeros(2)
        self.register_buffer("centre", torch.zeros(FEATURES))

    def busy(self, x: Tensor) -> Tensor:
        self.counter += 1
        self.history.append(self.counter)
        self.nested["ema"].add_(torch.randn(3))
        self.nested["seen"].add(self.counter)
        self.ema.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        self.replaced = self.replaced + 1
        self.centre.data.lerp_(x.detach().mean(0), 0.1)
        noise = torch.randn(1) + torch.randn(1, generator=self.generator)
        noise += random.random() + self.random.random()
        noise += np.random.rand() + self.numpy.random() + self.counter + len(self.history)
        self.mean.update(noise)
        self.log("noise", noise)
        self.log_dict({"counter": float(self.counter)}, prog_bar=True)
        return noise

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        batch.pop()  # containers of the user's own may be taken apart
        x.mul_(1.5)  # and tensors changed in place
        z = self.net(x + 0.1 * self.busy(x) + self.centre + self.ema)
        self.accuracy.update(z, y)
        self.log("accuracy", self.accuracy)
        loss = self.compute_loss(logits=z, target=y)
        self.busy(x)
        return loss


def compiled() -> Any:
    """Compiled as a whole, by Dynamo alone: the graphs then run as they are."""
    return torch.compile(Module(), backend="eager")


class Couple(Module):
    """Two optimizers on one loss, by hand: matrices, and all else."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.parameters() if p.ndim == 2]
        rest = [p for p in self.parameters() if p.ndim != 2]
        return torch.optim.SGD(matrices, lr=0.3), torch.optim.AdamW(rest, lr=self.lr)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        first, second = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        first.step()
        second.step()


class Teacher(Module):
    """Moves a teacher's average in training_step, before compute_loss, from step `start` on."""

    start = 0

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def move(self, teacher: Tensor, student: Tensor) -> None:
        teacher.lerp_(student.detach(), 0.1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        if self.trainer.global_step >= self.start:
            for t, p in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                self.move(t, p)
        with torch.no_grad():
            teacher_logits = self.teacher(x)
        return self.compute_loss(logits=self.net(x), target=y, teacher_logits=teacher_logits)


class SilentTeacher(Teacher):
    """The same past autograd's version counters."""

    def move(self, teacher: Tensor, student: Tensor) -> None:
        teacher.data.lerp_(student.data, 0.1)


class LateTeacher(Teacher):
    start = 3


class HiddenTeacher(Teacher):
    """The teacher in a list, so that its parameters are not the module's."""

    def __init__(self) -> None:
        super().__init__()
        self.teachers = [self.teacher]
        del self.teacher
        self.__dict__["teacher"] = self.teachers[0]


class TeacherWithProbe(Teacher):
    """The remedy."""

    def probe_step(self, batch: Any) -> dict[str, Tensor]:
        x, y = batch
        return {"logits": self.net(x), "target": y}


class InputGradient(Module):
    """Needs gradients before compute_loss, which a re-run does not have."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.net(x).sum(), x)
        return self.compute_loss(logits=self.net(x + 0.1 * gradient.sign()), target=y)


class Elsewhere(Module):
    """Random numbers from a generator that the module does not hold."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.noise = lambda like: torch.randn(like.shape, generator=generator)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.compute_loss(logits=self.net(x + self.noise(x)), target=y)


class TwoCalls(Module):
    """compute_loss twice a step, on different logits."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        z = self.net(x)
        return self.compute_loss(logits=z, target=y) + self.compute_loss(logits=3 * z, target=y)


class Nothing(Module):
    """A learning rate of 0: no update, as under a GradScaler that skips."""

    lr = 0.0


class NothingValid(Module):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=torch.full_like(y, -100))


class Scaled(MixedPrecision):
    """A GradScaler without half precision, which the CPU may not have."""

    def __init__(self) -> None:
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))

    def autocast_context_manager(self) -> Any:
        return torch.autocast("cpu", enabled=False)


class Truth(Callback):
    """The radius by brute force: deep copies of the net before and after, run side by side.

    Right for steps that run ``self.net(x)`` before anything else that is random.
    """

    def __init__(self, autocast: bool = False) -> None:
        self.autocast = autocast
        self.r: list[float] = []
        self.norm: list[float] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.before, self.random = copy.deepcopy(module.net), torch.get_rng_state()

    def on_train_batch_end(self, trainer: Any, module: Any, out: Any, batch: Any, i: int) -> None:
        x, y = batch
        now, logits = torch.get_rng_state(), []
        after = copy.deepcopy(self.before)  # the buffers of before: a forward may move them
        pairs = list(zip(self.before.parameters(), after.parameters(), strict=True))
        for new, kept in zip(module.net.parameters(), after.parameters(), strict=True):
            kept.data.copy_(new.data)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            for net in (self.before, after):
                torch.set_rng_state(self.random)
                logits.append(net(x)[y != -100].float())
        torch.set_rng_state(now)
        change = logits[1] - logits[0]
        self.r.append(float((change.amax(1) - change.amin(1)).max()) / math.pi)
        self.norm.append(math.sqrt(sum(float((b - a).detach().square().sum()) for a, b in pairs)))
        self.found(logits[0], logits[1], y[y != -100])

    def found(self, before: Tensor, after: Tensor, target: Tensor) -> None:
        """For what else a test wants of the logits of the rows that count."""


class TeacherOnSecondRank(Teacher):
    def move(self, teacher: torch.Tensor, student: torch.Tensor) -> None:
        if self.global_rank == 1:
            super().move(teacher, student)


def two_ranks() -> dict[str, Any]:
    # Ranks that wait for one another in vain fail after the timeout instead of hanging.
    patience = timedelta(seconds=60)
    return {"strategy": DDPStrategy(start_method="fork", timeout=patience), "devices": 2}
