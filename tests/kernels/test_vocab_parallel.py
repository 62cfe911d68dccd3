# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A head in slices on two ranks gives the statistics and gradients of one rank with all of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import two_ranks_head
from hypothesis import given as hypothesis
from hypothesis import settings
from hypothesis import strategies as st
from ranks import start
from torch import Tensor
from two_ranks_head import CASES, CENTRES, SLICES, V, centres, evaluate, given, total

from lightning_losses import softmax_stats
from lightning_losses.kernels import partial
from lightning_losses.kernels.class_range import ClassRange
from lightning_losses.kernels.eager import reference
from lightning_losses.kernels.triton import tiles
from lightning_losses.softmax import STATISTICS, make_problem

pytestmark = pytest.mark.xdist_group("vocab_parallel")  # one start of the ranks

WANT = frozenset(STATISTICS)
LEAN = WANT - {"weighted_log_prob"}
MEANS = {"mean_logit", "mean_log_prob", "weighted_log_prob"}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two gloo processes found: starting them is what costs."""
    folder = tmp_path_factory.mktemp("ranks")
    start(two_ranks_head.work, (str(folder),), 2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("key", CENTRES)
def test_centres_split_by_classes(ranks: list[dict[str, Any]], key: str) -> None:
    """A loss that owns class centres: a partial softmax on each rank is the whole one."""
    expected, found = centres(key), [rank[key] for rank in ranks]
    assert [len(f["d weight"]) for f in found] == [6, 5]
    for name, right in expected.items():
        parts = [f[name] for f in found]
        for part in [torch.cat(parts)] if name == "d weight" else parts:
            torch.testing.assert_close(part, right, rtol=1e-9, atol=1e-12)
    assert expected["d features"].abs().max() > 1e-3


def test_centres_that_cannot_be_split(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        nearest, one = rank["refused"]
        assert "nearest of all centres" in nearest
        assert "1 classes split over 2 ranks" in one


def compare(found: list[dict[str, Any]], expected: dict[str, Any], tolerance: float) -> None:
    """Every rank's value is the whole one; slices of the head's gradient are beside each other."""
    for name, right in expected.items():
        parts = [f[name] for f in found]
        if name == "d logits":
            parts = [torch.cat(parts, 1)]
        elif name in ("d head_weight", "d head_bias"):
            parts = [torch.cat(parts)]
        for part in parts:
            torch.testing.assert_close(
                part.to(right.dtype),
                right,
                rtol=tolerance,
                atol=tolerance,
                equal_nan=True,
                msg=lambda m, n=name: f"{n}: {m}",
            )
    for name in STATISTICS:  # the same bits, or the ranks' models would drift apart
        if name in expected:
            assert torch.equal(*(f[name].nan_to_num(nan=torch.inf) for f in found)), name


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(ranks: list[dict[str, Any]], name: str) -> None:
    p = CASES[name]()
    kernel = p.pop("kernel", None)
    if kernel == "triton":  # float32 under the interpreter, against float64
        p = {
            n: t.detach().double().requires_grad_(t.requires_grad)
            if isinstance(t, Tensor) and t.is_floating_point()
            else t
            for n, t in p.items()
        }
    for rank in ranks:
        assert not isinstance(rank[name], Exception), repr(rank[name])
    p["kernel"] = "reference"
    compare([r[name] for r in ranks], evaluate(p), 1e-5 if kernel else 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["objective", "objective with options"])
def test_an_objective_on_two_ranks_equals_one(ranks: list[dict[str, Any]], name: str) -> None:
    """Reduction over rows is data-parallel's affair and does not count the ranks of the group."""
    p = given() if name == "objective" else two_ranks_head.with_options()
    compare([r[name] for r in ranks], total(p), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "fsdp forward", "fsdp unshard", "fsdp head", "fsdp named"])
