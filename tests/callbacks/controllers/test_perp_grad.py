# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The perpendicular gradient against plain arithmetic, and the controller in real trainings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from radius_modules import Couple, Lbfgs, Manual, Module, Momentum, Scaled
from torch import Tensor, nn
from training import require_equal, train

from lightning_losses.callbacks.controllers.perp_grad import PerpGrad, perpendicular_gradient


def slow(w: list[float], g: list[float]) -> tuple[list[float], float]:
    """The formula of the paper, number by number; and the share of the squared length removed."""
    ww = sum(a * a for a in w)
    wg = sum(a * b for a, b in zip(w, g, strict=True))
    rest = [b - wg / (ww + 1e-30) * a for a, b in zip(w, g, strict=True)]
    length, whole = (math.sqrt(sum(v * v for v in x)) for x in (rest, g))
    return [v * whole / (length + 1e-30) for v in rest], wg * wg / (ww + 1e-30) / (whole * whole)


# Angles from nearly along the weight to nearly across it, and lengths whose squares leave float32.
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
@pytest.mark.parametrize("along", [0.0, 1.0, -1.0, 1000.0])
def test_the_formula(scale: float, along: float) -> None:
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(3, 4, 2, generator=rng, dtype=torch.float64)
    g = along * w + torch.randn(3, 4, 2, generator=rng, dtype=torch.float64)
    expected, share = slow(w.flatten().tolist(), g.flatten().tolist())
    for dtype, digits in ((torch.float64, 1e-10), (torch.float32, 2e-3 if along > 9 else 1e-5)):
        new, removed = perpendicular_gradient(w.to(dtype), (g * scale).to(dtype))
        assert new.dtype == dtype
        assert new.shape == g.shape
        length = float((g * scale).norm())
        torch.testing.assert_close(
            new.double().flatten() / length,
            torch.tensor(expected, dtype=torch.float64) * scale / length,
            rtol=digits,
            atol=digits,
        )
        assert float(removed) == pytest.approx(share, rel=1e-5)


numbers = st.floats(-100, 100, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=9))
def test_orthogonal_at_the_same_length(pairs: list[tuple[float, float]]) -> None:
    w, g = torch.tensor(pairs).T
    new, share = perpendicular_gradient(w, g)
    assert bool(new.isfinite().all())
    assert 0 <= float(share) <= 1
    w, g, new = w.double(), g.double(), new.double()  # where no square underflows
    if not float(w.norm()) or not float(g.norm()):
        assert torch.equal(new, g)
    elif float(new.norm()):
        # Below the smallest normal number there are few digits to be equal in.
        assert float(new.norm()) == pytest.approx(float(g.norm()), rel=1e-4, abs=1e-37)
        # What is left may be 64 epsilon of the length, so that rounding is 1/64 of it at most.
        assert abs(float(new @ w)) <= 0.02 * float(w.norm() * g.norm()) + 1e-37 * float(w.norm())
    else:  # all along the weight
        along = pytest.approx(float(w.norm() * g.norm()), rel=1e-6, abs=1e-37 * float(w.norm()))
        assert abs(float(w @ g)) == along


def test_edges() -> None:
    w = torch.tensor([0.1, -0.7, 0.3])
    for g in (3 * w, -w, 1e-20 * w):  # rounding of 0/0 must not become a full-length gradient
        new, share = perpendicular_gradient(w, g)
        assert torch.equal(new, torch.zeros(3))
        assert float(share) == pytest.approx(1)
    for bad in (math.nan, math.inf):
        g = torch.tensor([1.0, bad, 2.0])
        new, share = perpendicular_gradient(w, g)
        assert torch.equal(new.nan_to_num(nan=7.0), g.nan_to_num(nan=7.0))
        assert float(share) == 0
    g = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(perpendicular_gradient(torch.zeros(3), g)[0], g)
    half, _ = perpendicular_gradient(w.bfloat16(), g.bfloat16())
    assert half.dtype == torch.bfloat16
    assert float((half.float() @ w.bfloat16().float()).abs()) < 0.02
    torch.testing.assert_close(  # not contiguous
        perpendicular_gradient(torch.ones(2, 3).T, torch.arange(6.0).view(2, 3).T)[0],
        perpendicular_gradient(torch.ones(3, 2), torch.arange(6.0).view(2, 3).T.contiguous())[0],
    )


