# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What an objective checks before a loss runs: contracts, values, names, options; and what it does
with options that are right.

Each refusal names the tensor and says what to write; beside it stands the nearest input that is
right, so that a check that refuses everything fails too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective, softmax_stats
from lightning_losses.contract import Contract
from lightning_losses.losses import CrossEntropy, Focal, LogsumexpPenalty, PPOClip
from lightning_losses.schedules import Cosine, Linear, Piecewise
from lightning_losses.targets import HLGauss

N, C, D = 6, 5, 4
G = torch.Generator().manual_seed(0)
Z = torch.randn(N, C, generator=G, dtype=torch.float64)
Y = torch.randint(C, (N,), generator=G)
SOFT = torch.rand(N, C, generator=G, dtype=torch.float64).softmax(1)
H = torch.randn(N, D, generator=G, dtype=torch.float64)
W = torch.randn(C, D, generator=G, dtype=torch.float64)


def with_bad(x: Tensor, value: float, row: int = 2) -> Tensor:
    """A copy with one entry of a row replaced."""
    out = x.clone()
    out[row].view(-1)[0] = value
    return out


# -- what a target may be --------------------------------------------------------------------------


class Takes(nn.Module):
    """A loss of the user's own with a contract; reads the target, and logits where there are any"""

    scope = "rows"

    def __init__(self, *kinds: Any) -> None:
        super().__init__()
        self.contract = Contract(target=kinds)

    def forward(self, target: Tensor, logits: Tensor | None = None) -> Tensor:
        x = target.float() if logits is None else logits
        return x if x.ndim == 1 else x.mean(1)