def test_the_head_whole_under_ddp_and_fsdp2(ranks: list[dict[str, Any]], how: str) -> None:
    model = two_ranks_head.Model()
    model(*two_ranks_head.batch()).backward()
    for rank in ranks:
        assert rank[how].keys() == dict(model.named_parameters()).keys()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(rank[how][name], parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_what_ranks_refuse(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "hold no class" in rank["empty"]
        assert "mesh_dim_names" in rank["fsdp sharded"]
    assert [rank["held"] for rank in ranks] == [(0, 4, V), (4, V, V)]
    assert [rank["own group"] for rank in ranks] == [(0, V, V)] * 2


@pytest.mark.slow
def test_one_gather_forward_and_one_sum_backward(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["collectives"] == ["all_gather", "all_reduce"]


# -- one process ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@hypothesis(
    cuts=st.lists(st.integers(1, 12), min_size=0, max_size=5, unique=True),
    order=st.randoms(use_true_random=False),
    offset=st.sampled_from([0.0, 1e6]),
    coarse=st.booleans(),
    masked=st.integers(0, 2**13 - 1),
    seed=st.integers(0, 99),
)
def test_merging_is_the_same_in_any_order_and_in_any_groups(
    cuts: list[int], order: Any, offset: float, coarse: bool, masked: int, seed: int
) -> None:
    """Against all 13 classes at once: shuffled parts, merged as one and as a random tree.

    Coarse logits tie across parts; masked classes may be all of a part, or all of a row.
    """
    g = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(4, 13, generator=g, dtype=torch.float64) + offset
    if coarse:
        z = z.round()
    for j in range(13):
        if masked >> j & 1:
            z[:2, j] = -1e30
    target = torch.randint(13, (4,), generator=g)
    weight = torch.rand(13, generator=g, dtype=torch.float64)
    edges = [0, *sorted(cuts), 13]
    parts = []
    for a, b in itertools.pairwise(edges):
        here = (target >= a) & (target < b)
        local = torch.where(here, target - a, 0)
        part = partial.partial_statistics(z[:, a:b], local, weight[a:b], WANT)
        assert part.best is not None
        assert part.at_target is not None
        at_target = torch.where(here, part.at_target, 0)
        parts.append(part._replace(best=part.best + a, at_target=at_target))
    order.shuffle(parts)
    flat = partial.merge(partial.stack(parts))
    tree = list(parts)
    while len(tree) > 1:
        one, two = (tree.pop(order.randrange(len(tree))) for _ in range(2))
        tree.append(partial.merge(partial.stack([one, two])))
    right = partial.statistics_of(partial.partial_statistics(z, target, weight, WANT), WANT, 13)
    for found in (flat, tree[0]):
        assert torch.equal(found.top, z.amax(1))
        assert found.best is not None
        assert torch.equal(found.best, z.argmax(1))
        for name, value in partial.statistics_of(found, WANT, 13).items():
            torch.testing.assert_close(value, right[name], rtol=1e-12, atol=1e-12, equal_nan=True)


# Spans of 16 classes in slices of 32 and 35, D = 40 in blocks of 32: every loop of the kernel runs
# several times, and a rank's part is itself merged.
def test_parts_made_by_triton_merge_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from lightning_losses.kernels.triton import lean

    tile = tiles.Tile(rows=16, classes=16, depth=32, warps=4, stages=2)
    monkeypatch.setattr(tiles, "forward_tile", lambda *_: tile)
    monkeypatch.setattr(tiles, "span_classes", lambda *_: 16)
    g = torch.Generator().manual_seed(0)
    hidden, head, bias = (torch.randn(s, generator=g) for s in ((9, 40), (67, 40), (67,)))
    bias[[3, 40]] = -torch.inf
    target = torch.randint(67, (9,), generator=g)
    valid = torch.arange(9) % 4 > 0
    options: dict[str, Any] = {"temperature": torch.linspace(0.5, 2, 9), "logit_scale": 0.3}
    parts = []
    for a, b in ((32, 67), (0, 32)):
        here = (target >= a) & (target < b)
        local = torch.where(here, target - a, 0)
        p = make_problem(
            hidden=hidden, head_weight=head[a:b], head_bias=bias[a:b], target=local, valid=valid,
            **options,
        )  # fmt: skip
        part = lean.partials(p, LEAN)
        assert part.best is not None
        assert part.at_target is not None
        at_target = torch.where(here, part.at_target, 0)
        parts.append(part._replace(best=part.best + a, at_target=at_target))
    found = partial.statistics_of(partial.merge(partial.stack(parts)), LEAN, 67)
    whole = make_problem(
        hidden=hidden.double(), head_weight=head.double(), head_bias=bias.double(), target=target,
        valid=valid, **(options | {"temperature": options["temperature"].double()}),
    )  # fmt: skip
    right = reference.statistics(whole, tuple(LEAN))
    assert found["prediction"].tolist() == right["prediction"].tolist()
    finite = target.clone().apply_(lambda y: y not in (3, 40)).bool() | ~valid
    for name in LEAN - MEANS - {"prediction"}:
        a, b = found[name].double(), right[name]
        rows = finite if name == "log_prob" else torch.ones_like(finite)
        torch.testing.assert_close(a[rows], b[rows], rtol=5e-6, atol=5e-6)
    for name in MEANS & LEAN:
        torch.testing.assert_close(found[name].double(), right[name], rtol=1e-5, atol=0)


def test_a_row_of_nan_stays_one_and_points_nowhere_wild() -> None:
    z = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])
    parts = [
        partial.partial_statistics(z[:, :1], None, None, LEAN - {"log_prob"}) for _ in range(2)
    ]
    found = partial.merge(partial.stack(parts))
    assert found.best is not None
    assert found.best.tolist() == [0, 0]
    assert found.top.isnan().tolist() == [False, True]


