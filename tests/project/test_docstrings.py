# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Examples in docstrings run as they stand, and public names have one.

An example may use ``torch`` and the public names of the package it is documented under, as after
``import torch`` and ``from lightning_losses.metrics import *``; what else it needs it imports.
"""

from __future__ import annotations

import ast
import doctest
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import lightning_losses

SOURCE = Path(lightning_losses.__file__).parent

PACKAGES = (
    "lightning_losses",
    "lightning_losses.calibrators",
    "lightning_losses.callbacks",
    "lightning_losses.heads",
    "lightning_losses.metrics",
    "lightning_losses.penalties",
    "lightning_losses.providers",
    "lightning_losses.samplers",
    "lightning_losses.sampling",
    "lightning_losses.schedules",
    "lightning_losses.targets",
    "lightning_losses.weighting",
)
# Not here: `losses`, whose pages have an example each that test_docs.py runs; `softmax`, whose
# names for users are those of the top level, the others being for our own modules; and `dashboard`,
# whose callback writes to Weights & Biases.


def public(module: ModuleType) -> dict[str, Any]:
    """Classes and functions by name: those of ``__all__``, else those that are defined there."""
    listed = getattr(module, "__all__", None)
    names = listed or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    found = {name: getattr(module, name) for name in names}
    return {k: v for k, v in found.items() if inspect.isclass(v) or inspect.isfunction(v)}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_example_that_runs(package: str) -> None:
    names = public(import_module(package))
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=False)
    runner = doctest.DocTestRunner(verbose=False)
    without: list[str] = []
    said: list[str] = []
    for name, value in names.items():
        space = {"torch": torch, "__name__": "__main__", **names}
        for case in finder.find(value, f"{package}.{name}", globs=space):
            torch.manual_seed(0)
            if not runner.run(case, out=said.append).attempted:
                without.append(name)
    assert not said, "".join(said)
    assert not without, "write Examples: with some lines of >>>, and the numbers that they print"


def test_there_is_no_example_elsewhere() -> None:
    """It would not be run; and under another heading a page would show it as a quotation."""
    known = {name for package in PACKAGES for name in public(import_module(package))}
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if ">>>" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                said, _, code = (ast.get_docstring(node) or "").partition("\nExamples:\n    >>>")
                assert ">>>" not in said, path
                assert not code or getattr(node, "name", "") in known, path


def test_an_example_that_says_something_else_is_found() -> None:
    def wrong() -> None:
        """One.

        Examples:
            >>> 1 + 1
            3
        """

    (case,) = doctest.DocTestFinder(recurse=False).find(wrong, "wrong", globs={})
    assert doctest.DocTestRunner(verbose=False).run(case, out=lambda _: None).failed == 1
