# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Attention entropy, its lower bound and onsets, against loops over rows."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_losses.metrics.entropy.attention import (
    attention_entropy,
    attention_entropy_of_logits,
)
from lightning_losses.metrics.entropy.attention_bound import (
    entropy_lower_bound,
    spectral_norm_above,
)
from lightning_losses.metrics.training_curve.onset import onset_step


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)


def by_hand(
    q: Tensor,
    k: Tensor,
    causal: bool = False,
    mask: Tensor | None = None,
    counts: Tensor | None = None,
    scale: float | None = None,
    queries: list[int] | None = None,
) -> list[dict[str, float]]:
    """A head each: lists of row entropies, fractions, and the largest logit."""
    (b, heads, length, dim), groups, keys = q.shape, k.shape[1], k.shape[2]
    scale = dim**-0.5 if scale is None else scale
    full = None if mask is None else mask.expand(b, heads, length, keys)
    out = []
    for h in range(heads):
        entropies, fractions, largest = [], [], 0.0
        for s in range(b):
            for i in range(length) if queries is None else queries:
                if counts is not None and not bool(counts[s, i]):
                    continue
                row = []
                for j in range(keys):
                    added = 0.0 if full is None else full[s, h, i, j].item()
                    if full is not None and full.dtype == torch.bool:
                        added = 0.0 if added else -math.inf
                    if added < -1e30 or (causal and j > i):
                        continue
                    z = scale * float(q[s, h, i].double() @ k[s, h * groups // heads, j].double())
                    largest = max(largest, abs(z))
                    row.append(z + added)
                if not row:
                    continue
                total = sum(math.exp(z - max(row)) for z in row)
                p = [math.exp(z - max(row)) / total for z in row]
                entropies.append(-sum(x * math.log(x) for x in p if x))
                if len(row) > 1:
                    fractions.append(entropies[-1] / math.log(len(row)))
        out.append(
            {
                "entropy": sum(entropies) / max(len(entropies), 1),
                "fraction": sum(fractions) / max(len(fractions), 1),
                "max_logit": largest,
                "rows": len(entropies),
                "rows_of_fraction": len(fractions),
            }
        )
    return out


def masks(kind: str, b: int, h: int, q: int, k: int) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "padding":  # of keys, a whole sequence of it
        return (torch.arange(k) < torch.arange(b)[:, None])[:, None, None]
    full = normal(b, h, q, k, seed=3)
    if kind == "bool":
        return full > 0
    if kind == "bias":  # added to logits, and half of the float masks that people write
        return full.masked_fill(full < -0.5, -math.inf)
    return torch.zeros(q, k, dtype=torch.float32).masked_fill(full[0, 0] < 0, -3.4e38)


# Shapes: groups of 1 (multi-query), 2 and 4 of 4 heads, more and fewer keys than queries; chunks of
# one row and of all.
@pytest.mark.parametrize("kind", ["none", "padding", "bool", "bias", "lowest"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("groups", "keys"), [(4, 5), (2, 7), (1, 3)])
def test_by_hand(kind: str, causal: bool, groups: int, keys: int) -> None:
    q, k = 2 * normal(2, 4, 5, 3), normal(2, groups, keys, 3, seed=1)
    mask = masks(kind, 2, 4, 5, keys)
    for options in (
        {},
        {"scale": 0.3, "queries": torch.tensor([0, 3]), "entries": 1},
        {"query_mask": torch.tensor([[True] * 5, [True, False, False, True, False]])},
    ):
        found = attention_entropy(q, k, causal=causal, mask=mask, **options)
        expected = by_hand(
            q,
            k,
            causal,
            mask,
            options.get("query_mask"),
            options.get("scale"),
            options["queries"].tolist() if "queries" in options else None,
        )
        for name in expected[0]:
            want = torch.tensor([head[name] for head in expected], dtype=torch.float64)
            torch.testing.assert_close(getattr(found, name), want, rtol=1e-9, atol=1e-12, msg=name)
        assert (found.lower_bound <= found.entropy + 1e-12).all()
        assert (found.lower_bound >= 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_is_the_entropy_of_what_torch_computes(causal: bool) -> None:
    """With values that are the identity, torch's attention returns its probabilities."""
    q, k = normal(2, 4, 6, 8), normal(2, 2, 6, 8, seed=1)
    p = F.scaled_dot_product_attention(
        q, k, torch.eye(6).double().expand(2, 2, 6, 6), is_causal=causal, enable_gqa=True
    )
    found = attention_entropy(q, k, causal=causal)
    torch.testing.assert_close(found.entropy, torch.special.entr(p).sum(-1).mean((0, 2)))


@settings(max_examples=30, deadline=None)
@given(keys=st.integers(1, 40), queries=st.integers(1, 9), size=st.floats(0, 1e6))
def test_uniform_and_one_hot(keys: int, queries: int, size: float) -> None:
    q = torch.zeros(2, 3, queries, 4)
    found = attention_entropy(q, normal(2, 3, keys, 4, dtype=torch.float32))
    torch.testing.assert_close(found.entropy, torch.full((3,), math.log(keys)))
    torch.testing.assert_close(found.fraction, torch.full((3,), float(keys > 1)))
    torch.testing.assert_close(found.lower_bound, torch.full((3,), math.log(keys)))
    sharp = torch.eye(keys).expand(1, 1, keys, keys)  # a key for each query, far before the others
    found = attention_entropy((200 + size) * sharp, sharp, scale=1.0)
    assert found.entropy.item() == pytest.approx(0, abs=1e-12)
    assert found.max_logit.item() == pytest.approx(200 + size)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    keys=st.integers(1, 12),
    dim=st.integers(1, 6),
    size=st.floats(0, 30),
    shift=st.floats(-30, 30),
)
def test_lower_bound_is_below(seed: int, keys: int, dim: int, size: float, shift: float) -> None:
    """Also where all keys have a common part, which makes norms large and moves no attention."""
    q, k = normal(1, 1, 4, dim, seed=seed), size * normal(1, 1, keys, dim, seed=seed + 1)
    found = attention_entropy(q, k + shift, causal=True, mask=normal(4, keys) + 0.0)
    assert found.lower_bound.item() <= found.entropy.item() + 1e-9
    plain = attention_entropy(q, k + shift).lower_bound
    torch.testing.assert_close(plain, attention_entropy(q, k).lower_bound, rtol=1e-6, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), keys=st.integers(2, 30), sigma=st.floats(0, 50))
def test_no_logits_of_this_norm_have_less_entropy(seed: int, keys: int, sigma: float) -> None:
    z = normal(200, keys, seed=seed)
    z = sigma * z / z.norm(dim=1, keepdim=True)
    extremal = torch.full((1, keys), -1 / math.sqrt(keys * (keys - 1)), dtype=torch.float64)
    extremal[0, 0] = math.sqrt((keys - 1) / keys)
    entropy = torch.special.entr(torch.cat([sigma * extremal, z]).softmax(1)).sum(1)
    bound = entropy_lower_bound(keys, sigma)
    assert (entropy >= bound - 1e-12).all()
    assert entropy[0].item() == pytest.approx(bound.item(), abs=1e-12)  # it is attained


def test_lower_bound_at_the_ends() -> None:
    assert entropy_lower_bound(8, 0.0).item() == pytest.approx(math.log(8))
    assert entropy_lower_bound(1, 3.0).item() == 0
    assert entropy_lower_bound(8, math.inf).item() == 0
    assert entropy_lower_bound(torch.tensor([4.0]), torch.tensor([[1.0], [2.0]])).shape == (2, 1)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99), rows=st.integers(1, 30), dim=st.integers(1, 128), log=st.floats(-9, 9)
)
def test_spectral_norm_from_above(seed: int, rows: int, dim: int, log: float) -> None:
    x = 10**log * normal(2, rows, dim, seed=seed)
    true, found = torch.linalg.matrix_norm(x, 2), spectral_norm_above(x)
    assert (found >= true * (1 - 1e-9)).all()
    assert (found <= true * dim ** (1 / 128) * (1 + 1e-9)).all()
    assert spectral_norm_above(torch.zeros(3, 2)).item() == 0


