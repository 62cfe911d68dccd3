# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Distillation: a provider runs the teacher, so the step passes its input and no more.

The teacher is frozen, in eval mode, on the input's device, and in no checkpoint. For a vocabulary
too large for logits give the provider the teacher's head: it then makes hidden states, and with
`hidden=` and `head=` of the student no logits of all rows are ever held. Features are matched by
`mse`; where widths differ, project them by a layer of your own, which is trained and saved as such.

python examples/recipes/distillation.py
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.providers import FrozenTeacher

#: In a config: 'loss=[ce,kd]' +provider@loss.kd.provider.teacher_logits=frozen_teacher
#: loss.kd.provider.teacher_logits.model._target_=my_package.load_teacher
WEIGHTS = {"ce": {"weight": 0.1}, "kd": {"weight": 0.9, "temperature": 4.0}}


def network(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 10))


class Student(LossMixin, L.LightningModule):
    def __init__(self, provider: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Sequential(nn.Linear(20, 16), nn.ReLU()), nn.Linear(16, 10)
        self.loss = build_objective(WEIGHTS, providers={"teacher_logits": provider})

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.head(self.body(x)), target=y, input=x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=1e-2)


class WithoutLogits(Student):
    """The same student and the same loss; nobody holds logits of all rows."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.compute_loss(hidden=self.body(x), head=self.head, target=y, input=x)


def train_teacher(x: Tensor, y: Tensor) -> nn.Sequential:
    torch.manual_seed(0)
    teacher = network(128)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(teacher(x), y).backward()
        optimizer.step()
    return teacher


def fit(model: Student, x: Tensor, y: Tensor) -> Tensor:
    """Train, and what the student then says."""
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=5, accelerator="cpu", **quiet)
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=50))
    with torch.no_grad():
        logits: Tensor = model.head(model.body(x))
    return logits


def main() -> None:
    x = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0))
    y = x[:, :10].argmax(1)
    teacher = train_teacher(x, y)
    student = Student(FrozenTeacher(teacher))
    assert not any(name.startswith("loss") for name in student.state_dict())
    logits = fit(student, x, y)
    agrees = float((logits.argmax(1) == teacher(x).argmax(1)).float().mean())
    lean = fit(WithoutLogits(FrozenTeacher(teacher[:-1], head=teacher[-1])), x, y)
    apart = float((logits - lean).abs().max())
    print(
        f"the student agrees with its teacher on {agrees:.0%}; without logits: off by {apart:.1e}"
    )
    assert agrees > 0.7
    assert apart < 1e-2


if __name__ == "__main__":
    main()
