# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Segmentation losses against loops over pixels, with pixels and images that do not count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses import DiceCE, RegionWise, SkeletonRecall, SoftClDice, Tversky
from lightning_losses.losses.segmentation.soft_cldice import soft_skeleton

B, H, W = 2, 3, 4
IGNORED = 255


def value(loss: nn.Module | Term, **named: Any) -> float:
    return float(Objective({"x": loss})(**named).total)


def case(seed: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels with ignored pixels, and a mask of images of which one always counts."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(B, classes, H, W, generator=g, dtype=torch.float64)
    y = torch.randint(max(classes, 2), (B, H, W), generator=g)
    y[torch.rand(B, H, W, generator=g) < 0.2] = IGNORED
    return z, y, torch.tensor([True, bool(seed % 3)])


def pixels_of(z: Tensor, y: Tensor, image: int) -> list[tuple[list[float], list[float]]]:
    """Probabilities and one-hot labels of the pixels that count."""
    found = []
    for i in range(H):
        for j in range(W):
            if y[image, i, j] == IGNORED:
                continue
            row, label = z[image, :, i, j].tolist(), int(y[image, i, j])
            if len(row) == 1:
                found.append(([1 / (1 + math.exp(-row[0]))], [float(label)]))
            else:
                e = [math.exp(v) for v in row]
                found.append(
                    ([v / sum(e) for v in e], [float(label == k) for k in range(len(row))])
                )
    return found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(1, 3),
    over=st.sampled_from(["image", "batch"]),
    background=st.booleans(),
    exponent=st.sampled_from([1.0, 0.75, 2.0]),
)
def test_overlap_losses_by_loop(
    seed: int, classes: int, over: Any, background: bool, exponent: float
) -> None:
    z, y, mask = case(seed, classes)
    a, b, s = 0.3, 0.7, 0.1
    images = [pixels_of(z, y, i) for i in range(B) if mask[i]]
    sets = [[pixel for image in images for pixel in image]] if over == "batch" else images
    used = range(0 if background or classes == 1 else 1, classes)
    tversky, dice = [], []
    for pixels in sets:
        for k in used:
            tp = sum(p[k] * t[k] for p, t in pixels)
            fp = sum(p[k] * (1 - t[k]) for p, t in pixels)
            fn = sum((1 - p[k]) * t[k] for p, t in pixels)
            tversky.append((1 - (tp + s) / (tp + a * fp + b * fn + s)) ** exponent)
            dice.append(1 - (2 * tp + s) / (2 * tp + fp + fn + s))
    named = {"logit_map": z, "label_map": y, "mask": mask}
    loss = Tversky(a, b, s, exponent, over, background, IGNORED)
    assert value(loss, **named) == pytest.approx(sum(tversky) / len(tversky), rel=1e-8)
    weight = [0.5, 2.0, 1.0][: max(classes, 2)]
    every = [pixel for image in images for pixel in image]
    ce = divisor = 0.0
    for p, t in every:
        label = int(t[0]) if classes == 1 else t.index(1.0)
        right = (p[0] if label else 1 - p[0]) if classes == 1 else p[label]
        ce -= weight[label] * math.log(right)
        divisor += weight[label]
    for divide_by, below in (("weights", divisor), ("pixels", len(every))):
        both = DiceCE(0.6, 1.5, s, over, background, weight, IGNORED, divide_by)
        expected = 0.6 * sum(dice) / len(dice) + 1.5 * ce / below
        assert value(both, **named) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), classes=st.integers(1, 3), over=st.sampled_from(["image", "batch"])
)
def test_skeleton_recall_and_region_wise_by_loop(seed: int, classes: int, over: Any) -> None:
    z, y, mask = case(seed, classes)
    images = [pixels_of(z, y, i) for i in range(B) if mask[i]]
    sets = [[pixel for image in images for pixel in image]] if over == "batch" else images
    recall = [
        (sum(p[k] * t[k] for p, t in pixels) + 1) / (sum(t[k] for _, t in pixels) + 1)
        for pixels in sets
        for k in range(int(classes > 1), classes)
    ]
    found = value(SkeletonRecall(1.0, over, IGNORED), logit_map=z, skeleton_map=y, mask=mask)
    assert found == pytest.approx(1 - sum(recall) / len(recall), rel=1e-9)
    prices = torch.randn(B, classes, H, W, generator=torch.Generator().manual_seed(seed)).double()
    p = z.sigmoid() if classes == 1 else z.softmax(1)
    found = value(RegionWise(), logit_map=z, region_map=prices, mask=mask)
    assert found == pytest.approx(float((p * prices)[mask].mean()), rel=1e-9)


