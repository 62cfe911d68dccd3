# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Binary, spherical, hinge and other classification losses against a loop that is obviously right.

Numbers for one row are worked out by hand from the papers' formulas:
f = [2, 0, -1] with y = 0; b = [2, -1, .5] with t = [1, 0, 0].
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_values import F1, G1, Y1, Row, batch, probabilities, rows, value
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses import (
    BinaryCrossEntropy,
    BinaryFocal,
    Brier,
    CompSum,
    CrossEntropy,
    EnsLoss,
    MulticlassHinge,
    SmoothAdversarial,
    SphericalSoftmax,
    SphericalZ,
    TaylorSoftmax,
)
from lightning_losses.losses.classification.ensloss import slopes
from lightning_losses.targets import LabelSmoothing

B = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
T = torch.tensor([1, 0, 0])


# -- values worked out by hand ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [("spherical_z", 0.233343), ("taylor_softmax", 0.262364), ("spherical_softmax", 0.223179),
     ("label_smoothing", 0.336513), ("crammer_singer", 0.0), ("multiclass_hinge", 0.0),
     ("l2_svm", 1.0)],
)  # fmt: skip
def test_presets_are_the_numbers_of_the_cards(key: str, expected: float) -> None:
    assert float(build_objective(key)(F1, Y1).total) == pytest.approx(expected, abs=1e-6)


def test_more_numbers_of_the_cards() -> None:
    assert float(build_objective("binary_focal")(B, T).total) == pytest.approx(0.133958, abs=1e-6)
    z = torch.tensor([[0.5, 0.0, -1.0]], dtype=torch.float64)
    assert float(build_objective("weston_watkins")(z, Y1).total) == pytest.approx(1 / 6)
    assert value(CompSum(0.0), torch.zeros(1, 4), Y1) == pytest.approx(3)
    same = build_objective("smooth_adversarial")(F1, Y1, logits_adv=F1).total
    assert float(same) == pytest.approx(0.169846, abs=1e-6)
    # D = (2, 3), D_adv = (1, 2.5): the norm of (1, 0.5) beside the cross-entropy.
    moved = build_objective("smooth_adversarial")(F1, Y1, logits_adv=G1).total
    assert float(moved) == pytest.approx(0.169846 + math.sqrt(1.25), abs=1e-6)


# -- binary and multi-label ------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spread=st.floats(0.1, 15),
    gamma=st.floats(0, 5),
    alpha=st.none() | st.floats(0, 1),
    boost=st.floats(0, 4),
    labels=st.sampled_from([None, 1, 3]),
    soft=st.booleans(),
)
def test_binary_losses_by_loop(
    seed: int, spread: float, gamma: float, alpha: float | None, boost: float,
    labels: int | None, soft: bool,
) -> None:  # fmt: skip
    g = torch.Generator().manual_seed(seed)
    shape = (4,) if labels is None else (4, labels)
    z = spread * torch.randn(shape, generator=g, dtype=torch.float64)
    t = torch.rand(shape, generator=g, dtype=torch.float64)
    t = t if soft else (t > 0.5).long()
    t = t.double() if labels == 1 else t  # int (N, 1) is refused: mostly class indices gone wrong
    bce, focal = [], []
    for i in range(4):
        own: tuple[Row, Row] = ([], [])
        for a, b in zip(z[i].reshape(-1).tolist(), t[i].reshape(-1).tolist(), strict=True):
            p, q = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(a))
            own[0].append(-boost * b * math.log(p) - (1 - b) * math.log(q))
            plain = -b * math.log(p) - (1 - b) * math.log(q)
            weight = 1 if alpha is None else alpha * b + (1 - alpha) * (1 - b)
            own[1].append(weight * (p * (1 - b) + q * b) ** gamma * plain)
        bce.append(sum(own[0]) / len(own[0]))
        focal.append(sum(own[1]) / len(own[1]))
    assert rows(BinaryCrossEntropy(boost), z, t) == pytest.approx(bce, rel=1e-8, abs=1e-12)
    assert rows(BinaryFocal(gamma, alpha), z, t) == pytest.approx(focal, rel=1e-8, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 30))
