# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The studies of examples/reproduce run, and their words follow from their numbers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lightning_losses import build_objective

FOLDER = Path(__file__).parents[2] / "examples" / "reproduce"
STUDIES = {
    "label_noise": ("ce", "aldr_kl", "ensloss"),
    "imbalance": ("ce", "logit_adjustment", "ce, then anyloss"),
    "regression_as_classification": ("mse", "two_hot", "hl_gauss"),
    "harmonic": ("ce, linear", "harmonic, mlp"),
    "adversarial": ("ce", "trades, radius 0.1"),
    "spikes": ("mlp, none", "mlp, controller"),
    "attention_collapse": ("plain, 0.003", "sigma_reparam, 0.1"),
    "onset": ("mlp, descent", "all nets, random"),
    "neural_collapse": ("ce, few errors", "brier, end"),
    "grokking": ("ce, float64", "perp_grad"),
    "calibration": ("ce", "ce + correctness_aware"),
    "entropy_collapse": ("grpo", "entropy_target"),
    "policy_sorting": ("grpo", "aepo", "grpo, law"),
    "coverage": ("ce", "dco, N = 64"),
    "test_time": ("source", "tent + ostta_selection"),
    "sample_value": ("aum", "loss at the end"),
    "distillation": ("the teacher", "ce + kd, hidden", "ce + dual_head_kd"),
    "group_dro": ("ce", "group_dro, groups drawn equally"),
    "balance": ("ink times 1", "UPGrad", "a net for each"),
    "retrieval": ("pixels", "proto_triplet"),
    "self_supervised": ("pixels", "barlow_twins"),
    "ranking": ("bce", "mann_whitney, whole set"),
    "forecast": ("the law", "the law's interval", "the largest run"),
    "preferences": ("reference", "sparse_po, learned"),
}
# These train many nets under Lightning: four steps each of a kind or two are enough to run through.
FEWER_NETS = {"spikes": ("mlp",), "onset": ("mlp", "mlp + LayerNorm")}
FEWER_METHODS = {
    "policy_sorting": ("grpo", "unclipped", "aepo"),
    "balance": ("ink times 1", "UPGrad"),
}
FEWER_ROWS, ROWS = ("spikes", "onset", "attention_collapse"), 256


