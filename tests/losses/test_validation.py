# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What losses refuse: each case here used to give a wrong number in silence, or NaN."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_losses.losses.classification.binary_cross_entropy import BinaryCrossEntropy
from lightning_losses.losses.classification.binary_focal import BinaryFocal
from lightning_losses.losses.classification.comp_sum import CompSum
from lightning_losses.losses.classification.cross_entropy import CrossEntropy
from lightning_losses.losses.classification.ensloss import EnsLoss
from lightning_losses.losses.classification.focal import Focal
from lightning_losses.losses.classification.opl import OrthogonalProjection
from lightning_losses.losses.classification.smooth_adversarial import SmoothAdversarial
from lightning_losses.losses.density.compositional_nll import CompositionalNLL
from lightning_losses.losses.imbalance.anyloss import AnyLoss
from lightning_losses.losses.imbalance.class_balanced import ClassBalanced
from lightning_losses.losses.imbalance.dice import Dice
from lightning_losses.losses.imbalance.logit_adjustment import LogitAdjustment
from lightning_losses.losses.information.cauchy_schwarz import (
    CSDivergence,
    CSMutualInformation,
    KdeKL,
)
from lightning_losses.losses.metric.multi_similarity import MultiSimilarity
from lightning_losses.losses.ordinal.coral import Coral
from lightning_losses.losses.recommender.ips_bce import IPSBinaryCrossEntropy
from lightning_losses.losses.recommender.tri_bce import TriBCE
from lightning_losses.losses.robust.aldr_kl import AdaptiveLDRKL
from lightning_losses.losses.robust.truncated_gce import TruncatedGCE
from lightning_losses.losses.segmentation.background_aware_ce import BackgroundAwareCE
from lightning_losses.losses.segmentation.dice_ce import DiceCE
from lightning_losses.losses.segmentation.skeleton_recall import SkeletonRecall
from lightning_losses.losses.segmentation.soft_cldice import SoftClDice
from lightning_losses.losses.segmentation.tversky import Tversky
from lightning_losses.losses.shared.moving_log_mean import MovingLogMean
from lightning_losses.losses.shared.sample_state import SampleState
from lightning_losses.objective import Objective

Make = Callable[[], nn.Module]
Z = torch.tensor([0.5, -1.0, 2.0, 0.0])


# -- yes-or-no labels out of range -----------------------------------------------------------------

BINARY: list[Make] = [
    BinaryCrossEntropy, BinaryFocal, EnsLoss, IPSBinaryCrossEntropy, AnyLoss, Dice,
    lambda: Dice(style="paper"), TriBCE,
]  # fmt: skip


def binary(make: Make, target: Tensor, **named: Tensor) -> Tensor:
    loss = make()
    scores = {"logits_deep": Z, "logits_shallow": -Z} if isinstance(loss, TriBCE) else {"logits": Z}
    if isinstance(loss, IPSBinaryCrossEntropy):
        named["inverse_propensity"] = torch.ones(4)
    return Objective({"x": loss})(target=target, **scores, **named).total


# Masks as PNGs hold them, the labels of a margin loss, and one step outside on either side.
@pytest.mark.parametrize("wrong", [[0, 255, 0, 255], [-1, 1, 1, -1], [0.0, 1.01, 0, 0]])
@pytest.mark.parametrize("make", BINARY)
def test_binary_targets_out_of_range(make: Make, wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"target must be in \[0, 1\].*target // 255"):
        binary(make, torch.tensor(wrong))


@pytest.mark.parametrize("make", BINARY)
def test_binary_targets_that_are_legal(make: Make) -> None:
    """Soft labels and the ends; and whatever stands in a row that does not count, NaN too."""
    soft = torch.tensor([0.0, 0.0 if make is AnyLoss else 0.25, 1.0, 1.0])  # it takes no soft ones
    assert binary(make, soft).isfinite()
    assert binary(make, torch.tensor([0, 1, 1, -100])).isfinite()
    mask = torch.tensor([True, True, True, False])
    expected = binary(make, soft, mask=mask)
    for ignored in (255.0, -1.0, torch.nan):
        torch.testing.assert_close(binary(make, soft.index_fill(0, torch.tensor(3), ignored),
                                          mask=mask), expected)  # fmt: skip


def test_binary_target_nan_in_a_masked_row_leaves_the_gradient_alone() -> None:
    z = Z.clone().requires_grad_()
    mask = torch.tensor([True, True, True, False])
    target = torch.tensor([0.0, 1.0, 1.0, torch.nan])
    Objective({"x": BinaryCrossEntropy()})(z, target, mask=mask).total.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_soft_targets_of_classes_out_of_range() -> None:
    z, target = torch.zeros(4, 3), torch.full((4, 3), 2.0)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        Objective({"x": Dice()})(z, target)


MAPS: list[Callable[..., nn.Module]] = [
    Tversky,
    DiceCE,
    SkeletonRecall,
    SoftClDice,
    BackgroundAwareCE,
]


