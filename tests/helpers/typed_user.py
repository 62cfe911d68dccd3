# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A user's file, checked by mypy in ``.ci/run`` and never run: the package brings its types.

Each ``type: ignore`` is an error that mypy must find: it complains of one that hides nothing.
"""

import lightning as L
from torch import Tensor
from typing_extensions import assert_type

from lightning_losses import LossMixin, Objective, SoftmaxStats, build_objective, softmax_stats
from lightning_losses.callbacks import EntropyMonitor
from lightning_losses.losses import CrossEntropy


class Classifier(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.loss = build_objective("ce")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.compute_loss(logits=batch[0], target=batch[1])


def statistics(logits: Tensor) -> None:
    assert_type(softmax_stats(logits), SoftmaxStats)
    assert_type(build_objective(["ce", "opl"]), Objective)
    softmax_stats(logit=logits)  # type: ignore[call-arg]
    CrossEntropy(label_smoothing="a little")  # type: ignore[arg-type]
    EntropyMonitor(every_n_step=5)  # type: ignore[call-arg]