# -- centre lines ----------------------------------------------------------------------------------


def pool_by_loop(
    x: list[list[float]], offsets: list[tuple[int, int]], pick: Any
) -> list[list[float]]:
    h, w = len(x), len(x[0])
    return [
        [
            pick(x[i + a][j + b] for a, b in offsets if 0 <= i + a < h and 0 <= j + b < w)
            for j in range(w)
        ]
        for i in range(h)
    ]


CROSS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
SQUARE = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]


def skeleton_by_loop(x: list[list[float]], iterations: int) -> list[list[float]]:
    skeleton = [[0.0] * len(x[0]) for _ in x]
    for step in range(iterations + 1):
        if step:
            x = pool_by_loop(x, CROSS, min)
        opened = pool_by_loop(pool_by_loop(x, CROSS, min), SQUARE, max)
        for i, row in enumerate(x):
            for j, v in enumerate(row):
                rest = max(v - opened[i][j], 0.0)
                skeleton[i][j] += max(rest - skeleton[i][j] * rest, 0.0)
    return skeleton


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), iterations=st.integers(0, 3), binary=st.booleans())
def test_soft_skeleton_by_loop(seed: int, iterations: int, binary: bool) -> None:
    x = torch.rand(1, 1, 6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (x > 0.4).double() if binary else x
    expected = skeleton_by_loop(x[0, 0].tolist(), iterations)
    found = soft_skeleton(x, iterations)[0, 0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    share=st.sampled_from([1.0, 0.5]),
    over=st.sampled_from(["image", "batch"]),
)
def test_cldice_by_loop(seed: int, share: float, over: Any) -> None:
    z, y, mask = case(seed, 1)
    p = torch.where(y[:, None] == IGNORED, 0.0, z.sigmoid())
    t = torch.where(y == IGNORED, 0, y).double()[:, None]
    lines, true_lines = (
        torch.tensor([skeleton_by_loop(image[0].tolist(), 2) for image in x])[:, None].double()
        for x in (p, t)
    )
    images = [i for i in range(B) if mask[i]]
    groups = [images] if over == "batch" else [[i] for i in images]
    losses = []
    for group in groups:
        precision = (float((lines * t)[group].sum()) + 1) / (float(lines[group].sum()) + 1)
        recall = (float((true_lines * p)[group].sum()) + 1) / (float(true_lines[group].sum()) + 1)
        dice = (2 * float((p * t)[group].sum()) + 1) / (float(p[group].sum() + t[group].sum()) + 1)
        centre = 1 - 2 * precision * recall / (precision + recall)
        losses.append(share * centre + (1 - share) * (1 - dice))
    loss = SoftClDice(2, 1.0, share, over, IGNORED)
    found = value(loss, logit_map=z, label_map=y, mask=mask)
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_a_gap_costs_more_than_its_pixels() -> None:
    """A line with a hole: Dice hardly sees it; clDice sees less of the label's line covered."""
    line = torch.zeros(1, 1, 9, 16)
    line[..., 3:6, :] = 1.0
    label = line[:, 0].long()
    broken = line.clone()
    broken[..., 7:9] = 0.0
    z, whole = 20 * broken - 10, 20 * line - 10
    for loss in (SoftClDice(), SoftClDice(cldice_weight=0.5), Tversky()):
        assert value(loss, logit_map=whole, label_map=label) == pytest.approx(0, abs=0.02)
        assert value(loss, logit_map=z, label_map=label) > 0.03
    volume = {
        "logit_map": whole[..., None].expand(1, 1, 9, 16, 3),
        "label_map": label[..., None].expand(1, 9, 16, 3),
    }
    assert value(SoftClDice(), **volume) == pytest.approx(0, abs=0.02)


# -- values worked out by hand, limits -------------------------------------------------------------


def test_values_worked_out_by_hand() -> None:
    b = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    t = torch.tensor([1, 0, 0])
    rows = {"logit_map": "logits", "label_map": "target"}
    one_set = Term(Tversky(0.3, 0.7, smooth=1e-5, over="batch"), inputs=rows)
    assert value(one_set, logits=b, target=t) == pytest.approx(0.284867, abs=1e-5)
    # Focal, with smooth 1 and p t of one set: (1 - (TP + 1) / (...))^.75
    focal = Term(Tversky(0.3, 0.7, 1.0, 0.75, over="batch"), inputs=rows)
    assert value(focal, logits=b, target=t) == pytest.approx(0.249679, abs=1e-5)
    skeleton = torch.tensor([[[1, 1], [0, 0]]])
    recall = value(SkeletonRecall(), logit_map=torch.zeros(1, 1, 2, 2), skeleton_map=skeleton)
    assert recall == pytest.approx(1 - 0.666667, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_limits(seed: int) -> None:
    z, y, _ = case(seed, 3)
    y = y.clamp(max=2)
    named = {"logit_map": z, "label_map": y}
    ce = F.cross_entropy(z, y).item()
    assert value(DiceCE(dice_weight=0.0), **named) == pytest.approx(ce)
    dice = value(DiceCE(ce_weight=0.0, smooth=0.2), **named)
    assert value(Tversky(0.5, 0.5, smooth=0.1), **named) == pytest.approx(dice)
    jaccard, plain = value(Tversky(1.0, 1.0, 1e-9, over="batch", background=False), **named), None
    plain = value(Tversky(0.5, 0.5, 1e-9, over="batch", background=False), **named)
    assert jaccard >= plain
    perfect = 60.0 * F.one_hot(y, 3).movedim(-1, 1)
    for loss in (DiceCE(), Tversky(), Tversky(exponent=0.75)):
        p = perfect.clone().requires_grad_()
        total = Objective({"x": loss})(logit_map=p, label_map=y).total
        total.backward()
        assert total.item() == pytest.approx(0, abs=1e-5)
        assert p.grad.isfinite().all()


def test_pixels_of_a_row_term_mask_the_maps() -> None:
    """Cross-entropy on pixels and Dice on maps in one objective: one mask serves both."""
    z, y, _ = case(3, 3)
    y = y.clamp(max=2)
    keep = torch.rand(B, H, W, generator=torch.Generator().manual_seed(0)) > 0.4
    objective = build_objective(["ce", "tversky"])
    record = objective(z.movedim(1, -1), y, logit_map=z, label_map=y, mask=keep)
    ignored = torch.where(keep, y, -100)
    assert record.terms["tversky"].item() == pytest.approx(
        value(Tversky(), logit_map=z, label_map=ignored)
    )
    assert record.terms["ce"].item() == pytest.approx(F.cross_entropy(z, ignored).item())


def test_probabilities_of_minus_infinity() -> None:
    """A class that the model forbids."""
    z, y, _ = case(1, 3)
    y = y.clamp(max=1)
    z[:, 2] = -math.inf
    z.requires_grad_()
    for loss in (DiceCE(), Tversky(), SoftClDice(2)):
        total = Objective({"x": loss})(logit_map=z, label_map=y).total
        assert total.isfinite()
        assert torch.autograd.grad(total, z)[0].isfinite().all()


def on_zeros(loss: nn.Module, shape: tuple[int, ...], **shapes: tuple[int, ...]) -> float:
    others = {name: torch.zeros(other) for name, other in shapes.items()}
    return value(loss, logit_map=torch.zeros(shape), **others)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tversky(over="pixel"), "over must be"),
        (lambda: Tversky(smooth=0.0), "what is added below"),
        (lambda: Tversky(reduction="sum", over="batch"), "over: image"),
        (lambda: Tversky(reduction="median"), "reduction must be"),
        (lambda: DiceCE(activation="relu"), "activation must be one of auto, softmax"),
        (lambda: DiceCE(divide_by="rows"), "divide_by must be"),
        (lambda: SoftClDice(classes="all"), "classes must be 'joint' or 'mean'"),
        (lambda: SoftClDice(iterations=-1), "iterations >= 0"),
        (lambda: SkeletonRecall(smooth=0.0), "smooth must be positive"),
        (lambda: on_zeros(Tversky(), (1, 2, 3), label_map=(1, 2)), "label_map must be"),
        (lambda: on_zeros(SoftClDice(), (1, 1, 3), label_map=(1, 3)), "volumes"),
        (lambda: on_zeros(RegionWise(), (1, 2, 3), region_map=(1, 1, 3)), "as many columns"),
        (
            lambda: value(
                Tversky(),
                logits=torch.zeros(5, 2),
                mask=torch.tensor([False, True, True, True, True]),
                logit_map=torch.zeros(2, 2, 2, 2),
                label_map=torch.zeros(2, 2, 2).long(),
            ),
            "neither as many images nor",
        ),
    ],
)  # fmt: skip
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- options that MONAI has ------------------------------------------------------------------------


