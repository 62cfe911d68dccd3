# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Programs that the site shows run as they stand; its pages are made for every key.

That its links lead somewhere is checked by ``mkdocs build --strict`` in ``.ci/run``.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import wandb

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


#: Need a longer training than an example has before they say anything.
LATE = {"drift", "entropy_law", "scaling_forecast"}  # drift speaks in validate and test
#: What is logged under another name than the key.
FIRST = {"post_hoc_calibration": "post_hoc", "wandb": "train"}


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_every_monitor_measures(
    catalogue: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = ", ".join(f"enable_{what}=False" for what in ("checkpointing", "progress_bar"))
    quiet += ", enable_model_summary=False"
    for key in keys("callbacks"):
        page = catalogue.page("callbacks", key, FACTS[f"callbacks/{key}"])
        assert "## What it does" in page
        (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        space: dict[str, Any] = {"__name__": f"example_of_{key}"}
        torch.manual_seed(0)
        if key == "wandb":  # which reads once a process whether it may go online
            monkeypatch.setenv("WANDB_MODE", "offline")
            wandb.teardown()
        exec(source.replace("max_epochs=2", f"max_epochs=2, {quiet}"), space)
        logged = {name.split("/")[0] for name in space["trainer"].callback_metrics}
        assert FIRST.get(key, key) in logged or key in LATE, (key, logged)


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
    watched = catalogue.page("callbacks", "calibration", FACTS["callbacks/calibration"])
    assert "calibration/&lt;stage&gt;/ece" in watched  # a browser takes <stage> for a tag
    whole = catalogue.page("loss", "stablemax", FACTS["loss/stablemax"])
    assert "It needs whole rows of logits" in whole
    assert "volcengine/verl" in catalogue.page("loss", "gspo", FACTS["loss/gspo"])


def text(made: str) -> str:
    """What a formula's MathML says, without its tags, in the order of the elements."""
    return re.sub(r"<[^>]*>", "", made)


def test_formulas_are_typeset(catalogue: Any) -> None:
    formula = hook("formula")
    made = formula.mathml("-alpha_y (1 - p_y)^gamma log p_y")
    assert text(made) == "−αy(1−py)γlogpy"
    assert "<msub><mi>α</mi><mrow><mi>y</mi></mrow></msub>" in made
    # A fraction takes the product before it and one factor after it, or all of a sum.
    half = formula.mathml("2 a / (b + c) d")
    assert "<mfrac><mrow><mn>2</mn><mi>a</mi></mrow><mrow><mi>b</mi>" in half
    assert half.endswith("</mfrac><mi>d</mi></math>")
    assert formula.mathml("s / sum_j s_j").count("<mfrac>") == 1
    assert text(formula.mathml("s / sum_j s_j")) == "s∑jsj"
    assert "/" in text(formula.mathml("1/2 x"))  # unspaced, it stays a line
    assert text(formula.mathml("KL(p || q)")) == "KL(p∥q)"
    assert formula.mathml("E|x - y|").count('fence="true"') == 2
    assert formula.mathml("P(y | x)").count("∣") == 1
    assert "<msup><mi>β</mi><mrow><msub><mi>n</mi>" in formula.mathml("1 - beta^n_c")
    assert '<mi mathvariant="normal">clip_high</mi>' in formula.mathml("1 + clip_high")
    for wrong in ("a (b", "a + )", "^2", "a_", "|a", "3 ° C"):
        with pytest.raises(ValueError, match=r"\w"):
            formula.mathml(wrong)


def test_pages_open_with_the_formula_of_their_loss(catalogue: Any) -> None:
    opens = [
        key
        for key in keys("loss")
        if '<div class="formula"><math' in catalogue.page("loss", key, FACTS[f"loss/{key}"])
    ]
    usual = (
        "bce binary_focal brier circle class_balanced clip clip_cov confidence_penalty contrastive "
        "coral dapo decoupled_softmax dice dice_ce dkd dpo entropy_bonus entropy_min focal "
        "focal_tversky gce grpo hl_gauss kd kl_cov label_smoothing logit_adjustment "
        "logsumexp_penalty mart multi_similarity nt_xent ppo_clip pseudo_huber siglip supcon "
        "symmetric_ce trades triplet_margin tversky"
    )
    assert {"ce", *usual.split()} <= set(opens)
    for key in opens:  # nothing that MathML has no word for reached the page
        page = catalogue.page("loss", key, FACTS[f"loss/{key}"])
        formula = re.search(r"<math.*?</math>", page)
        assert formula is not None
        ElementTree.fromstring(formula[0])


def test_programs_are_included_where_a_page_says_so() -> None:
    """Once a formatter took the sign of inclusion for Python and no page had its program."""
    for page in DOCS.glob("*.md"):
        for line in page.read_text().splitlines():
            assert not re.match(r"--8 ", line), page
            if line.startswith("--8<--"):
                named = re.fullmatch(r'--8<-- "([^":]+)(:\d+:)?"', line)
                assert named is not None, line
                assert (DOCS.parent / named[1]).exists(), line


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


def test_monitors_show_healthy_and_sick_trainings(catalogue: Any) -> None:
    watching = hook("watching")
    drawn = json.loads(watching.CURVES.read_text())["curves"]
    assert set(drawn) <= set(keys("callbacks"))
    for key, pictures in drawn.items():
        figures = watching.curves(key)
        assert figures
        assert "".join(figures) in catalogue.page(
            "callbacks", key, FACTS[f"callbacks/{key}"]
        ).replace("</figure>\n\n<figure>", "</figure><figure>")
        for figure, picture in zip(figures, pictures, strict=True):
            svg = ElementTree.fromstring(figure)[0]
            assert len(svg.findall("circle")) == sum("spoke" in one for one in picture["lines"])
            assert {one["sick"] for one in picture["lines"]} == {False, True}


def test_a_line_in_a_frame() -> None:
    drawing = hook("drawing")
    points = [(0.0, 0.01), (10.0, 1.0), (20.0, 100.0)]
    line = drawing.Line("a < b", points, mark=10.0)
    made = drawing.svg([line], [drawing.Tick(10, "10")], "step", log=True)
    (left, first), (middle, half), (right, last) = (
        map(float, one.split()) for one in re.findall(r"[ML](\S+ \S+?)(?=[L\"])", made)[-3:]
    )
    assert middle - left == pytest.approx(right - middle)  # decades are even on a log scale
    assert first - half == pytest.approx(half - last, abs=0.11)
    assert f'cx="{middle:.1f}" cy="{half:.1f}"' in made
    assert "a &lt; b" in made
    assert drawing.powers(-2.0, 2.0) == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert drawing.ticks(0, 600) == [0, 200, 400, 600]


def test_the_first_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    space: dict[str, Any] = {"__name__": "first_page"}
    exec("\n".join(blocks), space)
    assert float(space["trainer"].callback_metrics["train/loss/ce"]) < 2.5
    assert (tmp_path / "run" / "metrics.csv").exists()
