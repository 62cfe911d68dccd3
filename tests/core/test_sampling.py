# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Drawing tokens: what is kept, what is drawn, and whether feedback reaches its target."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_losses.sampling import (
    EntropyGate,
    Mirostat,
    adaptive_temperature,
    draw,
    entropy_scale,
    truncate,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=9),
    st.floats(0, 1),
    st.integers(1, 12),
    st.floats(0.01, 1),
)
def test_truncation_by_loop(z: list[float], top_p: float, k: int, min_p: float) -> None:
    logits = torch.tensor([z], dtype=torch.float64)
    p = logits.softmax(-1)[0].tolist()
    kept = lambda **how: (truncate(logits, **how)[0] > -torch.inf).tolist()  # noqa: E731
    last = sorted(z, reverse=True)[: min(k, len(z))][-1]
    assert kept(top_k=k) == [x >= last for x in z]
    for i, keeps in enumerate(kept(min_p=min_p)):
        clear = abs(p[i] / max(p) - min_p) > 1e-9
        assert not clear or keeps == (p[i] >= min_p * max(p))
    chosen = kept(top_p=top_p)
    mass = sum(x for x, keeps in zip(p, chosen, strict=True) if keeps)
    least = min(x for x, keeps in zip(p, chosen, strict=True) if keeps)
    assert mass >= top_p - 1e-9  # enough,
    assert mass - least < top_p + 1e-9 or sum(chosen) == 1  # and no more than that
    assert all(keeps or x <= least + 1e-12 for x, keeps in zip(p, chosen, strict=True))


def test_exact_boundaries_do_not_depend_on_rounding() -> None:
    halves = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    for dtype in (torch.float32, torch.float64):
        assert int((truncate(halves.to(dtype), top_p=0.75) > -torch.inf).sum()) == 2


def test_temperature_comes_first_and_may_differ_by_row() -> None:
    z = torch.tensor([[2.0, 1.0, 0.0]]).expand(2, 3)
    found = truncate(z, temperature=torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(found, z / torch.tensor([[1.0], [0.5]]))


def test_draws_follow_the_distribution_and_the_generator() -> None:
    z = torch.tensor([0.6, 0.3, 0.1]).log().expand(20_000, 3)
    kept = truncate(z, top_k=2)
    made = draw(kept, torch.Generator().manual_seed(0), z)
    again = draw(kept, torch.Generator().manual_seed(0), z)
    assert torch.equal(made.token, again.token)
    share = (made.token == 0).double().mean().item()  # 2/3, standard deviation 0.0033
    assert share == pytest.approx(2 / 3, abs=0.015)
    first = made.token == 0
    assert made.log_prob[first].exp()[0].item() == pytest.approx(2 / 3)
    assert made.full_log_prob[first].exp()[0].item() == pytest.approx(0.6)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_surprise(version: int) -> None:
    """Of the same Zipf distribution each time, its mean surprise is brought to the target."""
    z = -torch.arange(1.0, 401.0).log().expand(8, 400)
    sampler = Mirostat(8, 3.0, 0.1, version=version)  # type: ignore[arg-type]
    g, seen = torch.Generator().manual_seed(0), []
    for _ in range(400):
        kept = sampler.truncate(z)
        seen.append(sampler.observe(z, kept, draw(kept, g).token))
    late = torch.stack(seen[100:]).mean().item()
    assert late == pytest.approx(3.0, abs=0.05)


def test_mirostat_does_not_run_away() -> None:
    z = torch.zeros(2, 16)  # 4 bits, whatever is kept of the full distribution
    sampler = Mirostat(2, 1.0, 1.0, surprise="full")
    for _ in range(20):
        kept = sampler.truncate(z)
        sampler.observe(z, kept, kept.argmax(-1))
    assert (sampler.mu == 0).all()
    assert (sampler.truncate(z) > -torch.inf).any(-1).all()


def test_open_rows_are_drawn_hotter() -> None:
    z = torch.tensor([[9.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    p = z.softmax(-1)
    scale = entropy_scale(-(p * p.log()).sum(-1), pivot=0.5)
    found = adaptive_temperature(z, scale, 0.8, 0.05)
    assert found.tolist() == pytest.approx([0.8 * 0.95, 0.8, 0.8 * 1.05])


def test_the_gate_has_two_sides() -> None:
    gate = EntropyGate(0.5, 1.3, 0.7, 10)
    assert gate.choose(0.5) == (1.3, 10)
    assert gate.choose(0.6) == (0.7, 5)


def test_what_is_refused() -> None:
    z = torch.zeros(1, 3)
    for how in ({"temperature": 0.0}, {"top_k": 0}, {"top_p": 1.5}, {"min_p": -0.1}):
        with pytest.raises(ValueError, match=next(iter(how))):
            truncate(z, **how)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing is left"):
        truncate(torch.full((1, 3), -math.inf))
    with pytest.raises(ValueError, match="target must be positive"):
        Mirostat(1, 0.0)
    with pytest.raises(ValueError, match="version must be"):
        Mirostat(1, version=3)  # type: ignore[arg-type]