def test_binary_limits(seed: int, spread: float) -> None:
    z, y = batch(seed, spread)
    onehot = F.one_hot(y, 3)
    expected = float(F.binary_cross_entropy_with_logits(z, onehot.double()))
    for target in (onehot, onehot.double(), y):  # labels, or class indices
        assert value(BinaryCrossEntropy(), z, target) == pytest.approx(expected, rel=1e-9)
    assert value(BinaryFocal(gamma=0.0), z, y) == pytest.approx(expected, rel=1e-9)
    # A softmax over the scores [0, z] is the sigmoid of z.
    t, one = y.clamp(max=1), z[:, 0]
    two = torch.stack([torch.zeros_like(one), one], 1)
    expected = value(CrossEntropy(), two, t)
    assert value(BinaryCrossEntropy(), one, t) == pytest.approx(expected, rel=1e-9)
    assert value(BinaryCrossEntropy(), one[:, None], t) == value(BinaryCrossEntropy(), one, t)


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(2.0), BinaryFocal(), BinaryFocal(0.5, 0.25)])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
def test_binary_gradients(loss: nn.Module, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True)
    t = (torch.rand(shape, generator=g) > 0.5).double()
    assert torch.autograd.gradcheck(lambda x: Objective({"x": loss})(x, t).total, z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_binary_losses_of_certain_and_masked_rows(dtype: torch.dtype) -> None:
    """Certain and right, certain and wrong, a label masked by -inf, a row that does not count."""
    z = torch.tensor([200.0, 200, -200, -math.inf, math.inf], dtype=dtype, requires_grad=True)
    t = torch.tensor([1, 0, 1, 0, -100])
    for loss in (BinaryCrossEntropy(), BinaryFocal(0.5), BinaryFocal(2.0), EnsLoss()):
        total = Objective({"x": loss})(z, t).total
        (grad,) = torch.autograd.grad(total, z)
        assert total.isfinite()
        assert total.dtype == torch.float32
        assert grad.isfinite().all()
        assert grad[4] == 0
    assert value(BinaryCrossEntropy(), z.detach(), t) == pytest.approx(400 / 4)  # not / 5


def test_certain_labels_keep_their_tail() -> None:
    """log(1 + e^z) - z is 0 at z = 50 in float32; e^-50 is not."""
    z = torch.tensor([50.0])
    found = value(BinaryCrossEntropy(), z, torch.tensor([1]))
    assert found == pytest.approx(math.exp(-50), rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "target"),
    [(torch.zeros(4, 3), torch.zeros(4)), (torch.zeros(4, 3), torch.zeros(4, 2).long()),
     (torch.zeros(4), torch.zeros(4, 2))],
)  # fmt: skip
def test_binary_shapes_that_do_not_go_together(logits: Tensor, target: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"needs yes or no in \[0, 1\], shaped as the logits.*beside logits"
    ):
        value(BinaryCrossEntropy(), logits, target)


