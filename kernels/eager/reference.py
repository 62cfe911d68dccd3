# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The statistics from materialised logits by torch's own autograd: slow, and obviously right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..logits import materialise
from ..problem import Problem


def statistics(problem: Problem, want: tuple[str, ...]) -> dict[str, Tensor]:
    """Every wanted statistic, ``(N,)`` each, with graph. Holds several ``(N, V)`` tensors."""
    z = materialise(problem)
    log_p = F.log_softmax(z, dim=1)
    p = log_p.exp()
    out: dict[str, Tensor] = {}
    if "log_prob" in want:
        out["log_prob"] = target_log_prob(log_p, problem.target)
    if "logsumexp" in want:
        # Its gradient would be exp(z - logsumexp), of which a large offset leaves no digits.
        top = z.detach().amax(1, keepdim=True)
        out["logsumexp"] = torch.logsumexp(z - top, dim=1) + top.squeeze(1)
    if "entropy" in want:
        out["entropy"] = -(p * log_p).sum(1)  # finite: log_p is at least LOWEST, never -inf
    if "mean_logit" in want:
        out["mean_logit"] = z.mean(1)
    if "mean_log_prob" in want:
        out["mean_log_prob"] = log_p.mean(1)
    if "weighted_log_prob" in want:
        assert problem.class_weight is not None
        out["weighted_log_prob"] = (log_p * problem.class_weight.to(log_p.dtype)).mean(1)
    if "collision" in want:
        out["collision"] = p.square().sum(1)
    if "confidence" in want or "prediction" in want:
        out["confidence"], out["prediction"] = p.max(1)
    return {name: out[name] for name in want}


def target_log_prob(log_p: Tensor, target: Tensor | None) -> Tensor:
    """log p of a class index ``(N,)``, or its expectation under soft targets ``(N, V)``."""
    assert target is not None
    if target.ndim == 1:
        return log_p.gather(1, target[:, None]).squeeze(1)
    return (target.to(log_p.dtype) * log_p).sum(1)