def test_of_logits() -> None:
    q, k = normal(2, 3, 5, 4), normal(2, 3, 5, 4, seed=1)
    mask = torch.ones(5, 5).tril().bool()
    logits = (q @ k.transpose(2, 3) / 2).masked_fill(~mask, -1e308)
    found, expected = attention_entropy_of_logits(logits), attention_entropy(q, k, causal=True)
    for name in ("entropy", "fraction", "max_logit", "rows", "rows_of_fraction"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert found.lower_bound.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype: torch.dtype) -> None:
    q, k = 30 * normal(1, 2, 4, 8, dtype=dtype), 30 * normal(1, 2, 4, 8, seed=1, dtype=dtype)
    expected = attention_entropy(q.double(), k.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = attention_entropy(q, k)
    assert found.entropy.dtype == torch.float32
    torch.testing.assert_close(found.entropy.double(), expected.entropy, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.max_logit.double(), expected.max_logit, rtol=1e-5, atol=0)


def test_nothing_to_look_at_and_broken_rows() -> None:
    nothing = attention_entropy(normal(2, 2, 3, 4), normal(2, 2, 5, 4), mask=torch.zeros(3, 5) > 1)
    empty = attention_entropy(normal(0, 2, 3, 4), normal(0, 2, 5, 4))
    no_keys = attention_entropy(normal(1, 2, 3, 4), normal(1, 2, 0, 4))
    for found in (nothing, empty, no_keys):
        assert all(torch.equal(x, torch.zeros(2).double()) for x in found)
    q = normal(1, 2, 3, 4)
    rest = attention_entropy(q, q, queries=torch.tensor([0, 2]))
    q = q.clone()
    q[0, 1, 1] = math.nan
    found = attention_entropy(q, normal(1, 2, 3, 4))
    assert found.rows.tolist() == [3, 2]  # a row with NaN is left out, and told by the logit
    assert found.max_logit[1] == math.inf
    assert found.entropy[1].item() == pytest.approx(rest.entropy[1].item())


def test_needs_no_graph_and_no_contiguous_input() -> None:
    q = normal(2, 5, 4, 3).requires_grad_().transpose(1, 2)
    k = normal(2, 5, 2, 3, seed=1).transpose(1, 2)
    found = attention_entropy(q, k)
    assert not found.entropy.requires_grad
    torch.testing.assert_close(found, attention_entropy(q.contiguous(), k.contiguous()))


@pytest.mark.parametrize(
    ("q", "k"),
    [((2, 3, 4), (2, 3, 4)), ((1, 4, 3, 2), (1, 3, 3, 2)), ((1, 4, 3, 2), (1, 4, 3, 5))],
)
def test_wrong_shapes(q: tuple[int, ...], k: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(B, H, Q, D\)|do not divide"):
        attention_entropy(torch.zeros(q), torch.zeros(k))


# -- onset -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0.002, 0.02), start=st.floats(5, 3000))
def test_onset_of_exponential_growth(rate: float, start: float) -> None:
    steps = list(range(0, 400, 20))
    values = [start * math.exp(rate * s) for s in steps]
    crossing = math.log(1e4 / start) / rate
    found = onset_step(steps, values, 1e4)
    if values[-1] >= 1e4:
        assert found == steps[-1]
    elif values[-1] < 2500 or crossing > 380 + 380:
        assert found is None
    else:
        assert found == pytest.approx(crossing, rel=1e-6)


def test_growth_that_ends_by_itself_has_no_onset() -> None:
    steps = list(range(0, 200, 10))
    for end in (20, 60, 100):  # saturating, as the logits of any training, quickly or slowly
        for time in (10, 30, 60):
            values = [2 + end * (1 - math.exp(-s / time)) for s in steps]
            assert onset_step(steps, values, 128) is None, (end, time)
    jump = [30.0] * 10 + [60.0] * 10  # a line through it rises, and neither half does
    assert onset_step(steps, jump, 128) is None
    stopped = [40 * math.exp(0.01 * min(s, 100)) for s in steps]
    assert onset_step(steps, stopped, 128) is None
    assert onset_step(steps[:10], stopped[:10], 128) == pytest.approx(100 * math.log(3.2), rel=0.2)


def test_no_onset_where_none_is_known() -> None:
    steps = list(range(20))
    noise = normal(20, seed=4).exp().tolist()
    assert onset_step(steps, noise, 1e4) is None  # no growth beyond chance
    assert onset_step(steps, [5.0] * 20, 1e4) is None
    assert onset_step(steps, [5 * 0.9**s for s in steps], 1e4) is None
    assert onset_step(steps, [5 * 1.001**s for s in steps], 1e4) is None  # 7,600 steps from 20
    assert onset_step(steps[:7], [2.0**s for s in steps[:7]], 1e4) is None  # too few
    assert onset_step([3] * 9, [2.0] * 9, 1e4) is None
    assert onset_step([], [], 1e4) is None
    assert onset_step(steps, [0.0] * 19 + [math.inf], 1e4) == 19
    with pytest.raises(ValueError, match="as many values as steps"):
        onset_step([1], [], 1e4)
