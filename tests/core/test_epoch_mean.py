# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""``val/loss`` is that of one batch that holds the whole epoch, however its rows were split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from factory import LOSSES, build, inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, Objective, Term, build_objective
from lightning_losses.losses import CrossEntropy, EntropyBonus, OrthogonalProjection
from lightning_losses.metrics.epoch_mean import EpochMean
from lightning_losses.penalties import WeightDistribution

pytestmark = pytest.mark.filterwarnings("ignore")

IGNORED = -100

#: Not a sum over rows: pairs, ratios, ranks or groups of a whole batch, or rows weighed by those
#: beside them. Their epochs are averages of batches, weighted by the rows that count.
OF_A_BATCH = [
    "adaptive_margin_softmax", "aggregate_responses", "anyloss", "avuc", "barlow_twins",
    "circle", "clip", "compositional_nll", "concept_bottleneck", "contrastive",
    "correctness_aware", "cs_divergence", "cs_qmi", "dca", "dco", "dice", "dice_ohem", "dist",
    "distance_covariance", "dpo", "ensloss", "entropy_guided_attention", "flat",
    "focal_tversky", "gibbs_weighted", "group_dro", "grpo", "gspo", "hapo",
    "hyperbolic_contrastive", "icnn", "jaccard", "kde_kl", "kernel_balancing", "kl_cov",
    "kl_dro", "llp_proportion", "loss_reweighting", "mann_whitney", "margin_control",
    "marginal_entropy", "mcc", "mdca", "mean_entropy_max", "metric_mixup", "mmce",
    "multi_similarity", "multiclass_mcc", "nt_xent", "opl", "pacs", "profit_aware_bce",
    "sfda_entropy_kl_prior", "siglip", "skeleton_recall", "soft_avuc", "soft_binned_ece",
    "soft_cldice", "soft_dice_cldice", "soft_entropy", "soft_label_binned_ece", "sparse_po",
    "supcon", "tri_bce", "triplet_margin", "unlearning", "unpg", "weighted_info_nce",
]  # fmt: skip
ROWS = 9


def epoch(objective: Objective, named: dict[str, Any], cuts: list[int]) -> tuple[float, float]:
    """The mean over batches that end at the cuts, and the value of one batch with all."""
    begins, ends = [0, *cuts], [*cuts, ROWS]
    with torch.no_grad():
        whole = objective(**named)
        mean = EpochMean(list(whole.terms), torch.device("cpu"))
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            part = {
                name: value[begin:end]
                if isinstance(value, Tensor) and value.ndim and len(value) == ROWS
                else value
                for name, value in named.items()
            }
            record = objective(**part)
            mean.update(record.numerators, record.divisors, record.weights, number)
    return float(mean.compute()), float(whole.total)


# Rows 4 and 7, 8 do not count, where a target says so: the last batch may have none that does.
@pytest.mark.parametrize("key", [key for key in LOSSES if key not in OF_A_BATCH])
@pytest.mark.parametrize("cuts", [[4, 5, 7], [1, 2, 3, 8]], ids=str)
def test_every_key_is_a_sum_over_sums(key: str, cuts: list[int]) -> None:
    objective = build(key).eval()
    named = inputs(objective, rows=ROWS, seed=5)
    target = named.get("target")
    if isinstance(target, Tensor) and not target.is_floating_point():
        target[4] = target[7:] = IGNORED
    mean, whole = epoch(objective, named, cuts)
    assert mean == pytest.approx(whole, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, ROWS), max_size=6).map(sorted),
    st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
    st.lists(st.floats(0, 4), min_size=ROWS, max_size=ROWS),
    st.booleans(),
)
def test_any_split_weights_and_rows_that_do_not_count(
    cuts: list[int], counts: list[bool], weights: list[float], with_weights: bool
) -> None:
    objective = Objective(
        {
            "weighted": Term(CrossEntropy(class_weight=[1.0, 0.2, 3.0]), 0.4),
            "entropy": Term(EntropyBonus(), 0.1),
            "ce": CrossEntropy(),
        }
    )
    g = torch.Generator().manual_seed(3)
    named: dict[str, Any] = {
        "logits": torch.randn(ROWS, 3, generator=g, dtype=torch.float64),
        "target": torch.randint(3, (ROWS,), generator=g).where(torch.tensor(counts), IGNORED),
    }
    if with_weights:
        named["sample_weight"] = torch.tensor(weights, dtype=torch.float64)
    mean, whole = epoch(objective, named, cuts)
    assert mean == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_sums_normalizers_and_penalties() -> None:
    g = torch.Generator().manual_seed(4)
    logits = torch.randn(ROWS, 3, generator=g, dtype=torch.float64)
    target = torch.randint(3, (ROWS,), generator=g)
    summed = Objective({"ce": CrossEntropy()}, reduction="sum")
    mean, whole = epoch(summed, {"logits": logits, "target": target}, [2, 3])
    assert mean == pytest.approx(whole)
    rows = Objective({"ce": CrossEntropy()}, reduction="none")
    with torch.no_grad():
        record = rows(logits, target)
    assert float(record.means["ce"]) == pytest.approx(float(record.total.mean()))
    # What is divided by the rows of a whole accumulation is told as the mean over its own rows.
    by_hand = float(nn.functional.cross_entropy(logits, target))
    record = Objective({"ce": CrossEntropy()})(logits, target, normalizer=100)
    assert float(record.means["ce"]) == pytest.approx(by_hand)
    assert float(record.total) == pytest.approx(by_hand * ROWS / 100)
    # A penalty on parameters is the same in every batch, those without a row included.
    both = Objective({"ce": CrossEntropy(), "penalty": WeightDistribution()})
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    mean, whole = epoch(both, {"logits": logits, "target": target, "module": net}, [0, 4])
    assert mean == pytest.approx(whole)