def on_maps(loss: nn.Module, labels: Tensor) -> Tensor:
    name = "skeleton_map" if isinstance(loss, SkeletonRecall) else "label_map"
    named: dict[str, Any] = {"logit_map": torch.zeros(2, 1, 4, 4), name: labels}
    if isinstance(loss, BackgroundAwareCE):
        named["old_class_map"] = torch.zeros(2, 4, 4)
    return Objective({"x": loss})(**named).total


@pytest.mark.parametrize("make", MAPS)
def test_masks_of_one_channel(make: Callable[..., nn.Module]) -> None:
    mask = torch.zeros(2, 4, 4, dtype=torch.uint8)
    mask[:, :2] = 255
    for wrong in (mask, mask.float(), mask.long() // 255 - 1):  # uint8 as read, as ToTensor keeps
        with pytest.raises(
            ValueError, match=r"(label|skeleton)_map (must be in \[0, 1\].*// 255|int64)"
        ):
            on_maps(make(), wrong)
    right = on_maps(make(), mask // 255)
    assert right.isfinite()
    torch.testing.assert_close(on_maps(make(), (mask == 255)), right)
    # 255 marks pixels that do not count in many data sets.
    assert on_maps(make(ignore_index=255), mask).isfinite()


def test_checks_stay_out_of_transforms() -> None:
    """A look at values inside vmap would raise; there the check waits, as on a GPU."""
    target = torch.tensor([0.0, 1.0, 1.0, 0.0])
    loss = BinaryCrossEntropy()
    rows = torch.func.vmap(lambda z, t: loss(z[None], t[None])[0])(Z, target)
    torch.testing.assert_close(rows, loss(Z, target))


# -- the memory of stateful losses -----------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: TruncatedGCE(10), lambda: AdaptiveLDRKL(10)])
def test_loading_drops_what_the_run_before_wrote(make: Make) -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = 3 * torch.randn(4, 3, generator=generator), torch.zeros(4, dtype=torch.long)
    objective = Objective({"a": make()})
    saved = copy.deepcopy(objective.state_dict())
    objective(z, y, sample_index=torch.arange(4))
    objective.load_state_dict(saved)
    objective.set_step(1)
    for name, value in objective.state_dict().items():
        assert torch.equal(value, saved[name]), name
    # The same writes do arrive where nothing was loaded.
    objective(z, y, sample_index=torch.arange(4))
    objective.set_step(2)
    assert any(not torch.equal(v, saved[n]) for n, v in objective.state_dict().items())


def test_loading_drops_a_moving_mean_not_yet_read() -> None:
    objective = Objective({"a": CompositionalNLL()})
    saved = copy.deepcopy(objective.state_dict())
    named = {"score": Z, "noise_score": Z + 1, "noise_log_q": -Z}
    objective(**named)
    objective.load_state_dict(saved)
    objective.set_step(1)
    state = objective.terms["a"].loss.log_z
    assert isinstance(state, MovingLogMean)
    assert state.value == -torch.inf
    objective(**named)
    objective.set_step(2)
    assert state.value.isfinite()


def test_sample_state_is_bounded_without_set_step() -> None:
    """And what is merged is what writing one by one gives: the latest of a sample holds."""
    state, expected = SampleState(5, 0.0), [0.0] * 5
    generator = torch.Generator().manual_seed(0)
    for visit in range(40):
        index = torch.randperm(5, generator=generator)[:3]
        valid = torch.tensor([True, True, visit % 2 == 0])
        state.write(index, torch.full((3,), float(visit + 1)), valid)
        for i, counts in zip(index.tolist(), valid.tolist(), strict=True):
            expected[i] = visit + 1 if counts else expected[i]
        assert sum(len(places) for places, _ in state._written) <= 12  # two states of 6 places
        assert not state.values.any()  # nothing is read before the step is over
    state.set_step(1)
    assert state.values[:5].tolist() == expected
    assert not state._written


# The first beyond the end is the place of ignored rows, and so is -1; -4 is the first sample.
@pytest.mark.parametrize("wrong", [3, 4, -1, -4])
@pytest.mark.parametrize("make", [lambda: TruncatedGCE(3), lambda: AdaptiveLDRKL(3)])
def test_sample_index_out_of_range(make: Make, wrong: int) -> None:
    objective = Objective({"x": make()})
    z, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    index = torch.tensor([2, wrong])
    with pytest.raises(ValueError, match=r"sample_index must be in \[0, 3\).*num_samples="):
        objective(z, y, sample_index=index)
    y[1] = -100  # a padding row may have any
    assert objective(z, y, sample_index=index).total.isfinite()


# -- shapes that broadcast -------------------------------------------------------------------------


# One row is what broadcasts; two of three raise deep inside, with no word of whose they are.
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("make", [OrthogonalProjection, MultiSimilarity])
def test_features_as_many_as_targets(make: Make, rows: int) -> None:
    with pytest.raises(ValueError, match="features and target must have as many rows"):
        make()(features=torch.ones(rows, 2), target=torch.tensor([0, 0, 1]))


@pytest.mark.parametrize("rows", [1, 2])
def test_kernel_divergences_need_pairs_of_rows(rows: int) -> None:
    x, y = torch.ones(3, 2), torch.zeros(rows, 2)
    for call in (
        lambda: KdeKL()(estimate=x, reference=y),
        lambda: KdeKL()(estimate=y, reference=x),
        lambda: CSDivergence()(features=x, estimate=x, reference=y),
        lambda: CSDivergence()(features=y, estimate=x, reference=x),
        lambda: CSMutualInformation()(features=x, reference=y),
        lambda: KdeKL()(estimate=x, reference=x, valid=torch.ones(rows, dtype=torch.bool)),
    ):
        with pytest.raises(ValueError, match="must have as many rows"):
            call()


def test_kernel_divergences_need_one_shape() -> None:
    x, y = torch.ones(3, 2), torch.zeros(3)
    for call in (
        lambda: KdeKL()(estimate=x, reference=y),
        lambda: CSDivergence()(features=x, estimate=y, reference=x),
    ):
        with pytest.raises(ValueError, match=r"must have one shape, got \d and \d numbers"):
            call()
    assert KdeKL()(estimate=y, reference=y[:, None]) == 0  # (N,) and (N, 1) are the same rows


# One number used to broadcast; one too many or too few raised about "size of tensor a".
@pytest.mark.parametrize("found", [1, 2, 4])
def test_one_number_for_each(found: int) -> None:
    z, y = torch.zeros(2, 3), torch.tensor([0, 1])
    numbers = [1.0] * found
    with pytest.raises(ValueError, match=f"class_counts must be .* 3 classes, got {found}"):
        Objective({"x": LogitAdjustment(numbers)})(z, y)
    with pytest.raises(ValueError, match=f"level_weight must be .* 3 levels, got {found}"):
        Objective({"x": Coral(numbers)})(z, y)
    maps = {"logit_map": torch.zeros(1, 3, 2, 2), "label_map": torch.zeros(1, 2, 2).long()}
    with pytest.raises(ValueError, match=f"class_weight must be .* 3 classes, got {found}"):
        Objective({"x": DiceCE(class_weight=numbers)})(**maps)


# -- numbers of classes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda n: ClassBalanced([10.0] * n), "class_counts"),
        (lambda n: CrossEntropy(class_weight=[1.0] * n), "class_weight"),
        (lambda n: CrossEntropy(0.1, class_weight=[1.0] * n), "class_weight"),
        (lambda n: Focal(alpha=[1.0] * n), "alpha"),
    ],
)
def test_class_weights_of_another_length(make: Callable[[int], nn.Module], name: str) -> None:
    z, y = torch.zeros(2, 3), torch.tensor([0, 2])
    for found in (2, 4):
        said = f"{name} (must be .*(3 classes|\\(3,\\)).* got|has 2 numbers, but class 2 occurs)"
        with pytest.raises(ValueError, match=said):
            Objective({"x": make(found)})(z, y)
    assert Objective({"x": make(3)})(z, y).total.isfinite()


