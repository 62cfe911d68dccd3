# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The examples of real work run for a few steps, log what they watch and write their report.

Those that have a notebook run as its cells.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
#: What must have been logged.
LOGGED = {
    "contrastive": ["train/loss/nt_xent", "representation_entropy/dse", "before", "after"],
    "grpo": ["train/loss/grpo", "train/reward", "entropy/mean", "entropy/token_covariance"],
    "segmentation": [
        "val/iou",
        "val/loss/dice_ce",
        "calibration/val/ece",
        "post_hoc/val/ece_after",
    ],
    "finetune_lm": ["val/loss/ce", "entropy/mean", "attention_entropy/mean", "right"],
}


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LOGGED)
def test_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "finetune_lm":
        pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    words = ["--steps", "2", "--out", str(tmp_path)]
    if name in (notebooks := example("notebooks")).NOTEBOOKS:
        *defining, _ = [source for kind, source in notebooks.cells(name) if kind == "code"]
        space, printed = notebooks.execute([*defining, f"logged = main({words})"])
        logged = space["logged"]
        assert "report: " in printed[-1]
    else:
        logged = example(name).main(words)
    assert set(LOGGED[name]) <= logged.keys()
    assert (tmp_path / "report.html").exists()


def test_notebooks_are_in_step_with_their_examples() -> None:
    """And small: `python examples/notebooks.py` writes them."""
    notebooks = example("notebooks")
    for name in notebooks.NOTEBOOKS:
        text = (EXAMPLES / f"{name}.ipynb").read_text()
        made = notebooks.notebook(name, [])["cells"]
        found = json.loads(text)["cells"]
        assert [one["source"] for one in found] == [one["source"] for one in made], name
        assert len(text) < 20_000
        compile("".join(found[-1]["source"]), name, "exec")


def test_packed_documents_lose_what_padded_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    finetune = example("finetune_lm")
    torch.manual_seed(0)
    model = finetune.Finetune().eval()
    documents = [b"1+2=3\n", b"45+67=112\n", b"9+90=99\n"]
    values = []
    for batch in (finetune.pad(documents), finetune.pack(documents)):
        with torch.no_grad():
            model.training_step(batch, 0)
        values.append(model.loss_record.total)
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)
