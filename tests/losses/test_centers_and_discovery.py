# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses with centres, of clusters and of category discovery: what the golden cases do not show."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_losses import LossMixin, Objective, Term, build_objective
from lightning_losses.heads import HyperbolicMLR
from lightning_losses.losses import (
    AdaptiveMarginSoftmax,
    GroupProgressive,
    LabelledCrossEntropy,
    ProtoTriplet,
    WeightedInfoNCE,
)
from lightning_losses.losses.shared.hyperbolic import poincare_distance
from lightning_losses.metrics import utilization
from lightning_losses.metrics.ood.scores import ClassGaussians, energy_score, fpr_at_tpr
from lightning_losses.samplers import PseudoNegatives

D = torch.float64


def test_centres_have_options_and_are_in_the_checkpoint() -> None:
    objective = Objective({"proto": Term(ProtoTriplet(4, 3), optimizer={"lr": 0.1})})
    assert list(objective.state_dict()) == ["terms.proto.loss.weight"]

    class Module(LossMixin, torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.loss, self.net = objective, torch.nn.Linear(2, 2)

    rest, own = Module().parameter_groups()
    assert len(rest["params"]) == 2
    assert own["lr"] == 0.1
    with pytest.raises(ValueError, match="write in_features=64 num_classes=10"):
        build_objective("unpg")(features=torch.randn(3, 4), target=torch.arange(3))


def test_the_median_row_has_probability_alpha() -> None:
    torch.manual_seed(0)
    loss = AdaptiveMarginSoftmax(4, 3, alpha=0.1, min_scale=1.0).double()
    x, y = torch.randn(7, 4, dtype=D), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    with torch.no_grad():  # well fitted, so that the margin is above 0
        loss.weight.copy_(torch.eye(3, 4))
        x = loss.weight[y] + 0.1 * x
    values = loss(x, y)
    assert float(loss.diagnostics["margin"]) > 0
    assert (values + math.log(0.1)).abs().min() < 1e-9  # the row of the median cosine
    assert loss.eval()(x, y).mean() < values.mean()


def test_labelled_rows_alone_are_the_mean() -> None:
    z, y = torch.randn(5, 3, dtype=D), torch.tensor([0, -1, 2, -1, -100])
    found = Objective({"ce": LabelledCrossEntropy(0.5)})(z, y).total
    expected = torch.nn.functional.cross_entropy(z[[0, 2]] / 0.5, y[[0, 2]])
    torch.testing.assert_close(found, expected)
    assert Objective({"ce": LabelledCrossEntropy()})(z, y.clamp(max=-1)).total == 0


def test_weights_of_pairs_against_a_loop() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(4, 3, dtype=D), torch.randn(4, 3, dtype=D)
    groups = torch.tensor([[0, 0], [0, 1], [1, 1], [2, 0]])
    s = (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).t() / 0.3
    for positive in (False, True):
        values = WeightedInfoNCE(0.3, positive)(a, groups, b)
        for i in range(4):
            w = [float((groups[i] != groups[j]).sum()) for j in range(4)]
            w[i] = float(positive)
            total = sum(w[j] * math.exp(s[i, j]) for j in range(4))
            assert float(values[i]) == pytest.approx(math.log(total) - float(s[i, i]))
    alone = WeightedInfoNCE()
    assert alone(a, torch.zeros(4, 1, dtype=torch.long), b).tolist() == [0] * 4
    assert not alone.diagnostics["active"].any()


def test_distances_become_flat_and_logits_do_not_stand_still() -> None:
    x, y = torch.randn(5, 3, dtype=D), torch.randn(5, 3, dtype=D)
    flat = 2 * (x - y).norm(dim=1)
    torch.testing.assert_close(poincare_distance(x, y, 1e-8), flat, rtol=1e-4, atol=0)
    same = x.clone().requires_grad_()
    poincare_distance(same * 0.1, x * 0.1).sum().backward()
    assert not same.grad.any()
    torch.manual_seed(0)
    head, ray = HyperbolicMLR(4, 3), torch.randn(1, 4)
    sizes = [head(ray * t).abs().max().item() for t in (10.0, 20.0, 40.0, 400.0)]
    assert sizes[0] < 0.6 * sizes[1] < 0.4 * sizes[2] < 0.1 * sizes[3]


def test_utilization_is_the_way_to_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    q, x = torch.randn(7, 3, generator=g, dtype=D), torch.randn(5, 3, generator=g, dtype=D)
    q[0] = x[2]  # a row that was trained on
    expected = sum(min(float((a - b).square().sum()) for b in x) for a in q) / 7
    assert float(utilization(q, x)) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("lightning_losses.metrics.representation.utilization.HELD", 12)
    assert float(utilization(q, x)) == pytest.approx(expected, rel=1e-12)
    more = torch.cat([x, 0.3 * x[:1] + 0.7 * x[1:2]])  # a mixed row can only lower it
    assert utilization(q, more) <= utilization(q, x)
    assert float(utilization(x.half() * 0 + 1e3, x.half() * 0 - 1e3)) == 3 * 2e3**2
    for a, b, text in ((q, x[:, :2], "embeddings"), (q[:0], x, "both sides"), (q[0], x, "embed")):
        with pytest.raises(ValueError, match=text):
            utilization(a, b)


def test_pseudo_negatives_are_drawn_around_a_moving_mean() -> None:
    torch.manual_seed(0)
    pseudo = PseudoNegatives(2, momentum=0.8, variance=4.0)
    x = torch.tensor([[1.0, 10.0], [3.0, 10.0]], requires_grad=True)
    drawn = pseudo(x.expand(1, 2, 2).reshape(2, 2))
    assert not drawn.requires_grad
    torch.testing.assert_close(pseudo.mean, torch.tensor([0.4, 2.0]))  # 0.2 of the batch's
    pseudo(x)
    torch.testing.assert_close(pseudo.mean, torch.tensor([0.72, 3.6]))
    pseudo(x[:0])  # of no rows there is no mean
    pseudo(x * math.nan)  # nor does one bad batch stay in it
    pseudo.eval()
    many = pseudo(x.detach().repeat(5000, 1).half())
    torch.testing.assert_close(pseudo.mean, torch.tensor([0.72, 3.6]))
    assert many.dtype == torch.float16
    torch.testing.assert_close(many.float().mean(0), pseudo.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(many.float().var(0), torch.tensor([4.0, 4.0]), atol=0.2, rtol=0)
    for wrong in ({"momentum": 1.0}, {"variance": 0.0}):
        with pytest.raises(ValueError, match="momentum"):
            PseudoNegatives(2, **wrong)
    with pytest.raises(ValueError, match=r"\(B, 2\)"):
        pseudo(torch.zeros(3, 4))


def test_clipped_features_are_as_far_as_the_radius() -> None:
    torch.manual_seed(0)
    head, clipped = HyperbolicMLR(4, 3), HyperbolicMLR(4, 3, clip_radius=2.0)
    clipped.load_state_dict(head.state_dict())
    near, far = torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.tensor([[30.0, 0.0, 40.0, 0.0]])
    torch.testing.assert_close(clipped(near), head(near))
    torch.testing.assert_close(clipped(far), head(far / 25))
    assert clipped(torch.zeros(1, 4)).isfinite().all()
    with pytest.raises(ValueError, match="clip_radius must be positive"):
        HyperbolicMLR(4, 3, clip_radius=0.0)


def test_a_chain_of_networks() -> None:
    z, s = torch.randn(3, 4, dtype=D), torch.randn(3, 2, 4, dtype=D)
    y = torch.tensor([0, 3, 1])
    ce = torch.nn.functional.cross_entropy
    chain = [z, s[:, 0], s[:, 1]]
    expected = ce(z, y)
    for t, u in ((chain[0], chain[1]), (chain[1], chain[2])):
        kl = (t.softmax(1) * (t.log_softmax(1) - u.log_softmax(1))).sum(1).mean()
        expected = expected + 0.5 * kl + 0.5 * ce(u, y)
    torch.testing.assert_close(GroupProgressive()(z, s, y).mean(), expected)


def test_scores_of_rows_of_another_distribution() -> None:
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    centres = 8 * torch.eye(3, 5)
    inside = ClassGaussians(centres[y] + torch.randn(60, 5), y)
    known, other = centres[y] + torch.randn(60, 5), torch.randn(60, 5) - 6
    for score in (inside.mahalanobis, inside.log_density):
        assert fpr_at_tpr(score(known), score(other)) == 0
    assert fpr_at_tpr(torch.arange(20.0), torch.arange(20.0)) == 0.95
    z = torch.randn(2, 3)
    torch.testing.assert_close(energy_score(z, 2.0), 2 * (z / 2).logsumexp(1))
    with pytest.raises(ValueError, match="larger shrinkage"):
        ClassGaussians(torch.zeros(4, 5), torch.zeros(4, dtype=torch.long), shrinkage=0.0)
