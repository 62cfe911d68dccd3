# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What `examples/train.py` composes for each data set, and presets, which add terms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lightning_losses import build_objective

CONF = Path(__file__).parents[2] / "examples" / "conf"
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
