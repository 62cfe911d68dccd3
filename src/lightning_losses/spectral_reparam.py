# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`sigma_reparam`: weights whose spectral norm is one learned number, against entropy collapse."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def sigma_reparam(module: nn.Module) -> nn.Module:
    """Reparametrise every linear layer in ``module``, in place, as ``gamma W / sigma(W)``.

    Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse", arXiv
    2303.06296: the logits of attention are bounded by the spectral norms of the query and key
    projections, and those become numbers that are learned like any other, so that transformers
    train without warm-up, weight decay or a norm in front of attention. sigma is the largest
    singular value, followed by one step of power iteration in each forward, which a forward in
    training keeps and one in evaluation does not (as the authors; torch's `spectral_norm` takes
    none there, and is behind by the last update). gamma starts at sigma, so that the module
    computes the same as before.

    `nn.Linear` everywhere, and ``in_proj_weight`` (all three projections as one matrix, as the
    authors' code has fused projections) or ``q_proj_weight``, ``k_proj_weight``, ``v_proj_weight``
    of `nn.MultiheadAttention`. Embeddings, convolutions and norms stay. Call it before the
    optimizer is made, for gamma is a new parameter, and leave gamma without weight decay.
    `torch.nn.utils.parametrize.remove_parametrizations` undoes it.

    Returns:
        ``module``.

    Raises:
        ValueError: if there is nothing to reparametrise, a weight is all 0, or it is done already.

    Examples:
        >>> linear = torch.nn.Linear(4, 3)
        >>> before = linear.weight.detach().clone()
        >>> sorted(name for name, _ in sigma_reparam(linear).named_parameters())
        ['bias', 'parametrizations.weight.0.gamma', 'parametrizations.weight.original']
        >>> torch.allclose(linear.weight, before, atol=1e-5)
        True
    """
    found = [
        (part, name)
        for part in module.modules()
        for name in _weights(part)
        if isinstance(getattr(part, name, None), Tensor)
    ]
    if not found:
        raise ValueError(
            f"sigma_reparam found no nn.Linear and no nn.MultiheadAttention in "
            f"{type(module).__name__}: pass the module that holds the projections."
        )
    for part, name in found:
        if parametrize.is_parametrized(part, name):
            raise ValueError(
                f"{name} of {type(part).__name__} has a parametrization already: call "
                "sigma_reparam once, on modules without one."
            )
        weight = getattr(part, name)
        parametrize.register_parametrization(part, name, SigmaReparam(weight))
    return module


class SigmaReparam(nn.Module):
    """The parametrization ``W -> gamma W / sigma(W)``; see `sigma_reparam`.

    ``u`` and ``v`` are the right and left singular vectors, buffers; ``gamma`` is a parameter.
    sigma = v'Wu carries gradient, u and v do not. Computed in float32 at least.

    Args:
        weight: ``(out, ...)``, a matrix once flattened after its first dimension.

    Raises:
        ValueError: if ``weight`` is 0 or not finite.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = _matrix(weight.detach())
        if not bool(matrix.isfinite().all()) or not bool(matrix.any()):
            raise ValueError(
                f"A weight {tuple(weight.shape)} that is 0 or not finite cannot be divided by its "
                "largest singular value: call sigma_reparam on initialised weights."
            )
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        self.register_buffer("u", right[0].clone())
        self.register_buffer("v", left[:, 0].clone())
        self.gamma = nn.Parameter(values[0].clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in use, shape and dtype of ``weight``."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = _matrix(weight)
            u, v = self._iterated(matrix.detach())
            if self.training:
                self.u.copy_(u)
                self.v.copy_(v)
            sigma = v @ (matrix @ u)
            scale = self.gamma.to(matrix.dtype) / torch.where(sigma == 0, 1, sigma)
            return (matrix * scale).reshape(weight.shape).to(weight.dtype)

    @torch.no_grad()
    def _iterated(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """u and v after one step of power iteration; a weight of 0 leaves them as they are."""
        v = matrix @ self.u.to(matrix.dtype)
        v = torch.where(v.norm() > 0, v / v.norm(), self.v.to(matrix.dtype))
        u = matrix.t() @ v
        u = torch.where(u.norm() > 0, u / u.norm(), self.u.to(matrix.dtype))
        return u, v


def _weights(part: nn.Module) -> tuple[str, ...]:
    if isinstance(part, nn.MultiheadAttention):
        return ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return ("weight",) if isinstance(part, nn.Linear) else ()


def _matrix(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32)).flatten(1)
