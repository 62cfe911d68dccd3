# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Who imports whom, what is packaged, and what every file has."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lightning_losses"
SHIPPED = sorted([*SOURCE.rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
FOLDERS = [
    f for f in ("src", "kernels", "conf", "tests", "examples", "benchmarks") if (ROOT / f).is_dir()
]
EVERY = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

#: Package folder or file -> what it may import of ours, and of others beside the standard library.
#: The most specific entry holds. A losses file may use what losses share (vectors).
TORCH = {"torch"}
LIBRARY = {"softmax", "distributed", "losses", "targets", "heads", "weighting"}
RULES: dict[str, tuple[set[str], set[str]]] = {
    "kernels": ({"kernels"}, {"torch", "triton"}),
    "named_tensors": (set(), set()),
    "schedules": (set(), set()),
    "distributed": (set(), TORCH),
    "checks": (set(), TORCH),
    "softmax": ({"kernels", "softmax_arguments"}, TORCH),
    "softmax_arguments": (set(), TORCH),
    "record": ({"softmax"}, TORCH),
    "routing": ({"named_tensors", "softmax"}, TORCH),
    "batch": ({"named_tensors", "softmax"}, TORCH),
    "term": ({"routing", "schedules", "softmax"}, TORCH),
    "evaluation": ({"batch", "distributed", "record", "softmax", "term"}, TORCH),
    "objective": (
        {"batch", "checks", "evaluation", "named_tensors", "record", "refusals", "routing"}
        | {"softmax", "term"},
        TORCH,
    ),
    "refusals": ({"named_tensors", "routing", "term"}, TORCH),
    "kernel_check": ({"losses", "objective", "softmax"}, TORCH),
    "losses": (LIBRARY, TORCH),
    "targets": (LIBRARY, TORCH),
    "weighting": (LIBRARY, TORCH),
    "penalties": (LIBRARY | {"penalties"}, TORCH),
    "heads": (LIBRARY, TORCH),
    "providers": (LIBRARY | {"providers"}, TORCH),
    "reparam": (set(), TORCH),
    "calibrators": ({"calibrators"}, TORCH),
    "metrics": (LIBRARY | {"metrics"}, TORCH | {"torchmetrics"}),
    "mixin": ({"objective", "record", "schedules"}, TORCH | {"lightning"}),
    "callbacks": (
        {"batch", "calibrators", "callbacks", "distributed", "metrics", "mixin", "named_tensors"}
        | {"objective", "record", "softmax"},
        TORCH | {"lightning", "lightning_utilities", "numpy", "torchmetrics"},  # all Lightning's
    ),
    "searchpath": (set(), {"hydra", "omegaconf"}),
    "catalogue": (set(), {"hydra"}),
    "build": (
        {"catalogue", "objective", "schedules", "searchpath", "softmax", "term"},
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
    for part in ("objective", "evaluation", "term", "routing", "batch", "mixin", "build"):
        found = imports(SOURCE / f"{part}.py")
        assert not any(m.startswith("lightning_losses.losses") for m in found), part
    for path in (SOURCE / "callbacks").rglob("*.py"):
        assert not any(m.startswith("lightning_losses.losses") for m in imports(path)), path


@pytest.mark.parametrize("path", SHIPPED, ids=relative)
def test_wandb_pictures_and_triton_are_imported_lazily(path: Path) -> None:
    """Importing the package must not need them: no account, no GPU, no wheels."""
    heavy = {"wandb", "altair", "vl_convert", "pandas", "matplotlib"}
    found = {m.split(".")[0] for m in imports(path, lazy=False)}
    assert not found & heavy, found & heavy


def test_packages_of_pyproject_are_the_tree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    inside = {p.parent.relative_to(SOURCE).as_posix() for p in SOURCE.rglob("__init__.py")}
    names = {
        "lightning_losses" if p == "." else f"lightning_losses.{p.replace('/', '.')}"
        for p in inside
    }
    assert set(settings["packages"]) == names | {
        "lightning_losses.kernels",
        "lightning_losses.conf",
    }
    assert settings["packages"] == sorted(settings["packages"])
    for folder in SOURCE.rglob("*.py"):
        assert (folder.parent / "__init__.py").exists(), folder
    for package, folder in settings["package-dir"].items():
        assert (ROOT / folder / "__init__.py").exists(), package


@pytest.mark.parametrize("path", EVERY, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_header_docstring_and_length(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[:2] == [
        "# SPDX-FileCopyrightText: 2026 The lightning-losses authors",
        "# SPDX-License-Identifier: Apache-2.0",
    ]
    assert ast.get_docstring(ast.parse(path.read_text())), "say in the first line what this is for"
    if "tests" not in path.parts:
        assert len(lines) < 300, "one idea a file"
