# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`entropy_lower_bound`: what logits of a given size leave possible, and how large they may be."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy_lower_bound(keys: Tensor | float, sigma: Tensor | float) -> Tensor:
    """Least entropy, in nats, of a softmax over T keys whose logits have Euclidean norm sigma.

    ``log(1 + (T - 1) b) + sigma sqrt(T (T - 1)) b / (1 + (T - 1) b)`` with
    ``b = exp(-sigma sqrt(T / (T - 1)))``: the tight bound of arXiv 2303.06296. 0 for one key and
    for infinite sigma. Float64 for numbers, else the dtype of the tensors.

    Args:
        keys: T, at least 1; any shape.
        sigma: at least 0; broadcast against ``keys``.

    Examples:
        >>> [round(entropy_lower_bound(1024, sigma).item(), 3) for sigma in (0.0, 5.0, 10.0)]
        [6.931, 6.431, 0.487]
    """
    given = [x for x in (keys, sigma) if isinstance(x, Tensor) and x.is_floating_point()]
    like = given[0] if given else torch.zeros((), dtype=torch.float64)
    t, s = (torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (keys, sigma))
    more = t > 1
    t = torch.where(more, t, 2)
    slope = s * (t / (t - 1)).sqrt()
    b = (-slope).exp()
    # sigma sqrt(T (T - 1)) = slope (T - 1); inf times 0 is 0 here.
    steep = torch.where(b > 0, slope, 0) * (t - 1) * b
    return torch.where(more, torch.log1p((t - 1) * b) + steep / (1 + (t - 1) * b), 0)


def spectral_norm_above(matrix: Tensor) -> Tensor:
    """The largest singular value of ``(..., N, D)``, or up to ``D^(1/128)`` times more.

    By six squarings of the Gram matrix, whose trace is then a sum of 128th powers of singular
    values. Power iteration on a vector is cheaper and stops *below*, where a bound made of it
    would be none.
    """
    gram = matrix.transpose(-1, -2) @ matrix
    log_scale = torch.zeros_like(gram[..., 0, 0])
    for _ in range(6):
        size = gram.diagonal(dim1=-2, dim2=-1).sum(-1)  # at least the largest eigenvalue
        size = torch.where(size > 0, size, 1)
        gram = gram / size[..., None, None]
        gram, log_scale = gram @ gram, 2 * (log_scale + size.log())
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    root = ((trace.clamp(min=torch.finfo(trace.dtype).tiny).log() + log_scale) / 128).exp()
    return torch.where(trace > 0, root, 0)