def test_labels_that_nobody_knows() -> None:
    """The mean is over those that are known, as torch's on the known ones; -1 is a mistake else."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(5, 4, generator=g, dtype=torch.float64, requires_grad=True)
    t = torch.randint(-1, 2, (5, 4), generator=g)
    t[3] = -1  # of one row nothing is known
    known = t >= 0
    plain = F.binary_cross_entropy_with_logits(z[known], t[known].double())
    for target in (t, t.double(), t.int()):
        found = Objective({"x": BinaryCrossEntropy(ignore_index=-1)})(z, target).total
        torch.testing.assert_close(found, plain)
    (gradient,) = torch.autograd.grad(found, z)
    assert torch.equal(gradient != 0, known)
    weight = torch.rand(5, generator=g, dtype=torch.float64)
    found = Objective({"x": BinaryFocal(0.0, ignore_index=-1)})(z, t, sample_weight=weight).total
    every = F.binary_cross_entropy_with_logits(z, t.clamp(min=0).double(), reduction="none")
    share = weight[:, None] * known
    torch.testing.assert_close(found, (every * share).sum() / share.sum())
    nothing = Objective({"x": BinaryCrossEntropy(ignore_index=-1)})(z, -torch.ones_like(t)).total
    assert nothing == 0
    assert nothing.requires_grad
    with pytest.raises(ValueError, match="write ignore_index=NUMBER"):
        Objective({"x": BinaryCrossEntropy()})(z, t)


def test_positive_weights_of_labels_and_sums_over_them() -> None:
    g = torch.Generator().manual_seed(1)
    z = torch.randn(5, 3, generator=g, dtype=torch.float64)
    t = torch.rand(5, 3, generator=g, dtype=torch.float64)
    weight = torch.tensor([0.5, 2.0, 10.0], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(z, t, pos_weight=weight)
    for made in (weight, weight.tolist()):
        assert value(BinaryCrossEntropy(made), z, t) == pytest.approx(float(expected))
    expected = F.binary_cross_entropy_with_logits(z, t, reduction="sum")
    found = Objective({"x": BinaryCrossEntropy(over_labels="sum")}, reduction="sum")(z, t).total
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="positive_weight must be one number for each of 3 labels"):
        value(BinaryCrossEntropy([1.0, 2.0]), z, t)
    with pytest.raises(ValueError, match="over_labels must be"):
        BinaryFocal(over_labels="max")  # type: ignore[arg-type]


def test_class_indices_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 3\).*found 3"):
        value(BinaryCrossEntropy(), torch.zeros(4, 3), torch.full((4,), 3))


# -- other normalisations, brier, hinges -----------------------------------------------------------


def hinge(row: Row, k: int, against: str, over: str, margin: float, power: int) -> float:
    if against == "pairs":
        raw = [margin + v - row[k] for j, v in enumerate(row) if j != k]
    else:
        raw = [margin - (v if j == k else -v) for j, v in enumerate(row)]
    h = [max(0.0, v) ** power for v in raw]
    return max(h) if over == "max" else sum(h) / (len(row) if over == "mean" else 1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spread=st.floats(0.1, 15),
    a=st.floats(0.1, 3),
    b=st.floats(-1, 3),
    eps=st.floats(1e-4, 1),
    against=st.sampled_from(["pairs", "one_vs_rest"]),
    over=st.sampled_from(["max", "sum", "mean"]),
    power=st.sampled_from([1, 2]),
    normalize=st.booleans(),
)
def test_row_losses_by_loop(
    seed: int, spread: float, a: float, b: float, eps: float,
    against: Any, over: Any, power: int, normalize: bool,
) -> None:  # fmt: skip
    z, y = batch(seed, spread)
    want: dict[str, Row] = {n: [] for n in ("z", "taylor", "sphere", "brier", "hinge")}
    for row, k in zip(z.tolist(), y.tolist(), strict=True):
        mean = sum(row) / 3
        std = math.sqrt(sum((v - mean) ** 2 for v in row) / 3)
        want["z"].append(math.log1p(math.exp(a * (b - (row[k] - mean) / std))) / a)
        s = [1 + v + v * v / 2 for v in row]
        want["taylor"].append(-math.log(s[k] / sum(s)))
        length = math.sqrt(sum(v * v for v in row)) if normalize else 1
        s = [(v / length) ** 2 + eps for v in row]
        want["sphere"].append(-math.log(s[k] / sum(s)))
        p = probabilities(row)
        want["brier"].append(sum((q - (j == k)) ** 2 for j, q in enumerate(p)))
        want["hinge"].append(hinge(row, k, against, over, a, power))
    losses = {
        "z": SphericalZ(a, b),
        "taylor": TaylorSoftmax(),
        "sphere": SphericalSoftmax(eps, normalize),
        "brier": Brier(),
        "hinge": MulticlassHinge(against, over, a, power),
    }
    for name, loss in losses.items():
        assert rows(loss, z, y) == pytest.approx(want[name], rel=1e-8, abs=1e-9), name


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 15))
def test_limits(seed: int, spread: float) -> None:
    z, y = batch(seed, spread)
    torch_hinge = float(F.multi_margin_loss(z, y))
    assert float(build_objective("weston_watkins")(z, y).total) == pytest.approx(torch_hinge)
    # With one wrong class there is no difference between max and sum.
    two = [value(MulticlassHinge("pairs", o), z[:, :2], y.clamp(max=1)) for o in ("max", "sum")]
    assert two[0] == pytest.approx(two[1])
    a, b = (value(SphericalZ(2.0, 0.5), x, y) for x in (z, 3 * z + 5))
    assert a == pytest.approx(b, rel=1e-9)
    # f and -f have the same probability.
    assert value(SphericalSoftmax(), z, y) == pytest.approx(value(SphericalSoftmax(), -z, y))
    # Small logits: the series of exp up to order 2.
    small = 1e-3 * z / spread
    expected = value(CrossEntropy(), small, y)
    assert value(TaylorSoftmax(), small, y) == pytest.approx(expected, abs=1e-8)
    # The Brier score lies between 0, a certain hit, and 2, a certain miss.
    assert 0 <= value(Brier(), z, y) <= 2
    assert value(Brier(), 100 * F.one_hot(y, 3).double(), y) == pytest.approx(0, abs=1e-12)
    assert value(Brier(), 100 * F.one_hot((y + 1) % 3, 3).double(), y) == pytest.approx(2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), tau=st.floats(0, 3), rho=st.floats(0.3, 5), nu=st.floats(0, 3))
def test_smooth_adversarial_by_loop(seed: int, tau: float, rho: float, nu: float) -> None:
    z, y = batch(seed, 1.0)
    other, _ = batch(seed + 1, 1.0)
    want = []
    for f, g, k in zip(z.tolist(), other.tolist(), y.tolist(), strict=True):
        u = sum(math.exp((f[j] - f[k]) / rho) for j in range(3) if j != k)
        power = 1 - tau
        phi = math.log1p(u) if abs(power) < 1e-6 else ((1 + u) ** power - 1) / power
        moved = [(g[k] - g[j]) - (f[k] - f[j]) for j in range(3)]
        want.append(phi + nu * math.sqrt(sum(v * v for v in moved)))
    found = rows(SmoothAdversarial(tau, rho, nu), z, y, logits_adv=other)
    assert found == pytest.approx(want, rel=1e-8)
    one = value(SmoothAdversarial(tau, 1.0, nu), z, y, logits_adv=z)
    assert one == pytest.approx(value(CompSum(tau), z, y))


def test_smooth_adversarial_has_a_gradient_where_nothing_moved() -> None:
    z = F1.clone().requires_grad_()
    total = Objective({"x": SmoothAdversarial()})(z, Y1, logits_adv=z.detach()).total
    (grad,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(grad, F1.softmax(1) - F.one_hot(Y1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("extreme", [0.0, 1.0, 1000.0, 3e4])
def test_extreme_logits(dtype: torch.dtype, extreme: float) -> None:
    """Equal logits, and large ones: no NaN, and float32 numbers from half precision."""
    z = torch.tensor([[0.0, 0, 0], [1, 1, -1], [1, -1, 0]]) * extreme
    y = torch.tensor([0, 2, 0])
    losses: list[nn.Module] = [SphericalZ(), TaylorSoftmax(), Brier(), MulticlassHinge()]
    losses += [SphericalSoftmax(), SphericalSoftmax(normalize=True)]
    losses += [MulticlassHinge("one_vs_rest", "sum", power=2)]
    for loss in losses:
        half = z.to(dtype).requires_grad_()
        total = Objective({"x": loss})(half, y).total
        (grad,) = torch.autograd.grad(total, half)
        assert total.isfinite(), loss
        assert grad.isfinite().all(), loss
        single = value(loss, half.detach().float(), y)
        assert float(total.detach()) == pytest.approx(single, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), bias=st.booleans(), shift=st.sampled_from([0.0, 1e4]))
def test_spherical_z_from_hidden_states(seed: int, bias: bool, shift: float) -> None:
    """Mean and variance of W h + b by one (D, D) matrix; a common offset of the bias is nothing."""
    g = torch.Generator().manual_seed(seed)
    h, w = (torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (6, 7))
    b = shift + torch.randn(7, generator=g, dtype=torch.float64) if bias else None
    y = torch.randint(7, (6,), generator=g)
    mask = torch.rand(6, generator=g) > 0.3
    leaves = [x.requires_grad_() for x in (h, w, b) if x is not None]
    z = h @ w.t() + (0 if b is None else b)
    objective = Objective({"z": SphericalZ(2.0, 0.5)})
    head = {"hidden": h, "head_weight": w, "head_bias": b}
    given_logits = objective(z, y, mask=mask).total
    found = objective(target=y, mask=mask, **head).total
    torch.testing.assert_close(found, given_logits, rtol=1e-9, atol=1e-12)
    if bool(mask.any()):
        expected = torch.autograd.grad(given_logits, leaves)
        for a, e in zip(torch.autograd.grad(found, leaves), expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-7, atol=1e-9)


def test_spherical_z_makes_no_logits_and_minds_what_changes_them() -> None:
    objective = Objective({"z": SphericalZ()})
    h, w, y = torch.randn(4, 3), torch.randn(7, 3), torch.tensor([0, 6, 2, 1])
    plain = objective(hidden=h, head_weight=w, target=y).total
    # Scale and temperature of the logits change nothing, as they change no order.
    for option in ({"logit_scale": 3.0}, {"temperature": torch.full((4,), 2.0)}):
        torch.testing.assert_close(
            objective(hidden=h, head_weight=w, target=y, **option).total, plain
        )
    with pytest.raises(ValueError, match="softcap"):
        objective(hidden=h, head_weight=w, target=y, softcap=5.0)
    with pytest.raises(ValueError, match="spherical_z needs logits, or hidden and head_weight"):
        objective(target=y)
    # In bfloat16 as in float32, and finite where all classes are the same.
    low = objective(hidden=h.bfloat16(), head_weight=w.bfloat16(), target=y).total
    assert low.dtype == torch.float32
    same = torch.ones(7, 3, requires_grad=True)
    total = objective(hidden=h, head_weight=same, target=y).total
    assert total.item() == pytest.approx(math.log(2))
    assert torch.autograd.grad(total, same)[0].isfinite().all()


def test_spherical_z_does_not_cancel() -> None:
    """Logits of 1000 +- 0.2: E[f^2] - mean^2 in float32 has no right digit left."""
    small = torch.tensor([[0.0, 0.25, -0.125]])
    a, b = value(SphericalZ(), small, Y1), value(SphericalZ(), small + 1000, Y1)
    assert a == pytest.approx(b, rel=1e-5)


# -- label smoothing as a target -------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), eps=st.floats(0, 1), ignored=st.booleans())
def test_smoothed_targets_are_smoothed_cross_entropy(seed: int, eps: float, ignored: bool) -> None:
    z, y = batch(seed, 2.0)
    if ignored:
        y[1] = -100
    term = Term(CrossEntropy(), target_transform=LabelSmoothing(3, eps))
    assert value(term, z, y) == pytest.approx(value(CrossEntropy(eps), z, y), rel=1e-6)


def test_smoothed_targets() -> None:
    found = LabelSmoothing(4, 0.2)(torch.tensor([1]))
    assert found[0].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    soft = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).half()
    assert LabelSmoothing(4, 0.2)(soft)[0].tolist() == pytest.approx([0.45, 0.45, 0.05, 0.05])


# -- EnsLoss ---------------------------------------------------------------------------------------


def slopes_by_loop(margins: Row, draws: Row, power: float) -> Row:
    g = []
    for z in draws:
        base = max(0.0, 1 + power * z)
        if abs(power) < 1e-6:
            h = math.exp(z)
        else:
            h = base ** (1 / power) if base > 0 or power > 0 else math.inf
        g.append(max(-h, -1.0))
    out = [0.0] * len(margins)
    for i, slope in zip(
        sorted(range(len(margins)), key=lambda i: margins[i]), sorted(g), strict=True
    ):
        out[i] = slope / max(margins[i], 1.0) - 1e-6
    return out


@settings(max_examples=40, deadline=None)
@given(
    margins=st.lists(st.floats(-5, 5), min_size=1, max_size=20, unique=True),
    power=st.sampled_from([0.0, 0.5, 1.0, -0.5, -1.0]),
    seed=st.integers(0, 100),
)
def test_slopes_by_loop(margins: Row, power: float, seed: int) -> None:
    draws = torch.randn(len(margins), generator=torch.Generator().manual_seed(seed)).double()
    s = torch.tensor(margins, dtype=torch.float64)
    found = slopes(s, torch.ones_like(s, dtype=torch.bool), draws, power)
    assert found.tolist() == pytest.approx(slopes_by_loop(margins, draws.tolist(), power), rel=1e-9)
    assert (found < 0).all()  # every gradient pushes its margin up


def test_ensloss_repeats_by_step_and_ranks_all_labels_together() -> None:
    z = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3).requires_grad_()
    t = torch.ones(4, 3)
    a, b = (Objective({"x": EnsLoss(seed=3)}) for _ in range(2))
    first = torch.autograd.grad(a(z, t).total, z)[0]
    assert torch.equal(first, torch.autograd.grad(a(z, t).total, z)[0])
    assert torch.equal(first, torch.autograd.grad(b(z, t).total, z)[0])
    # Slopes below margin 1 rise over the whole batch, row after row.
    inner = first.reshape(-1)[z.detach().reshape(-1) < 1]
    assert (inner.diff() >= 0).all()
    a.set_step(1)
    assert not torch.equal(first, torch.autograd.grad(a(z, t).total, z)[0])
    a.set_step(0)
    assert torch.equal(first, torch.autograd.grad(a(z, t).total, z)[0])
    # Labels turn the sign of the gradient, not of the push on the margin.
    assert (torch.autograd.grad(a(z, 1 - t).total, z)[0] > 0).all()


def test_ensloss_is_blind_to_rows_that_do_not_count() -> None:
    """20 rows of which 17 count: more than one block of draws, not a whole number of them."""
    g = torch.Generator().manual_seed(0)
    z, t = torch.randn(20, generator=g, dtype=torch.float64), torch.randint(2, (20,), generator=g)
    mask = torch.ones(20, dtype=torch.bool)
    mask[[0, 7, 19]] = False
    assert value(EnsLoss(), z, t, mask=mask) == pytest.approx(value(EnsLoss(), z[mask], t[mask]))


def test_ensloss_draws_its_power_anew() -> None:
    loss = EnsLoss(period=10)
    powers = []
    for step in (0, 9, 10, 19, 20):
        loss.set_step(step)
        powers.append(loss.power)
    assert powers[0] == powers[1] != powers[2] == powers[3] != powers[4]
    assert all(-1 <= p <= 1 for p in powers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryCrossEntropy(-1.0), "positive_weight must be"),
        (lambda: BinaryFocal(-1.0), "gamma must be"),
        (lambda: BinaryFocal(alpha=2.0), "alpha must be in"),
        (lambda: SphericalZ(a=0.0), "a must be positive"),
        (lambda: SphericalSoftmax(eps=0.0), "eps must be positive"),
        (lambda: MulticlassHinge("all"), "against must be"),
        (lambda: MulticlassHinge(over_classes="min"), "over_classes must be"),
        (lambda: MulticlassHinge(power=3), "power must be"),
        (lambda: EnsLoss(period=0), "period must be"),
        (lambda: SmoothAdversarial(rho=0.0), "rho must be"),
        (lambda: LabelSmoothing(0), "num_classes >= 1"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