def test_class_indices_travel_exactly() -> None:
    """As bits: 2^24 + 1 is no float32."""
    index = torch.tensor([2**24 + 1, 0, 2**31 - 1])
    assert partial._bits(index, torch.float32).view(torch.int32).tolist() == index.tolist()


@pytest.mark.parametrize("name", [*STATISTICS[:-1]])
def test_gradcheck_of_a_range_that_is_everything(name: str) -> None:
    p = given()
    p["target"][1] = -100
    leaves = tuple(p[n] for n in ("hidden", "head_weight", "head_bias"))
    held = ClassRange(0, V, V)

    def f(*tensors: Tensor) -> Tensor:
        made = dict(zip(("hidden", "head_weight", "head_bias"), tensors, strict=True))
        stats = softmax_stats(
            **made,
            target=p["target"],
            softcap=2.0,
            class_range=held,
            want=[name],
            class_weight=torch.arange(V) / 4,
        )
        return getattr(stats, name)

    assert torch.autograd.gradcheck(f, leaves, fast_mode=True)


def test_one_process_is_all_ranks() -> None:
    assert ClassRange.across(5) == (0, 5, 5, None)
    with pytest.raises(ValueError, match="hold no class"):
        ClassRange.across(0)


HELD = ClassRange(4, V, V)


def one_slice(**other: Any) -> dict[str, Any]:
    p = given()
    own = {"head_weight": p["head_weight"][4:], "head_bias": None, "class_range": HELD}
    return {**p, **own, **other}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head_weight": torch.zeros(5, 5)}, r"has 7 classes .* head has 5: .*head_weight\[:7\]"),
        ({"class_range": ClassRange(4, 12, V)}, "start < stop <= num_classes"),
        ({"target": torch.zeros(7, 7)}, "goes with class indices"),
        ({"target": torch.tensor([0, 1, 2, 3, 4, 5, V])}, rf"\[0, {V}\).*found {V}"),
        ({"kernel": "reference"}, "kernel='auto'"),
    ],
)
def test_bad_input_says_what_to_write(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        softmax_stats(**one_slice(**arguments))


def test_what_is_not_supported_is_said() -> None:
    p = one_slice()
    value = softmax_stats(**p).entropy.sum()
    with pytest.raises(RuntimeError, match="whole head to one rank"):
        torch.autograd.grad(value, p["hidden"], create_graph=True)
    p = {n: v for n, v in one_slice().items() if n != "class_range"}

    def f(hidden: Tensor) -> Tensor:
        return softmax_stats(**(p | {"hidden": hidden, "class_range": HELD})).entropy

    with pytest.raises(Exception, match="class_range does not compile"):
        torch.compile(f, backend="eager", fullgraph=True)(p["hidden"])
    with pytest.raises(ValueError, match="hidden and head_weight"):
        two_ranks_head.objective()(
            logits=torch.zeros(2, 7), target=torch.zeros(2).long(), class_range=HELD
        )


def test_slices_are_what_the_test_says() -> None:
    """Both ranks have targets, and neither slice is the other's size."""
    held = [int(t < SLICES[0]) for t in given()["target"]]
    assert 0 < sum(held) < len(held)
    assert SLICES[0] != SLICES[1]
