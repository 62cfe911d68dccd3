# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What people ask of libraries of losses is answered by a page two clicks from the front page.

Each was asked in a public tracker. A click is a link of a page, or the site's navigation.
"""

from __future__ import annotations

import importlib.util
import posixpath
import re
from pathlib import Path

import pytest
import yaml

from lightning_losses.config.catalogue import GROUPS, keys
from lightning_losses.config.facts import facts

ROOT = Path(__file__).parents[2]
GITHUB = "https://github.com/"
#: Question -> where it was asked, the page that answers, and what must stand there.
TASKS = {
    "class weights with label smoothing": (
        "pytorch/pytorch/issues/104776",
        "questions.md",
        "`sample_weight=weight[target]`",
    ),
    "two losses, second one warming up": (
        "cellarium-ai/cellarium-ml/issues/316",
        "questions.md",
        "{start:0,end:0.3,steps:1000}",
    ),
    "supcon with a queue": (
        "KevinMusgrave/pytorch-metric-learning/issues/138",
        "recipes.md",
        "examples/recipes/supcon_queue.py",
    ),
    "ECE every epoch without storing samples": (
        "pytorch/ignite/pull/3799",
        "catalogue/callbacks/calibration.md",
        "`calibration/<stage>/<measure>` at the end of every validation",
    ),
    "why is my entropy falling": (
        "verl-project/verl/issues/5953",
        "catalogue/callbacks/entropy.md",
        "Falling entropy is success",
    ),
    "out of memory at the logits of 128k tokens": (
        "huggingface/transformers/issues/30860",
        "questions.md",
        "`head=self.lm_head`",
    ),
    "uneven tokens under gradient accumulation": (
        "huggingface/transformers/issues/24725",
        "recipes.md",
        "examples/recipes/accumulation.py",
    ),
    "checkpoint does not load with weights_only": (
        "Lightning-AI/pytorch-lightning/issues/21757",
        "recipes.md",
        "examples/recipes/checkpoint.py",
    ),
    "NaN where every label is ignored": (
        "pytorch/pytorch/issues/70348",
        "questions.md",
        "Gives 0, connected to the graph",
    ),
    "GAN, two optimizers and losses in one step": (
        "Lightning-AI/pytorch-lightning/issues/17801",
        "recipes.md",
        "examples/recipes/two_optimizers.py",
    ),
    "one alpha a class in focal loss": (
        "qubvel-org/segmentation_models.pytorch/issues/808",
        "catalogue/loss/focal.md",
        "alpha: null # one weight a class",
    ),
    "torch.compile and self.log": (
        "Lightning-AI/pytorch-lightning/issues/17177",
        "recipes.md",
        "examples/recipes/compile.py",
    ),
    "negatives of all GPUs in a contrastive loss": (
        "KevinMusgrave/pytorch-metric-learning/issues/10",
        "questions.md",
        "compare the rows of a rank with those of all ranks",
    ),
    "pixels without a label in Dice": (
        "Project-MONAI/MONAI/issues/8734",
        "questions.md",
        "`loss.dice_ce.ignore_index=255`",
    ),
    "train loss missing at most steps in W&B": (
        "Lightning-AI/pytorch-lightning/issues/8559",
        "recipes.md",
        "examples/recipes/logging_cadence.py",
    ),
}


def pages() -> dict[str, str]:
    """Markdown of every page of the site, written by hand or made."""
    path = ROOT / "docs" / "_hooks" / "catalogue.py"
    spec = importlib.util.spec_from_file_location("catalogue", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    known = facts()
    out = {one.name: one.read_text() for one in (ROOT / "docs").glob("*.md")}
    out["catalogue/index.md"] = made.contents(known)
    for group in GROUPS:
        for key in keys(group):
            name = f"{group}/{key}"
            out[f"catalogue/{name}.md"] = made.page(group, key, known[name])
    return out


@pytest.fixture(scope="module")
def site() -> dict[str, str]:
    return pages()


def links(page: str, text: str, menu: set[str]) -> set[str]:
    """Pages that one click leads to."""
    here = posixpath.dirname(page)
    found = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", text)
    return menu | {posixpath.normpath(posixpath.join(here, one)) for one in found}


def test_each_is_answered_in_two_clicks(site: dict[str, str]) -> None:
    settings = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    menu = {page for one in yaml.safe_load(f"nav:{settings}")["nav"] for page in one.values()}
    reached = {"index.md"}
    for _ in range(2):
        reached |= {to for page in set(reached) for to in links(page, site[page], menu)}
    assert reached <= site.keys()  # no link leads nowhere
    for question, (asked, page, answer) in TASKS.items():
        where = f"{question} ({GITHUB}{asked})"
        assert page in reached, where
        assert answer in site[page], where
