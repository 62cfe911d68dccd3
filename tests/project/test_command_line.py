# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The command line describes without building, and what it was told is still true."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

import pytest

import lightning_losses
from lightning_losses import __main__ as command_line
from lightning_losses import doctor
from lightning_losses.config import facts

HEAVY = ("torch", "lightning", "hydra", "omegaconf", "wandb", "numpy", "triton")


def loaded(code: str) -> list[str]:
    """Heavy packages that a fresh interpreter has imported after this code, which prints little."""
    after = f"{code}\nimport sys\nprint('loaded', *sorted({set(HEAVY)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", after], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("command", ["list", "names", "show focal", "show focl", "--version"])
def test_what_describes_imports_nothing_heavy(command: str) -> None:
    """Which is why it answers at once: torch and Lightning alone take seconds to import."""
    assert loaded(f"from lightning_losses.__main__ import main\nmain({command.split()})") == []


def test_importing_the_package_imports_nothing_heavy_until_a_name_is_asked_for() -> None:
    assert loaded("import lightning_losses") == []
    assert "torch" in loaded("from lightning_losses import softmax_stats")


def test_hydra_finds_the_configs_without_an_import_of_ours() -> None:
    code = """
from hydra import compose, initialize_config_module
with initialize_config_module("hydra.conf", version_base="1.3"):
    assert compose(overrides=["+loss=[ce,focal]"]).loss.focal.gamma == 2
"""
    assert "torch" not in loaded(code)


def test_public_names_are_what_they_say_in_whatever_order_they_are_imported() -> None:
    homes = lightning_losses._MODULES
    assert set(lightning_losses.__all__) == set(homes) <= set(dir(lightning_losses))
    for name, home in homes.items():
        module = import_module(f"lightning_losses.{home}")
        # A module of the same name would take its place as soon as anything imports it.
        assert not isinstance(getattr(lightning_losses, name), ModuleType)
        assert getattr(lightning_losses, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="has no attribute 'focal'"):
        lightning_losses.focal  # type: ignore[attr-defined]  # noqa: B018


def test_the_facts_are_what_building_tells() -> None:
    written = facts.facts()
    built = facts.gather()
    assert written == built, "run `python -m lightning_losses.config.facts`"
    text = facts.HERE.joinpath("facts.json").read_text(encoding="utf-8")
    assert text == facts.as_text(built), "run `python -m lightning_losses.config.facts`"


def test_a_key_that_is_not_written_down_yet_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    written = facts.facts()
    known = facts.keys
    monkeypatch.setattr(
        facts, "keys", lambda group: [*known(group), "new"] if group == "head" else known(group)
    )
    monkeypatch.setattr(
        facts, "gather", lambda names: {name: facts.Facts("new.One") for name in names}
    )
    assert facts.facts() == written | {"head/new": facts.Facts("new.One")}


def test_docstrings_are_those_of_the_classes() -> None:
    for made in {one.made for one in facts.facts().values() if one.made}:
        module, _, name = made.rpartition(".")
        if module.startswith("lightning_losses."):
            cls = getattr(import_module(module), name)
            assert facts.docstring(made) == inspect.getdoc(cls)


def test_list_has_every_key_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["list"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert sorted(rows) == sorted(name.split("/")[1] for name in facts.facts())
    assert "loss (segmentation)" in out


def test_show_says_what_a_key_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["show", "kl_dro"]) == 0
    out = capsys.readouterr().out
    for line in ("row weighting: KLDRO", "scope: rows", "kernel: any;", "log_prob (N,) float"):
        assert line in out
    assert command_line.main(["show", "stablemax"]) == 0
    assert "kernel: none; it needs whole rows of logits" in capsys.readouterr().out
    assert command_line.main(["show", "focl"]) == 2
    said = capsys.readouterr().err
    assert said == "lightning-losses: there is no 'focl'. Did you mean focal?\n"


def test_version_and_nothing_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{version('lightning-losses')}\n"
    with pytest.raises(SystemExit):
        command_line.main([])
    assert "say what: list, show" in capsys.readouterr().err


def test_the_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/c++" if name == "c++" else None)
    assert command_line.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for line in ("torch ", "device: CPU", "kernel: auto", "No problems found."):
        assert line in out
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "wandb" else "1")
    assert command_line.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "! wandb is missing: pip install wandb" in out
    assert "! TRITON_INTERPRET=1" in out
    assert "2 problems found." in out