def one_hot(y: Tensor, classes: int) -> Tensor:
    return F.one_hot(y, classes).movedim(-1, 1).double()


def monai_dice(p: Tensor, t: Tensor, above: float, below: float, square: bool) -> Tensor:
    """``(B, C)``, as monai.losses.DiceLoss(reduction="none") computes it."""
    inter = (p * t).sum((2, 3))
    mass = (p.square() + t.square() if square else p + t).sum((2, 3))
    return 1 - (2 * inter + above) / (mass + below)


@pytest.mark.parametrize("square", [False, True])
def test_dice_as_monai(square: bool) -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(B, 3, H, W, generator=g, dtype=torch.float64)
    y = torch.randint(3, (B, H, W), generator=g)
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    made = {"square": square, "smooth": 0.1, "smooth_below": 0.7}
    dice = {"logit_map": z, "label_map": y}
    scores = monai_dice(z.softmax(1), one_hot(y, 3), 0.1, 0.7, square)

    def found(**more: Any) -> Tensor:
        reduction = "none" if more.get("reduction") == "none" else "mean"
        loss = DiceCE(ce_weight=0.0, **made, **more)
        return Objective({"x": loss}, reduction=reduction)(**dice).total

    torch.testing.assert_close(found(), scores.mean())
    torch.testing.assert_close(found(background=False), scores[:, 1:].mean())
    torch.testing.assert_close(found(dice_class_weight=weight), (scores * weight).mean())
    torch.testing.assert_close(
        found(dice_class_weight=weight[1:], background=False), (scores * weight)[:, 1:].mean()
    )
    torch.testing.assert_close(found(reduction="sum"), scores.sum())
    torch.testing.assert_close(found(reduction="none"), scores.mean(1))
    p = {"logit_map": z.softmax(1), "label_map": y}
    given_p = Objective({"x": DiceCE(**made, activation="none")})(**p).total
    torch.testing.assert_close(given_p, Objective({"x": DiceCE(**made)})(**dice).total)


