# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What `examples/train.py` composes for each data set, and presets, which add terms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lightning_losses import build_objective

CONF = Path(__file__).parents[2] / "examples" / "conf"
PRESETS = sorted(file.stem for file in (CONF.parents[1] / "conf" / "preset").glob("*.yaml"))
DATA = sorted(file.stem for file in (CONF / "data").glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_composes(data):
    cfg = composed(f"data={data}")
    build_objective(cfg.loss)
    assert cfg.datamodule._target_.startswith("data.")


def test_sorting_changes_what_others_set():
    """Its values stand after those of the groups that it overrides."""
    cfg = composed("data=sorting", "+weighting@loss.grpo.row_weighting=steer")
    assert list(cfg.loss) == ["grpo", "kl_estimator"]
    assert cfg.loss.kl_estimator.weight == 0.001
    assert cfg.loss.grpo.row_weighting._target_.endswith("Steer")
    assert "step_radius" not in cfg.callbacks
    assert cfg.callbacks.entropy.mode == "policy"


def test_the_sweep_of_weights_and_biases_composes():
    """What an agent would write; that it starts needs an account."""
    sweep = yaml.safe_load((CONF.parent / "recipes" / "wandb_sweep.yaml").read_text())
    of = sweep["parameters"]
    for loss in of["loss"]["values"]:
        smoothing, lr = of["loss.ce.label_smoothing"]["values"][-1], of["task.lr"]["min"]
        words = [f"loss={loss}", f"loss.ce.label_smoothing={smoothing}", f"task.lr={lr}"]
        cfg = composed("logger=wandb", *words)
        assert sweep["metric"]["name"].removeprefix("val/loss/") in build_objective(cfg.loss).terms
        assert (cfg.loss.ce.label_smoothing, cfg.task.lr) == (0.1, 1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_alone_and_beside_others(preset):
    alone = composed("loss=[]", f"+preset={preset}").loss
    beside = composed("loss=[opl]", f"+preset={preset}").loss
    assert set(beside) == {*alone, "opl"}
    assert set(build_objective(alone).terms) == set(alone)


def test_policy_plus_entropy_plus_kl():
    """PG - 0.001 H + 0.001 k3 with every part written out."""
    cfg = composed("loss=[]", "+preset=policy_plus_entropy_plus_kl")
    assert list(cfg.loss) == ["ppo_clip", "entropy_bonus", "kl_estimator"]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    old, reference, advantage = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    target = torch.randint(5, (6,), generator=generator)
    log_p = logits.log_softmax(1)
    taken = log_p[range(6), target]
    old, reference = taken + 0.3 * old, taken + 0.3 * reference
    ratio = (taken - old).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
    loss = torch.where(advantage < 0, torch.minimum(loss, -3 * advantage), loss)
    entropy = -(log_p.exp() * log_p).sum(1)
    x = reference - taken
    k3 = x.exp() - x - 1
    record = build_objective(cfg.loss)(
        logits=logits,
        target=target,
        old_log_prob=old,
        ref_log_prob=reference,
        advantage=advantage,
    )
    expected = (loss - 1e-3 * entropy + 1e-3 * k3).mean()
    torch.testing.assert_close(record.total, expected)
    changed = composed("loss=[]", "+preset=policy_plus_entropy_plus_kl", "loss.ppo_clip.weight=2")
    assert changed.loss.ppo_clip.weight == 2


def test_simgcd():
    """0.65 (self-distillation + 2 me-max + NT-Xent) + 0.35 (CE + SupCon), each by its own key."""
    cfg = composed("loss=[]", "+preset=simgcd")
    g = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 6, 5, dtype=torch.float64, generator=g)
    features = torch.randn(6, 2, 4, dtype=torch.float64, generator=g)
    target = torch.tensor([0, 0, 1, -1, -1, -1])
    tensors = {"logits": logits, "other_logits": other, "features": features, "target": target}
    record = build_objective(cfg.loss)(**tensors)
    p = (torch.cat([logits, other]) / 0.1).softmax(1).mean(0)
    assert record.terms["mean_entropy_max"] == pytest.approx(float((p * (5 * p).log()).sum()))
    z = torch.stack([logits, other])[:, :3] / 0.1
    ce = -z.log_softmax(2).gather(2, target[:3].expand(2, 3)[..., None]).mean()
    assert record.terms["labelled_ce"] == pytest.approx(float(ce))
    x = torch.nn.functional.normalize(features.transpose(0, 1).reshape(12, 4), dim=1)
    s = (x @ x.t()).fill_diagonal_(-torch.inf)
    nt_xent = -s.log_softmax(1)[torch.arange(12), (torch.arange(12) + 6) % 12].mean()
    assert record.terms["nt_xent"] == pytest.approx(float(nt_xent))
    # Unlabelled rows add nothing to the contrast of labels, and half of the rows are labelled.
    labelled = build_objective("supcon")(features=features[:3], target=target[:3]).total
    assert record.terms["supcon"] == pytest.approx(float(labelled) / 2)
    weights = {"self_distill": 0.65, "mean_entropy_max": 1.3, "nt_xent": 0.65}
    weights |= {"labelled_ce": 0.35, "supcon": 0.7}
    total = sum(weight * float(record.terms[name]) for name, weight in weights.items())
    assert float(record.total) == pytest.approx(total)


def test_legogcd_is_simgcd_and_two_terms():
    """2 times the local entropy, whose mean is over both views, and the KL with the weight 0.65."""
    cfg = composed("loss=[]", "+preset=legogcd", "loss.local_entropy.num_classes=5")
    plain = composed("loss=[]", "+preset=simgcd")
    g = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 6, 5, dtype=torch.float64, generator=g)
    target = torch.tensor([0, 0, 1, -1, -1, -1])
    tensors = {"logits": logits, "other_logits": other, "target": target}
    tensors["features"] = torch.randn(6, 2, 4, dtype=torch.float64, generator=g)
    base = build_objective(plain.loss)(**tensors).total
    cfg.loss.local_entropy.num_labelled = 3
    record = build_objective(cfg.loss).double()(**tensors, labelled=target >= 0)
    z = torch.stack([logits, other])[:, 3:]  # those without labels
    confidence, best = (z / 0.1).softmax(-1).max(-1)
    p = (z / 0.05).softmax(-1)  # in the beginning the debiasing is of a uniform share
    own = torch.where((confidence >= 0.7) & (best < 3), -(p * p.log()).sum(-1), 0)
    assert own.sum() > 0
    log_p, log_q = (logits / 0.1).log_softmax(1), (other / 0.1).log_softmax(1)
    kl = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    torch.testing.assert_close(record.total, base + 2 * own.sum() / 12 + 0.65 * kl)


