# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What is shipped: kernels and conf stand at the top of the tree and inside the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lightning_losses"
BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
USE = "import lightning_losses.kernels, lightning_losses.conf; print(lightning_losses.__file__)"

pytestmark = pytest.mark.slow


def build(what: str, tree: Path, folder: Path) -> Path:
    """An sdist, wheel or editable wheel of the tree, made as pip does but with nothing fetched."""
    folder.mkdir()
    command = [sys.executable, "-c", BUILD, f"build_{what}", str(folder)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = folder.iterdir()
    return built


def unzipped(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, links kept, so that building leaves nothing behind in the checkout."""
    copy = tmp_path_factory.mktemp("clone") / "tree"
    copy.mkdir()
    forget = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "kernels", "conf"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=forget)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def used(path: Path, outside: Path) -> Path:
    """Where the package is found with this folder on the path, outside the tree."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    command = [sys.executable, "-c", USE]
    out = subprocess.run(command, cwd=outside, env=environment, capture_output=True, text=True,
                         check=False)  # fmt: skip
    assert out.returncode == 0, out.stderr[-2000:]
    return Path(out.stdout.strip())


def test_a_wheel_from_the_sdist_has_every_module_and_yaml(tree: Path, tmp_path: Path) -> None:
    sdist = build("sdist", tree, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        links = [member.name for member in archive.getmembers() if member.issym()]
        assert not links  # files twice over would be no fault, links that lead nowhere would
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("lightning_losses-*")
    wheel = unzipped(build("wheel", source, tmp_path / "wheel"), tmp_path / "site")
    shipped = {
        path.relative_to(wheel / "lightning_losses").as_posix()
        for path in (wheel / "lightning_losses").rglob("*")
        if path.is_file()
    }
    files = [Path(base, name) for base, _, names in os.walk(PACKAGE) for name in names]
    wanted = {p.relative_to(PACKAGE).as_posix() for p in files if p.suffix != ".pyc"}
    assert {"py.typed", "config/facts.json", "dashboard/report/assets/page.js"} <= wanted
    for name, ending in (("kernels", "py"), ("conf", "py"), ("conf", "yaml")):
        folder = ROOT / name
        wanted |= {p.relative_to(ROOT).as_posix() for p in folder.rglob(f"*.{ending}")}
    assets = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("assets/*")}
    assert {p.rsplit(".", 1)[-1] for p in assets} == {"css", "html", "js"}  # of the report's page
    wanted |= assets
    assert len(wanted) > 400
    assert wanted <= shipped, sorted(wanted - shipped)
    assert (wheel / "hydra_plugins" / "lightning_losses.py").is_file()
    assert used(wheel, tmp_path) == wheel / "lightning_losses" / "__init__.py"


def test_an_editable_install_is_a_path_that_type_checkers_follow(
    tree: Path, tmp_path: Path
) -> None:
    site = unzipped(build("editable", tree, tmp_path / "wheel"), tmp_path / "site")
    (path,) = site.glob("*.pth")  # no import hook, which mypy and editors cannot run
    assert path.read_text().split() == [str(tree / "src")]
    assert used(tree / "src", tmp_path) == tree / "src" / "lightning_losses" / "__init__.py"