def test_reductions_of_dice_ce_are_shares_of_one_another() -> None:
    z, y, _ = case(4, 3)
    labels = torch.where(y == IGNORED, 0, y)
    named = {"logit_map": z, "label_map": labels}
    ce = F.cross_entropy(z, labels, reduction="none")
    rows = Objective({"x": DiceCE(dice_weight=0, reduction="none")}, reduction="none")(**named)
    torch.testing.assert_close(rows.total, ce.mean((1, 2)))
    total = value(DiceCE(dice_weight=0, reduction="sum"), **named)
    assert total == pytest.approx(float(ce.sum()))
    # As values by image they take sample weights.
    weighed = Objective({"x": DiceCE(reduction="none")})(
        **named, sample_weight=torch.tensor([3.0, 1])
    )
    first = value(DiceCE(), logit_map=z[:1], label_map=labels[:1])
    second = value(DiceCE(), logit_map=z[1:], label_map=labels[1:])
    assert float(weighed.total) == pytest.approx((3 * first + second) / 4)


def test_class_weights_are_torchs() -> None:
    z, y, _ = case(2, 3)
    weight = [0.3, 2.0, 5.0]
    named = {"logit_map": z, "label_map": y}
    labels = torch.where(y == IGNORED, -100, y)
    expected = F.cross_entropy(z, labels, torch.tensor(weight).double())
    loss = DiceCE(dice_weight=0.0, class_weight=weight, ignore_index=IGNORED)
    assert value(loss, **named) == pytest.approx(float(expected))
    # Soft labels divide by pixels, as torch's do.
    soft = torch.rand(z.shape, generator=torch.Generator().manual_seed(0)).double()
    soft = soft / soft.sum(1, keepdim=True)
    expected = F.cross_entropy(z, soft, torch.tensor(weight).double())
    found = value(DiceCE(dice_weight=0.0, class_weight=weight), logit_map=z, label_map=soft)
    assert found == pytest.approx(float(expected))


