# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The penalty on attention entropy, against a loop over rows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_losses import Objective, build_objective
from lightning_losses.penalties.entropy_guided_attention import EntropyGuidedAttention

L, B, H, Q, K = 3, 4, 2, 5, 6


def probabilities(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(L, B, H, Q, K, generator=g, dtype=torch.float64)
    return [layer.softmax(-1).to(dtype).requires_grad_() for layer in z]


def by_hand(
    attention: list[Tensor], thresholds: Tensor, tolerance: float, counts: Tensor, mean: bool
) -> float:
    most, layers = math.log(attention[0].shape[3]), []
    for layer, row in zip(attention, thresholds.tolist(), strict=True):
        heads = []
        for h, threshold in enumerate(row):
            penalty, rows = 0.0, 0
            for b in range(layer.shape[0]):
                for i in range(layer.shape[2]):
                    if not counts[b, i]:
                        continue
                    entropy = -sum(p * math.log(p) for p in layer[b, h, i].tolist() if p)
                    distance = entropy - threshold * most
                    rows += 1
                    if abs(distance) > tolerance * most:
                        penalty += distance**2
            heads.append(penalty / max(rows, 1) if mean else penalty)
        layers.append(sum(heads) / len(heads))
    return sum(layers) / len(layers)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    tolerance=st.floats(0, 0.5),
    mean=st.booleans(),
    masked=st.sampled_from(["no", "samples", "tokens"]),
)
def test_by_hand(seed: int, tolerance: float, mean: bool, masked: str) -> None:
    attention = probabilities(seed)
    loss = EntropyGuidedAttention(L, H, tolerance=tolerance, reduction="mean" if mean else "sum")
    thresholds = torch.rand(L, H, generator=torch.Generator().manual_seed(seed))
    loss.thresholds.data = thresholds
    g = torch.Generator().manual_seed(seed)
    named: dict[str, Any] = {}
    counts = torch.ones(B, Q, dtype=torch.bool)
    if masked == "samples":
        keep = torch.rand(B, generator=g) > 0.5
        counts, named = keep[:, None].expand(B, Q), {"features": torch.zeros(B, 1), "mask": keep}
    elif masked == "tokens":
        counts = torch.rand(B, Q, generator=g) > 0.5
        named = {"logits": torch.zeros(B, Q, 3), "mask": counts}
    found = Objective({"x": loss})(attention=attention, **named).total
    assert found.item() == pytest.approx(
        by_hand(attention, thresholds, tolerance, counts, mean), rel=1e-5
    )


def test_within_the_band_costs_nothing_and_sends_nothing() -> None:
    attention = [torch.full((B, H, Q, K), 1 / K, requires_grad=True)]  # entropy log K
    loss = EntropyGuidedAttention(1, H, threshold=0.9, tolerance=0.2)
    total = loss(attention)
    total.backward()
    assert total.item() == 0
    assert not bool(attention[0].grad.any())
    assert not bool(loss.thresholds.grad.any())
    beyond = EntropyGuidedAttention(1, H, threshold=0.7, tolerance=0.2)(attention[0])
    assert beyond.item() == pytest.approx(B * Q * (0.3 * math.log(K)) ** 2, rel=1e-5)


def test_gradients_and_masked_keys() -> None:
    z = torch.randn(2, H, 3, 4, dtype=torch.float64, requires_grad=True)
    loss = EntropyGuidedAttention(1, H, threshold=0.1, tolerance=0.0).double()
    assert torch.autograd.gradcheck(lambda z: loss(z.softmax(-1)), (z,))
    causal = torch.ones(3, 4).tril().bool()
    total = loss(z.masked_fill(~causal, -math.inf).softmax(-1))
    (grad,) = torch.autograd.grad(total, z)
    assert grad.isfinite().all()
    assert torch.count_nonzero(grad[..., ~causal]) == 0
    # A row that may see nothing has no probabilities: it is no row of entropy 0.
    nothing = torch.zeros(2, H, 3, 4, requires_grad=True)
    assert loss(nothing).item() == 0


def test_half_precision_computes_in_float32() -> None:
    half = probabilities(dtype=torch.float16)
    loss = EntropyGuidedAttention(L, H)
    found = loss(half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss([layer.float() for layer in half]))


def test_what_does_not_fit() -> None:
    loss = EntropyGuidedAttention(L, H)
    with pytest.raises(ValueError, match=r"must be 3 tensors \(B, 2, Q, K\)"):
        loss(probabilities()[:2])
    with pytest.raises(ValueError, match="neither the 4 samples"):
        loss(probabilities(), valid=torch.ones(7, dtype=torch.bool))
    for options in ({"layers": 0}, {"heads": 0}, {"tolerance": -1.0}, {"reduction": "max"}):
        with pytest.raises(ValueError, match="must be"):
            EntropyGuidedAttention(**({"layers": 1, "heads": 1} | options))  # type: ignore[arg-type]


def test_the_key_beside_cross_entropy() -> None:
    objective = build_objective(["ce", "entropy_guided_attention"])
    attention = probabilities()[:1]
    record = objective(torch.randn(B * Q, 7), torch.randint(7, (B * Q,)), attention=attention)
    record.total.backward()
    assert attention[0].grad is not None
    assert record.weights["entropy_guided_attention"] == pytest.approx(1e-5)