class Seen(L.Callback):
    """Gradients before PerpGrad acts and after, and as the optimizer gets them."""

    def __init__(self) -> None:
        self.before: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        named = module.named_parameters()
        self.before.append({n: p.grad.clone() for n, p in named if p.grad is not None})


def by_hand(module: Module) -> None:
    """What PerpGrad should do to every gradient of the module, in float64."""
    for p in module.parameters():
        if p.grad is not None and p is not module.net[0].bias:
            w, g = p.detach().double().flatten(), p.grad.double().flatten()
            rest = g - (w @ g) / (w @ w + 1e-30) * w
            p.grad.copy_((rest * g.norm() / rest.norm()).view_as(p))


class ByHand(L.Callback):
    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        by_hand(module)


class Clipped(Momentum):
    """Remembers gradients as they come to clipping, and puts a one-element parameter to work."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.clipping: list[dict[str, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.compute_loss(logits=self.scale * self.net(x), target=y)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        self.clipping.append({n: p.grad.clone() for n, p in self.named_parameters()})
        self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="norm")


def test_before_clipping_and_a_scalar_is_left_alone() -> None:
    seen = Seen()
    run = train(Clipped, [seen, PerpGrad(exclude="*.1.*")])
    assert len(seen.before) == len(run.module.clipping) > 3
    for before, after in zip(seen.before, run.module.clipping, strict=True):
        for name, g in before.items():
            if name == "scale" or name.startswith("net.1."):
                assert torch.equal(g, after[name]), name
            else:
                assert not torch.equal(g, after[name]), name
                assert after[name].norm() == pytest.approx(float(g.norm()), rel=1e-4)


def accumulate() -> dict[str, Any]:
    return {"accumulate_grad_batches": 2}


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (Module, dict),
        (Momentum, accumulate),
        (Lbfgs, dict),
        (Manual, dict),
        (Couple, dict),
        (Module, lambda: {"plugins": [Scaled()]}),
    ],
    ids=["adamw", "accumulated", "lbfgs", "manual", "two optimizers", "gradient scaler"],
)
def test_trains_as_by_hand(factory: Any, options: Any) -> None:
    """The same weights as with the gradients projected in float64, in every kind of training."""
    # The gradient of the bias before the batch norm is rounding, which Adam makes whole steps of.
    acted = train(factory, [PerpGrad(exclude="net.0.bias")], **options())
    expected = train(factory, [ByHand()], **options())
    plain = train(factory, **options())
    moved = 0.0
    for name, value in expected.module.state_dict().items():
        if name in ("net.0.weight", "net.1.weight", "net.1.bias", "net.3.weight", "net.3.bias"):
            found = acted.module.state_dict()[name]
            torch.testing.assert_close(found, value, rtol=5e-3, atol=5e-4)
            moved = max(moved, float((value - plain.module.state_dict()[name]).abs().max()))
    assert moved > 1e-2  # and it is not what training does without it
    require_equal("random", plain.random, acted.random)
    shares = [step.get("perp_grad/removed_share", 0.0) for step in acted.logged]
    assert all(0 <= share < 1 for share in shares)
    assert max(shares) > 0


class Share(L.Callback):
    """The share of two tensors together, before PerpGrad acts."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        pairs = [(p.detach(), p.grad) for p in (module.net[0].weight, module.net[3].weight)]
        along = sum(float((w * g).sum() ** 2 / (w * w).sum()) for w, g in pairs)
        self.shares.append(along / sum(float((g * g).sum()) for _, g in pairs))


def test_what_is_logged_is_the_share() -> None:
    share = Share()
    run = train(Module, [share, PerpGrad(["net.0.weight", "net.3.weight"])])
    logged = [step["perp_grad/removed_share"] for step in run.logged]
    assert logged == pytest.approx(share.shares, rel=1e-4)


def test_resuming_is_going_on(tmp_path: Path) -> None:
    straight = train(Momentum, [PerpGrad()], max_epochs=2)
    half = train(Momentum, [PerpGrad()], max_epochs=1)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest = train(Momentum, [PerpGrad()], ckpt_path=tmp_path / "half.ckpt", max_epochs=2)
    # Shuffling draws other batches after a restart, so that only what does not depend on it is
    # compared: the callback has no state, and acts from the first step on.
    assert len(rest.logged) == len(straight.logged) - len(half.logged)
    assert all("perp_grad/removed_share" in step for step in rest.logged)


def test_a_pattern_that_matches_nothing() -> None:
    with pytest.raises(ValueError, match=r"matches none .* net\.0\.weight"):
        train(Module, [PerpGrad("head.*")])