def test_several_labels_a_pixel() -> None:
    """Sigmoids over channels, with labels of each, some of which nobody knows."""
    g = torch.Generator().manual_seed(1)
    z = torch.randn(B, 3, H, W, generator=g, dtype=torch.float64, requires_grad=True)
    t = torch.randint(2, z.shape, generator=g)
    loss = DiceCE(activation="sigmoid", smooth=0.1)
    dice = monai_dice(z.sigmoid(), t.double(), 0.1, 0.1, False).mean()
    bce = F.binary_cross_entropy_with_logits(z, t.double())
    found = Objective({"x": loss})(logit_map=z, label_map=t).total
    torch.testing.assert_close(found, dice + bce)
    torch.testing.assert_close(
        Objective({"x": loss})(logit_map=z, label_map=t.float()).total, found
    )
    unknown = t.clone()
    unknown[0, 1, :2] = -1
    loss = DiceCE(dice_weight=0.0, activation="sigmoid", ignore_index=-1)
    found = Objective({"x": loss})(logit_map=z, label_map=unknown).total
    known = unknown >= 0
    torch.testing.assert_close(
        found, F.binary_cross_entropy_with_logits(z[known], t[known].double())
    )
    (gradient,) = torch.autograd.grad(found, z)
    assert not gradient[~known].any()
    assert gradient[known].all()
    # A class a pixel is one yes and several no.
    y = torch.randint(3, (B, H, W), generator=g)
    by_class, by_channel = (
        value(DiceCE(activation="sigmoid"), logit_map=z, label_map=labels)
        for labels in (y, one_hot(y, 3))
    )
    assert by_class == pytest.approx(by_channel)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
@pytest.mark.parametrize(
    "loss",
    [
        Tversky(smooth=0.1), Tversky(0.3, 0.7, smooth=0.1), Tversky(smooth=0.1, exponent=0.75),
        Tversky(smooth=0.1, square=True), Tversky(smooth=0.1, over="batch"), DiceCE(),
    ],
)  # fmt: skip
def test_soft_labels_are_least_where_p_equals_them(t: float, loss: nn.Module) -> None:
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    label = torch.full((1, 1, 2, 2), t)
    found = [value(loss, logit_map=x.logit().expand(1, 1, 2, 2), label_map=label) for x in p]
    assert float(p[torch.tensor(found).argmin()]) == pytest.approx(t)
    # And of a softmax: two classes are one.
    two = torch.stack([1 - label, label], 1)[:, :, 0]
    both = [
        value(loss, logit_map=torch.stack([-x.logit() / 2, x.logit() / 2]).reshape(1, 2, 1, 1)
              .expand(1, 2, 2, 2), label_map=two)
        for x in p
    ]  # fmt: skip
    assert float(p[torch.tensor(both).argmin()]) == pytest.approx(t)


