# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Packages that a bare GPU machine lacks, as a folder of wheels that needs no installing.

    make gpu-wheels        fills .gpu-wheels/ (ignored by git), where there is a network

`use` puts `src/` and whatever of the folder cannot be imported yet on the path. Wheels are unpacked
to the machine's temporary folder first: Hydra reads its own config files, Triton the source of its
kernels, and neither looks into an archive. Only pure Python goes in, without dependencies, which
are torch and Triton: those are the machine's own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".gpu-wheels"
MOST_MB = 40
#: Needed, in the versions of this environment; by the name they are imported by.
NEEDED = {"hydra-core": "hydra", "omegaconf": "omegaconf", "antlr4-python3-runtime": "antlr4"}
#: To compare with. QuACK is missing: the CUTLASS DSL under it is 92 MB.
PEERS = {"liger-kernel": "liger_kernel", "cut-cross-entropy": "cut_cross_entropy"}


def use() -> None:
    """Make this checkout and the wheels importable, here and in processes started from here."""
    paths = [str(ROOT / "src"), str(ROOT / "benchmarks")]
    imported = {name.replace("-", "_"): module for name, module in (NEEDED | PEERS).items()}
    for wheel in sorted(FOLDER.glob("*.whl")):
        module = imported.get(wheel.name.split("-")[0].lower())
        if module is None or importlib.util.find_spec(module) is None:
            paths.append(str(unpacked(wheel)))
    sys.path[:0] = [path for path in paths if path not in sys.path]
    old = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([old] if old else [])])


def unpacked(wheel: Path) -> Path:
    """The wheel's folder, made once a machine."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"gpu-wheels-{digest}"
    if not folder.exists():
        fresh = Path(tempfile.mkdtemp(prefix="gpu-wheels-"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
    return folder


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    for wheel in FOLDER.glob("*.whl"):
        wheel.unlink()
    pinned = [f"{name}=={importlib.metadata.version(name)}" for name in NEEDED]
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(FOLDER)]
    subprocess.run([*pip, *pinned, *PEERS], check=True)
    total = 0.0
    for wheel in sorted(FOLDER.glob("*.whl")):
        size = wheel.stat().st_size / 2**20
        total += size
        pure = wheel.name.endswith("-none-any.whl")
        print(f"{size:6.2f} MB  {wheel.name}{'' if pure else '  NOT PURE PYTHON: removed'}")
        if not pure:
            wheel.unlink()
    print(f"{total:6.2f} MB in {FOLDER.name}/, of {MOST_MB} allowed")
    return int(total > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
