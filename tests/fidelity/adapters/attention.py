# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Attention entropy, its lower bound, its regulariser, and sigma_reparam."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adapters.table import NotBuilt, Term, Unbuilt, adapter, evaluate, only
from lightning_losses.metrics.entropy.attention import attention_entropy
from lightning_losses.metrics.entropy.attention_bound import entropy_lower_bound
from lightning_losses.penalties.entropy_guided_attention import EntropyGuidedAttention
from lightning_losses.spectral_reparam import sigma_reparam

Inputs = dict[str, Any]


@adapter("attention_entropy")
def entropy_of_heads(inputs: Inputs, params: Inputs) -> Inputs:
    # Queries and keys that have these probabilities: log p, and one key a dimension.
    attn = inputs["attn"]
    seen = attn > 0
    q = torch.where(seen, attn, 1).log()
    k = torch.eye(attn.shape[3], dtype=attn.dtype).expand(*attn.shape[:2], -1, -1)

    def measured(**options: Any) -> Any:
        return attention_entropy(q, k, mask=seen, scale=1.0, **options)

    rows = [measured(queries=torch.tensor([i])) for i in range(attn.shape[2])]
    everything = measured()
    return {
        "per_query": torch.stack([row.entropy for row in rows], 1)[None],
        "per_head_mean": everything.entropy,
        "mean": everything.entropy.mean(),
        "causal_normalized": torch.stack([row.fraction for row in rows], 1)[None],
        # The authors' monitor adds 1e-6 within the logarithm; ours does not need to.
        "official_speech_eps1e6_mean": Unbuilt(
            "1e-6 within the logarithm, of the authors' monitor"
        ),
    }


@adapter("attention_entropy_lower_bound")
def lower_bound(inputs: Inputs, params: Inputs) -> Inputs:
    keys, sigma = torch.as_tensor(inputs["grid"], dtype=torch.float64).unbind(1)
    return {"bound": entropy_lower_bound(keys, sigma)}


@adapter("sigma_reparam")
def reparametrised(inputs: Inputs, params: Inputs) -> Inputs:
    weight, x = inputs["weight"], inputs["x"]
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight.data = weight.detach().clone()
    sigma_reparam(layer)
    rule = layer.parametrizations.weight[0]
    rule.u.copy_(inputs["u_init"])
    only(params, "training", True, False)
    layer.train(bool(params.get("training", True)))
    gamma = torch.tensor(params.get("gamma", 1.0), dtype=weight.dtype, requires_grad=True)
    replaced = {
        "parametrizations.weight.original": weight,
        "parametrizations.weight.0.gamma": gamma,
    }
    out = functional_call(layer, replaced, (x,))
    loss = out.square().sum()
    (grad_gamma,) = torch.autograd.grad(loss, gamma, retain_graph=True)
    # sigma of the one forward above: by how much it divided, gamma aside.
    sigma = (gamma * (x @ weight.t()).norm() / out.norm()).detach()
    return {
        "out": out,
        "sigma": sigma[None],
        "u_after": rule.u,
        "grad_gamma": grad_gamma[None],
        "backward": loss,
    }


@adapter("entropy_guided_attention")
def entropy_guided_attention(inputs: Inputs, params: Inputs) -> Inputs:
    p = inputs["attn_logits"].softmax(-1)
    if inputs["layers"] != "[P, P.flip(head)]":
        raise NotBuilt(f"layers {inputs['layers']!r}")
    thresholds = inputs["threshold_weights"].requires_grad_()
    only(params, "context_size", p.shape[-1])
    loss = Guided(thresholds.expand(2, -1), params.get("tolerance_margin_factor", 0.2))
    term = Term(loss, weight=params.get("loss_coeff", 1e-5))
    total = evaluate(term, attention=[p, p.flip(1)])
    (grad,) = torch.autograd.grad(total, thresholds, retain_graph=True)
    return {"loss": total, "grad_thresholds": grad}


class Guided(nn.Module):
    """The penalty at thresholds that carry gradient to the case's input."""

    scope = "batch"

    def __init__(self, thresholds: Tensor, tolerance: float) -> None:
        super().__init__()
        self.penalty = EntropyGuidedAttention(*thresholds.shape, tolerance=tolerance)
        self.held = [thresholds]

    def forward(self, attention: list[Tensor]) -> Tensor:
        found: Tensor = functional_call(self.penalty, {"thresholds": self.held[0]}, (attention,))
        return found
