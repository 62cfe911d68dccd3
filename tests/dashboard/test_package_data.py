# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A wheel holds the files that the report reads beside its modules: style, script, template."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from lightning_losses.dashboard.report import write

ROOT = Path(__file__).parents[2]


def test_the_wheel_holds_the_files_of_the_report(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    tree.mkdir()
    out.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("src", "kernels", "conf"):
        shutil.copytree(
            ROOT / name, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(out)], cwd=tree, check=True, capture_output=True
    )
    (wheel,) = out.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    folder = Path(write.__file__).parent
    needed = {path.name for path in (folder / "assets").iterdir()}
    assert {path.rsplit(".", 1)[-1] for path in needed} == {"css", "html", "js"}
    assert {f"lightning_losses/dashboard/report/assets/{name}" for name in needed} <= packed
