# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every recipe runs; each asserts by itself what it claims."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
#: Run by their own test below, with arguments.
WITH_ARGUMENTS = {"cli"}


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipes_{name}", RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted({p.stem for p in RECIPES.glob("*.py")} - WITH_ARGUMENTS))
def test_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe(name).main()
    assert capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's use of jsonargparse
def test_lightning_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["cli.py"])
    module = recipe("cli")
    quiet = ["--config", str(RECIPES / "cli.yaml"), "--trainer.max_epochs=1"]
    quiet += [f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
    written = module.main(["fit", *quiet])
    assert list(written.model.loss.terms) == ["ce", "z"]
    assert float(written.trainer.callback_metrics["train/loss"]) > 0
    assert "entropy/mean" in written.trainer.callback_metrics
    chosen = module.main(["fit", *quiet, "--model.loss=[ce,focal]"])
    assert list(chosen.model.loss.terms) == ["ce", "focal"]
    (first, second) = sorted(tmp_path.rglob("*.ckpt"))
    for path, terms in ((first, ["ce", "z"]), (second, ["ce", "focal"])):
        again = module.Classifier.load_from_checkpoint(path, weights_only=True)
        assert list(again.loss.terms) == terms