@pytest.fixture
def load(monkeypatch):
    """Import a script of the folder as it imports its neighbours, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)  # `options` sets one
    for name in set(sys.modules) - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.parametrize("study", STUDIES)
def test_study_runs(study, load, tmp_path, capsys, monkeypatch):
    module = load(study)
    if study in FEWER_NETS:
        monkeypatch.setattr(module, "KINDS", FEWER_NETS[study])
    if study in FEWER_METHODS:
        monkeypatch.setattr(module, "METHODS", FEWER_METHODS[study])
    if study == "balance":
        monkeypatch.setattr(module, "TRAIN", 256)
    if study == "forecast":
        monkeypatch.setattr(module, "ENOUGH", 16)
        monkeypatch.setattr(module, "RESAMPLES", 2)
        monkeypatch.setattr(module, "AMOUNTS", (1, 2, 4, 8, 16))
        monkeypatch.setattr(module, "MORE", 64)
    if study == "test_time":
        monkeypatch.setattr(module, "ROUNDS", 1)
    if study in FEWER_ROWS:
        few = load("study").digits()
        few = few._replace(x=few.x[:ROWS], y=few.y[:ROWS])
        monkeypatch.setattr(module, "digits", lambda: few)
    module.main(["--seeds", "1", "--epochs", "1", "--out", str(tmp_path)])
    text = (tmp_path / f"{study}.md").read_text(encoding="utf-8")
    assert text.strip() == capsys.readouterr().out.strip()
    assert "nan" not in text
    # The command in the file is the one that was run, so that a reader can repeat it.
    assert f"python examples/reproduce/{study}.py --seeds 1 --epochs 1`" in text
    assert all(f"| {method} |" in text for method in STUDIES[study])
    assert "**one seed says nothing**" in text
    png = (tmp_path / f"{study}.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png.endswith(b"IEND\xaeB`\x82")
    assert 10_000 < len(png) < 150_000


# t(0.975, 3) / sqrt(4) = 1.591: differences 1 -+ 1 have sd 1.155, so +-1.837 crosses zero.
@pytest.mark.parametrize(
    ("differences", "words", "interval"),
    [
        ([0.0, 2.0, 0.0, 2.0], "not told apart", "+1.000 ± 1.837"),
        ([1.9, 2.1, 1.9, 2.1], "shown", "+2.000 ± 0.184"),
        ([-1.9, -2.1, -1.9, -2.1], "the opposite", "-2.000 ± 0.184"),
        ([0.0, 0.0], "not told apart", "+0.000 ± 0.000"),
        ([5.0], "one seed says nothing", "+5.000"),
    ],
)
def test_verdict(differences, words, interval, load):
    assert load("report").verdict(differences) == (words, interval)


def test_claim_of_less_reads_the_difference_as_it_is(load):
    study, report = load("study"), load("report")
    scores = {"a": {"error": [1.0, 1.1, 1.0]}, "b": {"error": [2.0, 2.1, 2.0]}}
    less = study.Claim("a errs less", "a", "b", "error", -1)
    more = study.Claim("b errs less", "b", "a", "error", -1)
    first, second = report.claims([less, more], scores).splitlines()[2:]
    assert first.endswith("| error: 1.033 against 2.033 | -1.000 ± 0.000 | **shown** |")
    assert second.endswith("| +1.000 ± 0.000 | **the opposite** |")


def test_claim_against_a_number_another_column_and_with_a_margin(load):
    study, report = load("study"), load("report")
    scores = {"a": {"s": [0.9, 0.91, 0.92], "t": [0.93, 0.94, 0.95]}}
    found = report.claims(
        [
            study.Claim("above", "a", 0.8, "s"),
            study.Claim("near", "a", "a", "s", 1, 0.04, "t"),
            study.Claim("not as near as that", "a", "a", "s", 1, 0.02, "t"),
        ],
        scores,
    ).splitlines()[2:]
    assert found[0].endswith("| s: 0.910 against 0.800 | +0.110 ± 0.025 | **shown** |")
    assert found[1].endswith("| s: 0.910 against 0.940 | -0.030 ± 0.000 | **shown** |")
    assert found[2].endswith("| -0.030 ± 0.000 | **the opposite** |")


def test_table(load):
    study = load("study")
    # Sample standard deviation: of 1 and 3 it is 1.414, not 1.
    assert study.table({"m": {"s": [1.0, 3.0], "t": [123.4]}}).splitlines() == [
        "|  | s | t |",
        "| --- | ---: | ---: |",
        "| m | 2.000 ± 1.414 | 123.4 |",
    ]


def test_same_seed_same_training(load):
    study = load("study")
    data = study.digits()
    assert (len(data.x), len(data.x_test)) == (1257, 540)

    def weights(seed: int) -> torch.Tensor:
        net = study.mlp(64, 16, 10, seed=0)
        study.fit(net, build_objective("ce"), data.x, data.y, epochs=1, seed=seed)
        return net[0].weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_wrong_labels_are_wrong(load):
    study = load("label_noise")
    y = torch.arange(10).repeat(50)
    noisy = study.wrong_labels(y, 0.4, seed=3)
    assert int((noisy != y).sum()) == 200
    assert set(noisy.tolist()) == set(range(10))


def test_long_tail_is_100_to_1(load):
    study = load("imbalance")
    counts = study.long_tail(seed=2)
    assert sorted(counts, reverse=True) == [100, 60, 36, 22, 13, 8, 5, 3, 2, 1]
    y = torch.arange(10).repeat(120)
    rows = study.thinned(y, counts, seed=2)
    assert torch.bincount(y[rows]).tolist() == counts
    assert len(rows.unique()) == len(rows)


def test_readme_holds_what_was_printed(load):
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for study in STUDIES:
        assert f"<!-- results: {study} -->" in readme
    assert load("readme").filled(readme) == readme, "run python examples/reproduce/readme.py"
