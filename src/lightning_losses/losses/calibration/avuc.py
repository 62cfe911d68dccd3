# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy versus uncertainty: right rows shall be certain, wrong ones uncertain."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.correctness import right_rows, sums


class AvUC(nn.Module):
    """``log(1 + (n_AU + n_IC) / (n_AC + n_IU))``: accurate or inaccurate, certain or uncertain.

    Krishnan and Tickoo, "Improving model calibration with accuracy versus uncertainty
    optimization", arXiv 2012.07923. A row counts as certain up to an entropy threshold, and weighs
    ``tanh(H)`` of its entropy H where uncertain, ``1 - tanh(H)`` where certain, times its
    confidence where right, one minus it where wrong. A term beside another loss, after some epochs
    without.

    A wrong and certain row weighs ``(1 - c) (1 - tanh H)``, which is small where it is surest: as
    the paper has it, the loss falls when such a row becomes surer still. What teaches a wrong row
    to doubt is the entropy alone, and ``detach_confidence`` leaves only that.

    Args:
        threshold: entropy in nats. The authors take the mean of the average entropies of right and
            of wrong rows after training without the term; 1.0 is only a start.
        detach_confidence: no gradient through the confidence, as a released variant has it, so that
            no row is made surer by its being wrong; the value is the same.

    Shapes: confidence, entropy and prediction from the softmax statistics, target ``(N,)``; one
    number for the batch of all ranks; 0 where no row counts.

    Raises:
        ValueError: a negative threshold.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, threshold: float = 1.0, detach_confidence: bool = False) -> None:
        super().__init__()
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0 nats, got {threshold}; write 1.0.")
        self.threshold, self.detach_confidence = threshold, detach_confidence

    def forward(
        self,
        confidence: Tensor,
        entropy: Tensor,
        prediction: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        right, counts = right_rows(prediction, target, valid, confidence)
        certain = (entropy.detach() <= self.threshold).to(confidence.dtype)
        c = confidence.detach() if self.detach_confidence else confidence
        return _score(right * c, (1 - right) * (1 - c), certain, entropy.tanh(), counts)


class SoftAvUC(nn.Module):
    """`AvUC` whose rows are certain by degrees: there is no threshold that gradients cannot cross.

    Karandikar et al., "Soft Calibration Objectives for Neural Networks", arXiv 2108.00106 (S-AvUC):
    a row is uncertain by ``sigmoid(log(u (1 - k) / ((1 - u) k)) / temperature)`` of its entropy u
    as a share of log C; confidence has no say.

    Args:
        threshold: k, the share of the largest entropy at which a row is both by half, in (0, 1).
        temperature: of the sigmoid, positive.

    Shapes: logits ``(N, C)``, target ``(N,)``; one number for the batch of all ranks.

    Raises:
        ValueError: a threshold outside of (0, 1), a temperature that is not positive.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, threshold: float = 0.5, temperature: float = 0.1) -> None:
        super().__init__()
        if not (0 < threshold < 1 and temperature > 0):
            raise ValueError(
                "soft_avuc needs a threshold in (0, 1) and a positive temperature, got "
                f"{threshold} and {temperature}; write 0.5 and 0.1."
            )
        self.threshold, self.temperature = threshold, temperature

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        log_p = logits.log_softmax(-1)
        p = log_p.exp()
        entropy = -(p * torch.where(p > 0, log_p, 0)).sum(-1)  # 0 log 0 is 0
        right, counts = right_rows(log_p.argmax(-1), target, valid, entropy)
        # One class has no entropy: its rows are certain.
        share = entropy / max(math.log(logits.shape[-1]), torch.finfo(log_p.dtype).tiny)
        edge = torch.finfo(log_p.dtype).eps
        odds = torch.logit(share.clamp(edge, 1 - edge)) - math.log(
            self.threshold / (1 - self.threshold)
        )
        certain = (-odds / self.temperature).sigmoid()
        return _score(right, 1 - right, certain, entropy.tanh(), counts)


def _score(
    right: Tensor, wrong: Tensor, certain: Tensor, uncertainty: Tensor, counts: Tensor
) -> Tensor:
    """``log(1 + bad / good)`` from the weights of right and wrong rows and how certain they are."""
    sure, unsure = certain * (1 - uncertainty), (1 - certain) * uncertainty
    good, bad = sums(right * sure + wrong * unsure, right * unsure + wrong * sure, counts=counts)
    loss: Tensor = (bad / good.clamp(min=1e-10)).log1p()
    return loss