def test_happy():
    """Self-distillation, evenness of both views' mean, NT-Xent, distance to old features."""
    cfg = composed("loss=[]", "+preset=happy", "loss.soft_entropy.num_old=2")
    g = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 6, 5, dtype=torch.float64, generator=g)
    features = torch.randn(6, 2, 4, dtype=torch.float64, generator=g)
    now, before = torch.nn.functional.normalize(
        torch.randn(2, 6, 4, dtype=torch.float64, generator=g), dim=-1
    )
    record = build_objective(cfg.loss)(
        logits=logits, other_logits=other, features=features, estimate=now, reference=before
    )
    mean = (torch.cat([logits, other]) / 0.1).softmax(1).mean(0)

    def unevenness(mass):
        share = mass / mass.sum()
        return (share * (share * len(share)).log()).sum()

    sides = torch.stack([mean[:2].sum(), mean[2:].sum()])
    even = 2 * unevenness(sides) + unevenness(mean[:2]) + unevenness(mean[2:])
    assert float(record.terms["soft_entropy"]) == pytest.approx(float(even))
    distance = (now - before).square().sum(1).mean()
    assert float(record.terms["feature_distill"]) == pytest.approx(float(distance))
    assert float(record.total) == pytest.approx(float(sum(record.terms.values())))