@pytest.mark.parametrize("make", [SoftClDice, SkeletonRecall])
def test_soft_labels_are_refused_where_they_mean_nothing(make: Any) -> None:
    name = "skeleton_map" if make is SkeletonRecall else "label_map"
    with pytest.raises(ValueError, match="must be 0 or 1 here, found numbers between"):
        value(make(), logit_map=torch.zeros(1, 1, 4, 4), **{name: torch.full((1, 4, 4), 0.5)})


def test_classes_of_cldice_are_one_set_or_several() -> None:
    """Joint: the sums of precision and recall run over channels too."""
    g = torch.Generator().manual_seed(5)
    z = torch.randn(2, 3, 8, 8, generator=g, dtype=torch.float64)
    y = torch.randint(3, (2, 8, 8), generator=g)
    p, t = z.softmax(1)[:, 1:], one_hot(y, 3)[:, 1:]
    lines, true_lines = soft_skeleton(p, 3), soft_skeleton(t, 3)

    def of(channels: slice) -> Tensor:
        a, b = lines[:, channels], true_lines[:, channels]
        precision = ((a * t[:, channels]).sum() + 1) / (a.sum() + 1)
        recall = ((b * p[:, channels]).sum() + 1) / (b.sum() + 1)
        return 1 - 2 * precision * recall / (precision + recall)

    named = {"logit_map": z, "label_map": y}
    assert value(SoftClDice(3), **named) == pytest.approx(float(of(slice(0, 2))))
    mean = (of(slice(0, 1)) + of(slice(1, 2))) / 2
    assert value(SoftClDice(3, classes="mean"), **named) == pytest.approx(float(mean))
    assert abs(float(mean) - float(of(slice(0, 2)))) > 1e-4


# -- labels that would be something else -----------------------------------------------------------


@pytest.mark.parametrize("make", [Tversky, DiceCE, SoftClDice, SkeletonRecall])
def test_class_maps_that_are_none(make: Any) -> None:
    z, y = torch.zeros(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    name = "skeleton_map" if make is SkeletonRecall else "label_map"
    for labels in (y / 255, y.double(), y.half()):  # as ToTensor and others keep them
        with pytest.raises(ValueError, match=f"{name} must hold class indices.*float"):
            value(make(), logit_map=z, **{name: labels})
    with pytest.raises(ValueError, match="bool"):
        value(make(), logit_map=z, **{name: y > 0})
    for mark in (255, 3, -1):
        wrong = y.clone()
        wrong[0, 1, 2] = mark
        for labels in (wrong, wrong.to(torch.uint8) if mark > 0 else wrong.int()):
            with pytest.raises(ValueError, match=rf"found {mark}.*ignore_index={mark}"):
                value(make(), logit_map=z, **{name: labels})
        assert math.isfinite(value(make(ignore_index=mark), logit_map=z, **{name: wrong}))
    # -100 fits no uint8, and is not 156.
    many = torch.full((2, 4, 4), 156, dtype=torch.uint8)
    with pytest.raises(ValueError, match="found 156"):
        value(make(), logit_map=z, **{name: many})


def test_confident_pixels_keep_their_gradient_in_float32() -> None:
    """softplus(z) - z t is 0 at z = 18; the loss is 1.5e-8 there and has a gradient."""
    for sign, label in ((1, 1), (-1, 0)):
        z = torch.full((1, 1, 2, 2), 18.0 * sign, requires_grad=True)
        labels = torch.full((1, 2, 2), label)
        total = Objective({"x": DiceCE(dice_weight=0.0)})(logit_map=z, label_map=labels).total
        assert total.item() == pytest.approx(math.exp(-18), rel=1e-5)
        total.backward()
        assert z.grad is not None
        assert z.grad.sum().item() * sign == pytest.approx(-math.exp(-18), rel=1e-5)
