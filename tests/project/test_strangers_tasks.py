# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What people ask of libraries of losses is answered by a page two clicks from the front page.

The questions are of the kind that fills public trackers of torch, Lightning, torchmetrics,
pytorch-metric-learning and TRL. A click is a link of a page, or the site's navigation.
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
#: Question -> the page that answers, and what must stand there.
TASKS = {
    "class weights with label smoothing": ("questions.md", "loss.ce.label_smoothing=0.1"),
    "two losses, second one warming up": ("questions.md", "{start:0,end:0.3,steps:1000}"),
    "supcon with a queue": ("recipes.md", "examples/recipes/supcon_queue.py"),
    "ECE every epoch without storing samples": (
        "catalogue/callbacks/calibration.md",
        "`calibration/<stage>/<measure>` at the end of every validation",
    ),
    "why is my entropy falling": ("catalogue/callbacks/entropy.md", "Falling entropy is success"),
    "out of memory at the logits of 128k tokens": ("questions.md", "`head=self.lm_head`"),
    "uneven tokens under gradient accumulation": ("recipes.md", "examples/recipes/accumulation.py"),
    "checkpoint does not load with weights_only": ("recipes.md", "examples/recipes/checkpoint.py"),
    "same numbers as F.cross_entropy with ignore_index": ("migrate.md", "ignore_index"),
    "GAN, two optimizers and losses in one step": (
        "recipes.md",
        "examples/recipes/two_optimizers.py",
    ),
    "what does the focusing parameter of focal loss do": ("catalogue/loss/focal.md", "gamma"),
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
    for question, (page, answer) in TASKS.items():
        assert page in reached, question
        assert answer in site[page], question