def test_of_several_updates_of_a_batch_the_last_counts() -> None:
    mean = EpochMean(["a"], torch.device("cpu"))
    one = torch.ones(())
    for batch, value in ((1, 5.0), (1, 2.0), (2, 7.0), (2, 4.0)):
        mean.update({"a": one * value}, {"a": one}, {"a": one}, batch)
    assert float(mean.compute()) == 3
    mean.reset()
    mean.update({"a": one * 9}, {"a": one}, {"a": one}, 2)
    assert float(mean.compute()) == 9
    mean.bfloat16()
    assert mean.sums.dtype == torch.float64


# ------------------------------------------------------------------------- in a trainer
class Model(LossMixin, L.LightningModule):
    """Rows of features, as logits; two terms of which one is no sum over rows."""

    def __init__(self, loss: Any = "ce") -> None:
        super().__init__()
        self.loss = build_objective(loss) if isinstance(loss, str) else loss
        self.scale = nn.Parameter(torch.ones(()))

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=x * self.scale, target=y)

    def validation_step(self, batch: Any, _: int, dataloader_idx: int = 0) -> None:
        x, y = batch
        self.compute_loss(logits=x * self.scale, target=y)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def rows(n: int = 11, seed: int = 2) -> TensorDataset:
    """All but three rows of the first eight are ignored."""
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, 3, generator=g), torch.randint(3, (n,), generator=g)
    y[torch.tensor([0, 1, 3, 4, 6])] = IGNORED
    return TensorDataset(x, y)


def trainer(**options: Any) -> L.Trainer:
    quiet = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False,
    }  # fmt: skip
    return L.Trainer(**quiet | options)


def by_hand(data: TensorDataset) -> float:
    x, y = data.tensors
    return float(nn.functional.cross_entropy(x, y))


@pytest.mark.parametrize("batch", [11, 4, 3, 1])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    data = rows()
    (found,) = trainer().validate(Model(), DataLoader(data, batch), verbose=False)
    assert found["val/loss"] == pytest.approx(by_hand(data), rel=1e-6)
    assert found["val/loss/ce"] == found["val/loss"]
    (found,) = trainer().test(Model(), DataLoader(data, batch), verbose=False)
    assert found["test/loss"] == pytest.approx(by_hand(data), rel=1e-6)


def test_every_epoch_begins_anew_and_every_dataloader_has_its_own() -> None:
    data, other = rows(), rows(13, seed=8)
    loaders = [DataLoader(data, 2), DataLoader(other, 3)]
    run = trainer(max_epochs=3, num_sanity_val_steps=2, val_check_interval=2)
    module = Model()
    run.fit(module, DataLoader(data, 2), loaders)
    for _ in range(2):
        run.validate(module, loaders, verbose=False)
        assert float(run.callback_metrics["val/loss/dataloader_idx_0"]) == pytest.approx(
            by_hand(data), rel=1e-6
        )
        assert float(run.callback_metrics["val/loss/dataloader_idx_1"]) == pytest.approx(
            by_hand(other), rel=1e-6
        )
    assert set(module.state_dict()) == {"scale"}


def test_nothing_that_counts_is_zero() -> None:
    x = torch.randn(4, 3)
    data = TensorDataset(x, torch.full((4,), IGNORED))
    (found,) = trainer().validate(Model(), DataLoader(data, 2), verbose=False)
    assert found["val/loss"] == 0


def test_weights_of_the_terms_hold_for_their_means() -> None:
    def objective() -> Objective:
        return Objective({"ce": Term(CrossEntropy(), 0.5), "bonus": Term(EntropyBonus(), 2.0)})

    data = rows()
    (found,) = trainer().validate(Model(objective()), DataLoader(data, 3), verbose=False)
    assert found["val/loss/ce"] == pytest.approx(by_hand(data), rel=1e-6)
    assert found["val/loss"] == pytest.approx(
        0.5 * found["val/loss/ce"] + 2 * found["val/loss/bonus"], rel=1e-6
    )


def validate_on_ranks(rank: int) -> dict[str, float]:
    """Ranks hold 8 and 3 rows (and on three a rank without a row that counts)."""
    import os

    world = int(os.environ["WORLD_SIZE"])
    data = rows()
    cut = [slice(0, 8), slice(8, 11), slice(0, 2)][rank]
    own = TensorDataset(*(t[cut] for t in data.tensors))
    run = trainer(
        strategy=DDPStrategy(process_group_backend="gloo"), devices=world,
        plugins=[LightningEnvironment()], use_distributed_sampler=False,
    )  # fmt: skip
    return run.validate(Model(), DataLoader(own, 3), verbose=False)[0]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_with_unequal_rows_are_one(ranks: int, tmp_path: Path) -> None:
    for found in on_ranks(validate_on_ranks, tmp_path, ranks):
        assert found["val/loss"] == pytest.approx(by_hand(rows()), rel=1e-6)


def test_pairs_are_averaged_by_rows() -> None:
    """No sum over rows; what an epoch then says is the average that the docs promise."""
    objective = Objective({"opl": OrthogonalProjection()})
    x, y = torch.randn(8, 4), torch.tensor([0, 1, 0, 1, 2, 2, 0, 1])
    mean = EpochMean(["opl"], torch.device("cpu"))
    values = []
    with torch.no_grad():
        for number, part in enumerate((slice(0, 6), slice(6, 8))):
            record = objective(features=x[part], target=y[part])
            values.append(float(record.total))
            mean.update(record.numerators, record.divisors, record.weights, number)
    assert float(mean.compute()) == pytest.approx((6 * values[0] + 2 * values[1]) / 8)
