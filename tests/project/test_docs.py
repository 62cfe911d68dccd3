# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Programs that the site shows run as they stand; its pages are made for every key.

That its links lead somewhere is checked by ``mkdocs build --strict`` in ``.ci/run``.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_losses import build_objective
from lightning_losses.config.catalogue import GROUPS, keys
from lightning_losses.config.facts import facts

DOCS = Path(__file__).parents[2] / "docs"
FACTS = facts()


def hook(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DOCS / "_hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def catalogue() -> Any:
    return hook("catalogue")


@pytest.mark.parametrize("key", keys("loss"))
def test_the_example_of_every_loss_runs(key: str, catalogue: Any) -> None:
    torch.manual_seed(0)
    space: dict[str, Any] = {}
    exec(catalogue.example(key, FACTS[f"loss/{key}"]), space)
    assert space["record"].total.isfinite()
    assert list(space["record"].terms) == [key]


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_has_a_page(group: str, catalogue: Any) -> None:
    for key in keys(group):
        text = catalogue.page(group, key, FACTS[f"{group}/{key}"])
        assert text.startswith(f"# {key}\n\n")
        assert "## Defaults\n\n```yaml\n" in text


def test_a_page_says_what_its_loss_needs_and_what_was_found(catalogue: Any) -> None:
    text = catalogue.page("loss", "gce", FACTS["loss/gce"])
    assert "| `log_prob` | (N,) float | log p of the target, nats |" in text
    assert "[kernel](../../kernels.md)" in text
    assert re.search(
        r"\| label_noise \| gce \(1805\.07836\) ends above ce \|.*\*\*shown\*\* \|", text
    )
    assert "[arXiv 1708.02002](https://arxiv.org/abs/1708.02002)" in catalogue.page(
        "loss", "focal", FACTS["loss/focal"]
    )
    whole = catalogue.page("loss", "stablemax", FACTS["loss/stablemax"])
    assert "It needs whole rows of logits" in whole


def test_pictures_are_drawn_where_the_margin_says_it_all(catalogue: Any) -> None:
    curves = hook("curves")
    drawable = [key for key in keys("loss") if curves.drawable(key, FACTS[f"loss/{key}"])]
    assert {"ce", "focal", "gce", "bce"} <= set(drawable)
    assert not {"supcon", "hl_gauss", "kd", "dice_ce"} & set(drawable)
    drawn = curves.curves(["ce", "bce", "stablemax"])
    assert set(drawn) == {"ce", "bce"}  # stablemax sees more than the difference of two logits
    assert "<figure><svg" in catalogue.page("loss", "ce", FACTS["loss/ce"], drawn["ce"])
    margin = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    value, slope = curves.along(build_objective("ce", reduction="none"), margin, 0.0, False)
    torch.testing.assert_close(value, (-margin).exp().log1p())
    torch.testing.assert_close(slope, -torch.sigmoid(-margin))


def test_the_first_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    space: dict[str, Any] = {"__name__": "first_page"}
    exec("\n".join(blocks), space)
    assert float(space["trainer"].callback_metrics["train/loss/ce"]) < 2.5
    assert (tmp_path / "run" / "metrics.csv").exists()