GOOD: dict[str, list[Tensor]] = {
    "class": [Y, Y.int(), Y.to(torch.uint8)],
    "soft": [SOFT, SOFT.float(), F.one_hot(Y, C)],
    "binary": [(Z > 0).double(), Z > 0, (Z > 0).long()],
    "level": [Y, Y + 1],
    "label": [Y, Y + 1000, -Y - 1],
    "real": [Z[:, 0], Z, Y],
}
BAD: dict[str, list[Tensor]] = {
    "class": [Y.double(), Y > 1, SOFT, Y + C, -Y - 1],
    "soft": [Y, Y.double(), SOFT[:, 1:], -SOFT],
    "binary": [Y, SOFT[:, 1:]],
    "level": [Y.double(), Y > 1, SOFT, -Y - 1],
    "label": [Y.double(), Y > 1, SOFT],
    "real": [Y > 1],
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_target_of_the_kind_is_taken_and_others_are_refused(kind: str) -> None:
    objective = Objective({"mine": Takes(kind)})
    for target in GOOD[kind]:
        assert objective(Z, target).total.isfinite()
    for target in BAD[kind]:
        with pytest.raises(ValueError, match="target") as error:
            objective(Z, target)
        assert str(target.dtype) in str(error.value) or "found" in str(error.value)


def test_several_kinds_are_any_of_them_and_no_contract_is_no_check() -> None:
    both = Objective({"mine": Takes("class", "soft")})
    for target in (Y, SOFT):
        both(Z, target)
    with pytest.raises(ValueError, match=r"Term 'mine' \(Takes\).*class indices.*or soft targets"):
        both(Z, Z[:, 0])

    class Old(Takes):
        contract = None

        def __init__(self) -> None:
            nn.Module.__init__(self)

    assert Term(Old()).contract is None
    for target in (Y, SOFT, Z[:, 0]):
        assert Objective({"old": Old()})(Z, target).total.isfinite()


def test_old_attributes_are_understood() -> None:
    class Soft(nn.Module):
        soft_target = True

        def forward(self, log_prob: Tensor) -> Tensor:
            return -log_prob

    assert Term(Soft()).contract == Contract(("class", "soft"))
    Objective({"soft": Soft()})(Z, SOFT)
    transformed = Term(CrossEntropy(), target_transform=HLGauss(-1, 1, C))
    assert transformed.class_target is False
    Objective({"ages": transformed})(Z, Z[:, 0])


def test_rows_that_do_not_count_may_hold_any_target() -> None:
    mask = torch.arange(N) != 2
    for target in (with_bad(Y, 255), with_bad(Y, -7)):
        masked = Objective({"ce": CrossEntropy()})(Z, target, mask=mask).total
        torch.testing.assert_close(masked, F.cross_entropy(Z[mask], target[mask]))
    soft = with_bad(SOFT, math.nan)
    torch.testing.assert_close(
        Objective({"ce": CrossEntropy()})(Z, soft, mask=mask).total,
        F.cross_entropy(Z[mask], soft[mask]),
    )


def test_binary_scores_have_no_class() -> None:
    with pytest.raises(ValueError, match=r"needs logits \(N, C\), a column a class.*loss=bce"):
        build_objective("ce")(Z[:, 0], (Y > 1).long())


def test_ignore_index_beside_targets_that_it_cannot_mark() -> None:
    """torch refuses it too; dropped in silence, what it should mark would be trained on."""
    named = {"logits": Z, "target": SOFT}
    assert build_objective("ce")(**named).total.isfinite()
    for index in (0, 255, -1):
        with pytest.raises(ValueError, match=f"ignore_index={index} marks class indices.*mask="):
            build_objective("ce", ignore_index=index)(**named)

    class Ages(HLGauss):
        contract = Contract(("real",))

    ages = {"ages": Term(CrossEntropy(), target_transform=Ages(-1, 1, C))}
    assert Objective(ages)(Z, Z[:, 0]).total.isfinite()
    with pytest.raises(ValueError, match="mask="):
        Objective(ages, ignore_index=-1)(Z, Z[:, 0])
    with pytest.raises(ValueError, match="at least 0, found -100"):  # a row marked by hand
        build_objective("ce")(Z, with_bad(SOFT, -100))


def test_columns_that_must_agree() -> None:
    class Pair(nn.Module):
        contract = Contract(("none",), same_columns=(("logits", "teacher_logits"),))

        def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
            return (logits - teacher_logits).mean(1)

    objective = Objective({"pair": Pair()})
    assert objective(logits=Z, teacher_logits=Z + 1).total == -1
    for teacher in (Z[:, 1:], Z.repeat(1, 2)):
        with pytest.raises(ValueError, match=r"'pair'.*logits and teacher_logits.*as many columns"):
            objective(logits=Z, teacher_logits=teacher)


# -- numbers that are none -------------------------------------------------------------------------


class Reads(nn.Module):
    """Reads one tensor and makes nothing of NaN in it, so that the total looks healthy."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, features: Tensor) -> Tensor:
        return features.nan_to_num(0, 0, 0).sum() * 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["features", "advantage", "target", "quantiles", "my_own"])
def test_what_is_no_number_is_named_whatever_the_total(name: str, bad: float) -> None:
    objective = Objective({"r": Term(Reads(name), inputs={"features": name})})
    good = torch.ones(N, 3) if name in ("features", "quantiles", "my_own") else torch.ones(N)
    assert objective(**{name: good}).total == 0
    with pytest.raises(ValueError, match=rf"{name} .* NaN or inf in 1 of 6 rows, first in row 2"):
        objective(**{name: with_bad(good, bad)})
    mask = torch.arange(N) != 2
    assert objective(**{name: with_bad(good, bad)}, mask=mask).total == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["hidden", "head_weight", "head_bias"])
def test_a_head_that_is_no_number_is_named(name: str, bad: float) -> None:
    named = {"hidden": H, "head_weight": W, "head_bias": torch.zeros(C, dtype=torch.float64)}
    for kernel in ("reference", "chunked"):
        objective = build_objective("ce", kernel=kernel)
        spoilt = {**named, name: with_bad(named[name], bad)}
        if name == "head_bias" and bad == -math.inf:  # masks class 2
            kept = Y != 2
            assert objective(**spoilt, target=Y, mask=kept).total.isfinite()
            continue
        with pytest.raises(ValueError, match=f"{name} .* holds NaN or"):
            objective(**spoilt, target=Y)


@pytest.mark.parametrize("rows", [N, 30])
@pytest.mark.parametrize("key", ["ce", "focal", "kd", "logsumexp_penalty"])
def test_a_row_without_a_class_is_named(key: str, rows: int) -> None:
    z, y = Z[:1].repeat(rows, 1), torch.zeros(rows, dtype=torch.long)
    objective = build_objective(key)
    named: dict[str, Any] = {"target": y, "teacher_logits": torch.zeros(rows, C).double()}
    some = z.clone()
    some[:, 4] = -math.inf  # one class masked is fine
    if key != "kd":  # 0 times log 0 is that loss's own affair
        assert objective(logits=some, **named).total.isfinite()
    none = z.clone()
    none[3] = -math.inf
    with pytest.raises(ValueError, match=r"logits .* -inf for every class.* 1 of .* row 3"):
        objective(logits=none, **named)
    mask = torch.arange(rows) != 3
    if key != "kd":
        assert objective(logits=none, **named, mask=mask).total.isfinite()


def test_pixels_that_a_mask_leaves_out_may_hold_anything() -> None:
    g = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 4, 4, generator=g)
    labels = torch.randint(3, (2, 4, 4), generator=g)
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    mask[0, :2] = False
    objective = build_objective("tversky")
    spoilt = maps.clone()
    spoilt[0, :, :2] = math.nan
    expected = objective(logit_map=maps, label_map=labels, mask=mask).total
    found = objective(logit_map=spoilt, label_map=labels, mask=mask).total
    torch.testing.assert_close(found, expected)
    assert expected != objective(logit_map=maps, label_map=labels).total
    with pytest.raises(ValueError, match=r"logit_map .* NaN"):
        objective(logit_map=spoilt, label_map=labels)


# -- dtypes, devices, what is no tensor ------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"logits": Z.tolist()}, "logits must be a tensor, got list.*torch.as_tensor"),
        ({"logits": Z.numpy()}, "logits must be a tensor, got ndarray"),
        ({"logits": 3.0}, "logits must be a tensor, got float"),
        ({"logits": torch.tensor(3.0)}, r"logits must have at least 1 dimension, got \(\)"),
        ({"target": Y.tolist()}, "target must be a tensor, got list"),
        ({"target": 2}, "target must be a tensor, got int"),
        ({"target": np.zeros(N, dtype=int)}, "target must be a tensor, got ndarray"),
        ({"mask": [True] * N}, "mask must be a tensor"),
        ({"sample_weight": [1.0] * N}, "sample_weight must be a tensor"),
        ({"features": [[0.0]]}, "features must be a tensor"),
        ({"logits": Z.to("meta")}, "on meta|meta"),
        ({"head_bias": torch.zeros(C)}, r"head_bias goes with hidden.*logits \+ head_bias"),
    ],
)
def test_what_is_no_tensor_or_of_another_kind(named: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        build_objective("ce")(**({"logits": Z, "target": Y} | named))


def test_dtypes_of_the_vocabulary() -> None:
    class Rewarded(nn.Module):
        def forward(self, logits: Tensor, reward: Tensor, sample_index: Tensor) -> Tensor:
            return logits.mean(1) * reward[sample_index]

    objective = Objective({"r": Rewarded()})
    good = {"logits": Z, "reward": Z[:, 0], "sample_index": torch.arange(N)}
    objective(**good)
    for name, bad, fix in (
        ("reward", Y, r"needs reward float, got torch.int64: write reward.float\(\)"),
        ("sample_index", Z[:, 0], r"needs sample_index int64.*sample_index.long\(\)"),
        ("reward", Z[:, 0].to("meta"), r"reward on meta: write reward.to\('cpu'\)"),
    ):
        with pytest.raises(ValueError, match=fix):
            objective(**(good | {name: bad}))


# -- names that nobody reads -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("normaliser", "write normalizer="),
        ("class_weight", r"write loss\.NAME\.class_weight="),
        ("weights", "class_weight.*sample_weight"),
        ("bias", "write head_bias="),
        ("gamma", r"write loss\.focal\.gamma="),
        ("labels", "write target="),
        ("teacher_logit", "write teacher_logits="),
        ("whatever", r"leave it out, or write a loss whose forward has a parameter whatever"),
        ("valid", "write mask="),
    ],
)
def test_a_name_that_nobody_reads(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_objective("focal")(Z, Y, **{name: torch.ones(N)})


def test_names_that_somebody_reads() -> None:
    objective = build_objective("ce")
    objective(Z, Y, features=H, trunk=H)  # the vocabulary, in vain
    objective.watch("monitor", "mine")
    assert "mine" in objective(Z, Y, mine=H).captured

    class Provider(nn.Module):
        reads = ("pixels",)

        def forward(self, tensors: dict[str, Any]) -> Tensor:
            return tensors["pixels"]

    with_provider = build_objective("ce", providers={"x": Provider()})
    with_provider(Z, Y, pixels=H)
    with pytest.raises(ValueError, match="write pixels="):
        with_provider(Z, Y, pixel=H)


def test_every_missing_tensor_is_reported_at_once() -> None:
    with pytest.raises(ValueError, match="Term 'ce'") as error:
        build_objective(["ce", "kd", "opl"])(logits=Z)
    message = str(error.value)
    for term, tensor in (("ce", "target"), ("kd", "teacher_logits"), ("opl", "features")):
        assert f"Term {term!r}" in message
        assert f"{tensor}=..." in message


# -- statistics that the step passes itself --------------------------------------------------------


def test_a_statistic_beside_logits_is_refused() -> None:
    for name in ("log_prob", "prediction", "entropy"):
        for source in ({"logits": Z}, {"hidden": H, "head_weight": W}):
            with pytest.raises(ValueError, match=f"{name} was passed beside .*leave one of them"):
                build_objective("ce")(**source, target=Y, **{name: torch.zeros(N)})


def test_the_log_probability_of_a_gaussian_policy() -> None:
    g = torch.Generator().manual_seed(3)
    mean = torch.randn(2, 3, generator=g, dtype=torch.float64).requires_grad_()
    action = torch.randn(2, 3, generator=g, dtype=torch.float64)
    log_prob = -0.5 * (action - mean).square() - 0.5 * math.log(2 * math.pi)
    named = {
        "old_log_prob": log_prob.detach() + 0.1,
        "advantage": torch.randn(2, 3, generator=g, dtype=torch.float64),
    }
    objective = Objective({"ppo": PPOClip()})
    objective.watch("monitor", "log_prob")
    record = objective(log_prob=log_prob, **named)
    rows = PPOClip()(*(x.reshape(-1) for x in (log_prob, *named.values())))
    torch.testing.assert_close(record.total, rows.mean())
    assert torch.autograd.grad(record.total, mean)[0].abs().sum() > 0
    torch.testing.assert_close(record.stats.log_prob, log_prob.detach().reshape(-1))


def test_a_regression_names_its_prediction() -> None:
    class Squared(nn.Module):
        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target).square()

    x = Z[:, 0].clone().requires_grad_()
    total = Objective({"s": Squared()})(prediction=x, target=Z[:, 1]).total
    torch.testing.assert_close(total, F.mse_loss(x, Z[:, 1]))


# -- options that are right ------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [["ce"], ["ce", "focal"]])
def test_a_learned_sample_weight(terms: list[str]) -> None:
    """The divisor is a sum of the weights too, so they have a gradient through it."""
    w = torch.tensor([0.5, 1.0, 2.0, 0.1, 3.0, 1.0], dtype=torch.float64).requires_grad_()
    objective = build_objective(terms)
    for name in terms:
        objective.terms[name].set_step(0)
    found = torch.autograd.grad(objective(Z, Y, sample_weight=w).total, w)[0]
    rows = sum(build_objective(t, reduction="none")(Z, Y).total for t in terms)
    expected = torch.autograd.grad((w * rows).sum() / w.sum(), w)[0]
    torch.testing.assert_close(found, expected)


def test_a_learned_sample_weight_with_class_weights() -> None:
    w = torch.rand(N, generator=G, dtype=torch.float64).requires_grad_()
    alpha = torch.tensor([1.0, 2.0, 0.5, 3.0, 0.7], dtype=torch.float64)
    objective = Objective({"ce": CrossEntropy(class_weight=alpha)})
    found = torch.autograd.grad(objective(Z, Y, sample_weight=w).total, w)[0]
    rows = F.cross_entropy(Z, Y, alpha, reduction="none")
    expected = torch.autograd.grad((w * rows).sum() / (w * alpha[Y]).sum(), w)[0]
    torch.testing.assert_close(found, expected)


def test_normalizers() -> None:
    objective = build_objective("ce")
    total = F.cross_entropy(Z, Y, reduction="sum")
    for normalizer in (7, 7.0, torch.tensor(7), torch.tensor([7.0]), torch.tensor([[7]])):
        record = objective(Z, Y, normalizer=normalizer)
        assert record.total.shape == ()
        torch.testing.assert_close(record.total, total / 7)
        torch.testing.assert_close(record.terms["ce"], total / 7)
    for bad in (-3.0, torch.tensor(-3.0), torch.tensor(-3), math.inf, torch.tensor(math.nan)):
        with pytest.raises(ValueError, match=r"normalizer .* at least 0"):
            objective(Z, Y, normalizer=bad)
    for other in ("7", True):
        with pytest.raises(TypeError, match="normalizer must be a number"):
            objective(Z, Y, normalizer=other)
    with pytest.raises(ValueError, match=r"one number, got torch.float32 \(2,\)"):
        objective(Z, Y, normalizer=torch.ones(2))


def test_one_temperature_and_one_weight_for_all_rows() -> None:
    objective = build_objective("ce")
    expected = F.cross_entropy(Z / 2, Y)
    for temperature in (2, 2.0, torch.tensor(2.0), torch.full((N,), 2.0)):
        found = objective(Z, Y, temperature=temperature).total
        torch.testing.assert_close(found, expected)
        stats = softmax_stats(Z, target=Y, temperature=2.0)
        torch.testing.assert_close(-stats.log_prob.mean(), expected)
    for weight in (2, 2.0, torch.tensor(2.0)):
        summed = build_objective("ce", reduction="sum")(Z, Y, sample_weight=weight).total
        torch.testing.assert_close(summed, 2 * F.cross_entropy(Z, Y, reduction="sum"))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"temperature": -2.0}, "temperature must be positive and finite, found -2"),
        ({"temperature": 0}, "temperature must be positive and finite, found 0"),
        ({"temperature": torch.tensor(-1.0)}, "temperature must be positive"),
        ({"temperature": math.nan}, "temperature must be positive and finite, found nan"),
        ({"softcap": "30"}, "softcap must be a number, got '30'"),
        ({"softcap": -1.0}, "softcap must be positive"),
        ({"softcap": math.nan}, "softcap must be positive"),
        ({"softcap": torch.tensor(3.0)}, "softcap must be a number, got a tensor"),
        ({"logit_scale": math.inf}, "logit_scale must be finite"),
        ({"logit_scale": "2"}, "logit_scale must be a number"),
        ({"sample_weight": -torch.ones(N)}, "sample_weight must be finite and at least 0"),
        ({"sample_weight": torch.full((N,), math.nan)}, "sample_weight"),
        ({"shift": -1}, "shift is a number of positions"),
        ({"shift": 1.0}, "shift is a number of positions"),
        ({"max_valid": -1}, "max_valid is a number of rows"),
    ],
)
def test_options_that_are_none(named: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        build_objective("ce")(Z, Y, **named)


def test_weights_of_both_signs_where_nothing_divides_by_them() -> None:
    w = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, 0.0], dtype=torch.float64)
    rows = F.cross_entropy(Z, Y, reduction="none")
    summed = build_objective("ce", reduction="sum")(Z, Y, sample_weight=w).total
    torch.testing.assert_close(summed, (w * rows).sum())
    total = build_objective("ce")(Z, Y, sample_weight=w, normalizer=3).total
    torch.testing.assert_close(total, (w * rows).sum() / 3)


@pytest.mark.parametrize("shift", [1, 2, 3])
@pytest.mark.parametrize("tokens", [1, 2])
def test_sequences_shorter_than_the_shift_are_an_empty_batch(tokens: int, shift: int) -> None:
    z = torch.randn(3, tokens, C, requires_grad=True)
    y = torch.zeros(3, tokens, dtype=torch.long)
    total = build_objective("ce")(z, y, shift=shift).total
    grad = torch.autograd.grad(total, z)[0]
    stats = softmax_stats(z, target=y, shift=shift)
    assert stats.log_prob is not None
    assert stats.log_prob.shape == (3, max(tokens - shift, 0))
    if tokens <= shift:
        assert total == 0
        assert torch.count_nonzero(grad) == 0
    else:
        torch.testing.assert_close(total, F.cross_entropy(z[:, 0], y[:, 1]))


def test_float64_is_exact() -> None:
    """Weights, divisors and class weights that float32 would round at the eighth digit."""
    alpha = [0.1, 0.7, 1.3, 0.9, 1.1]
    terms = {"ce": Term(CrossEntropy(class_weight=alpha), 0.1), "z": Term(LogsumexpPenalty(), 0.3)}
    w = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.7, 0.9])  # float32, exact numbers in themselves
    a, wd = torch.tensor(alpha, dtype=torch.float64), w.double()
    rows = F.cross_entropy(Z, Y, a, reduction="none")
    lse2 = Z.logsumexp(1).square()
    exact = {"rtol": 1e-15, "atol": 0}
    for source in ({"logits": Z}, {"hidden": Z, "head_weight": torch.eye(C).double()}):
        named = {**source, "target": Y, "sample_weight": w}
        if "hidden" in named:
            named["hidden"] = Z.clone().requires_grad_()
        ce, z = (wd * rows).sum() / (wd * a[Y]).sum(), (wd * lse2).sum() / wd.sum()
        total = Objective(dict(terms))(**named).total
        assert total.dtype == torch.float64
        torch.testing.assert_close(total.detach(), 0.1 * ce + 0.3 * z, **exact)
        known = Objective(dict(terms))(**named, normalizer=0.7).total.detach()
        expected = (0.1 * (wd * rows).sum() + 0.3 * (wd * lse2).sum()) / 0.7
        torch.testing.assert_close(known, expected, **exact)
    half = Objective(dict(terms))(Z.float(), Y, normalizer=torch.tensor(0.7, dtype=torch.float64))
    assert half.total.dtype == torch.float32


# -- a head given as a module ----------------------------------------------------------------------


def test_a_linear_head_is_its_weight_and_bias() -> None:
    for bias in (False, True):
        head = nn.Linear(D, C, bias=bias, dtype=torch.float64)
        total = build_objective("ce")(hidden=H, head=head, target=Y).total
        torch.testing.assert_close(total, F.cross_entropy(head(H), Y))
        total.backward()
        assert head.weight.grad is not None
        if bias:
            assert head.bias.grad is not None


def test_an_adapter_is_more_than_its_weight() -> None:
    class Adapted(nn.Linear):
        """As LoRA: what is trained is not in ``weight``."""

        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    hooked = nn.Linear(D, C)
    hooked.register_forward_hook(lambda *_: None)
    for head in (Adapted(D, C), nn.Sequential(nn.Linear(D, C)), hooked):
        with pytest.raises(ValueError, match=r"plain nn.Linear.*logits=head\(hidden\).*LoRA"):
            build_objective("ce")(hidden=H.float(), head=head, target=Y)
    head = nn.Linear(D, C)
    for named in ({"logits": Z}, {"hidden": H, "head_weight": W}):
        with pytest.raises(ValueError, match="head goes with hidden"):
            build_objective("ce")(**named, head=head, target=Y)


# -- sum -------------------------------------------------------------------------------------------


def test_a_sum_over_rows_beside_one_number_for_the_batch() -> None:
    named = {"logits": Z, "target": Y, "features": H}
    with pytest.raises(ValueError, match="reduction='sum' ce would be a sum over rows beside opl"):
        build_objective(["ce", "opl"], reduction="sum")(**named)
    build_objective(["opl"], reduction="sum")(**named)
    build_objective(["ce", "focal"], reduction="sum")(**named)
    # A penalty on parameters is no number of the batch: its weight holds whatever the batch.
    penalised = build_objective(["ce", "weight_distribution"], reduction="sum")
    penalised(**named, module=nn.Sequential(nn.Linear(D, 6), nn.Linear(6, C)))


# -- schedules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(1.0, -0.5, 10),
        Cosine(-1.0, 1.0),
        Piecewise([5], [1.0, -1.0]),
        Linear(0.0, math.inf),
        {"start": 1, "end": -1},
    ],
)
def test_a_schedule_that_will_be_no_weight_is_refused_at_once(schedule: Any) -> None:
    with pytest.raises(ValueError, match="finite and at least 0"):
        Term(Focal(), schedule)


# -- front doors agree -----------------------------------------------------------------------------


def test_softmax_stats_takes_the_targets_of_an_objective() -> None:
    for target in (Y.int(), Y.to(torch.uint8), Y.to(torch.int16), SOFT):
        stats = softmax_stats(Z, target=target)
        total = build_objective("ce")(Z, target).total
        assert stats.log_prob is not None
        torch.testing.assert_close(-stats.log_prob.mean(), total)
    for bad, error in ((Z.tolist(), TypeError), (torch.tensor(1.0), ValueError)):
        with pytest.raises(error, match="logits must"):
            softmax_stats(bad, target=Y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bool"):
        softmax_stats(Z, target=Y > 1)
