# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Who imports whom, what is packaged, and what every file has."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from lightning_losses import callbacks

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lightning_losses"
SHIPPED = sorted([*SOURCE.rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
FOLDERS = [
    f for f in ("src", "kernels", "conf", "tests", "examples", "benchmarks") if (ROOT / f).is_dir()
]
EVERY = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

#: Package folder or file -> what it may import of ours, and of others beside the standard library.
#: The most specific entry holds. A losses file may use what losses share (vectors).
TORCH = {"torch"}
LIBRARY = {"contract", "softmax", "distributed", "losses", "targets", "heads", "weighting"}
LIBRARY = LIBRARY | {"wide_buffers"}
RULES: dict[str, tuple[set[str], set[str]]] = {
    "kernels": ({"kernels"}, {"torch", "triton"}),
    "named_tensors": (set(), set()),
    "contract": (set(), set()),
    "schedules": (set(), set()),
    "distributed": (set(), TORCH),
    "softmax": ({"kernels", "softmax"}, TORCH),
    "record": ({"contract", "softmax"}, TORCH),
    "term": ({"contract", "schedules", "softmax"}, TORCH),
    "evaluation": (
        {"contract", "distributed", "evaluation", "named_tensors", "record", "softmax", "term"},
        TORCH,
    ),
    "objective": (
        {"contract", "distributed", "evaluation", "named_tensors", "record", "softmax", "term"},
        TORCH,
    ),
    "kernel_check": ({"losses", "objective", "softmax"}, TORCH),
    "losses": (LIBRARY | {"schedules"}, TORCH),
    "targets": (LIBRARY, TORCH),
    "weighting": (LIBRARY | {"schedules"}, TORCH),
    "penalties": (LIBRARY | {"penalties"}, TORCH),
    "heads": (LIBRARY, TORCH),
    "providers": (LIBRARY | {"providers"}, TORCH),
    "samplers": ({"distributed"}, TORCH),
    "sampling": ({"losses", "softmax"}, TORCH),
    "spectral_reparam": (set(), TORCH),
    "wide_buffers": (set(), TORCH),
    "calibrators": ({"calibrators", "wide_buffers"}, TORCH),
    "metrics": (LIBRARY | {"metrics"}, TORCH | {"torchmetrics"}),
    "mixin": (
        {"distributed", "metrics", "objective", "record", "schedules"},
        TORCH | {"lightning"},
    ),
    "callbacks": (
        {"calibrators", "callbacks", "contract", "distributed", "evaluation", "metrics", "mixin"}
        | {"named_tensors", "objective", "record", "softmax"},
        # All Lightning's, but for torchjd, which one controller asks for where it is used.
        TORCH | {"lightning", "lightning_utilities", "numpy", "torchjd", "torchmetrics"},
    ),
    "describe": ({"config", "named_tensors"}, set()),
    "doctor": ({"softmax"}, TORCH | {"hydra"}),
    "config": (
        {"config", "objective", "schedules", "softmax", "term"},
        TORCH | {"hydra", "omegaconf"},
    ),
}  # fmt: skip


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Modules that a file imports, relative ones resolved; without those inside functions."""
    package = ("lightning_losses", *relative(path).split("/")[:-1])
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            if module in ("lightning_losses", "lightning_losses.kernels"):
                found |= {f"{module}.{name.name}" for name in node.names}
            else:
                found.add(module)
    return found


def relative(path: Path) -> str:
    """``losses/classification/focal`` or ``kernels/chunked``."""
    if path.is_relative_to(SOURCE):
        return path.relative_to(SOURCE).with_suffix("").as_posix()
    return path.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("path", SHIPPED, ids=relative)
def test_who_may_import_whom(path: Path) -> None:
    part = relative(path).split("/")[0]
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top == "lightning_losses":
            ours = rest.split(".")[0]
            # Only one file knows that there are kernels; nothing builds on the dashboard.
            assert ours != "kernels" or part in ("softmax", "kernels"), module
            assert ours != "dashboard" or part in ("dashboard", "__main__"), module
            if part in RULES:
                assert ours in RULES[part][0], f"{relative(path)} imports {module}"
        elif part in RULES and top not in sys.stdlib_module_names:
            assert top in RULES[part][1], f"{relative(path)} imports {module}"


def test_every_part_has_a_rule() -> None:
    free = {"__init__", "__main__", "dashboard"}
    assert {relative(path).split("/")[0] for path in SHIPPED} - free <= RULES.keys()


def test_the_core_knows_no_concrete_loss() -> None:
    core = [SOURCE / f"{part}.py" for part in ("objective", "term", "mixin")]
    folders = [SOURCE / part for part in ("evaluation", "config", "callbacks")]
    for path in core + [path for folder in folders for path in folder.rglob("*.py")]:
        assert not any(m.startswith("lightning_losses.losses") for m in imports(path)), path


@pytest.mark.parametrize("path", SHIPPED, ids=relative)
def test_wandb_pictures_and_triton_are_imported_lazily(path: Path) -> None:
    """Importing the package must not need them: no account, no GPU, no wheels."""
    heavy = {"wandb", "altair", "vl_convert", "pandas", "matplotlib", "torchjd"}
    found = {m.split(".")[0] for m in imports(path, lazy=False)}
    assert not found & heavy, found & heavy


def test_every_folder_is_a_package() -> None:
    """setuptools finds packages by their ``__init__``; kernels and conf are links in ``src``."""
    for path in SHIPPED:
        assert (path.parent / "__init__.py").exists(), path
    for name in ("kernels", "conf"):
        assert (SOURCE / name).resolve() == ROOT / name


@pytest.mark.parametrize("folder", ["monitors", "controllers"])
def test_a_callback_has_a_file_of_its_own(folder: str) -> None:
    for path in sorted((SOURCE / "callbacks" / folder).glob("*.py")):
        if path.stem == "__init__":
            continue
        classes = {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}
        public = classes & set(callbacks.__all__)
        assert len(public) == 1, f"{path.name} holds {sorted(public)}"


@pytest.mark.parametrize("path", EVERY, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_header_docstring_and_length(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[:2] == [
        "# SPDX-FileCopyrightText: 2026 The lightning-losses authors",
        "# SPDX-License-Identifier: Apache-2.0",
    ]
    assert ast.get_docstring(ast.parse(path.read_text())), "say in the first line what this is for"
    if "tests" not in path.parts:
        # A benchmark may have a list of trainings in it.
        most = 600 if "benchmarks" in path.parts else 500
        assert len(lines) <= most, "more than one idea?"