def test_too_few_class_counts_from_hidden_states() -> None:
    """There nobody knows how many classes there are, but which occur."""
    named = {"hidden": torch.ones(2, 4), "head_weight": torch.ones(3, 4)}
    with pytest.raises(ValueError, match="class_counts has 2 numbers, but class 2 occurs"):
        Objective({"x": ClassBalanced([10.0, 1.0])})(target=torch.tensor([0, 2]), **named)


def test_class_weights_below_zero() -> None:
    for make in (lambda w: CrossEntropy(class_weight=w), lambda w: Focal(alpha=w)):
        with pytest.raises(ValueError, match="at least 0, got"):
            make([1.0, -0.5])
        make([1.0, 0.0])  # 0 leaves a class out, which is meant


# -- forbidden classes -----------------------------------------------------------------------------


@pytest.mark.parametrize("nu", [0.0, 1.0])
def test_smooth_adversarial_passes_over_forbidden_classes(nu: float) -> None:
    """-inf in both is as if the class were not there; in one alone the loss is large, not NaN."""
    inf = torch.inf
    z = torch.tensor([[1.0, 0.0, -inf]], dtype=torch.float64, requires_grad=True)
    adv = torch.tensor([[0.5, 0.25, -inf]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0])
    loss = SmoothAdversarial(nu=nu)
    found = loss(z, adv, y)
    torch.testing.assert_close(found, loss(z[:, :2], adv[:, :2], y))
    found.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    half = SmoothAdversarial(nu=nu)(z.float(), adv.float().nan_to_num(neginf=0.0), y)
    assert half.isfinite().all()
    (gradient,) = torch.autograd.grad(half.sum(), z)
    assert gradient.isfinite().all()
    if not nu:
        torch.testing.assert_close(found, CompSum(1.0)(z.log_softmax(1)[:, 0]))
