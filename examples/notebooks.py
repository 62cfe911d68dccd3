# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the notebooks beside the examples: the same program, cut into cells, and what it printed.

    python examples/notebooks.py
    python examples/notebooks.py grpo

Only `main` is called in a cell of its own. The cells are run here and by the tests, without a
kernel, so that neither Jupyter nor IPython is needed to keep notebooks in step with their examples;
to open them, it is: `pip install notebook`.
"""

from __future__ import annotations

import ast
import codeop
import io
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
#: Example -> the words that its last cell gives to `main`: fewer steps than a program takes.
NOTEBOOKS = {
    "finetune_lm": ["--steps", "200"],
    "grpo": ["--steps", "300"],
    "segmentation": ["--steps", "100"],
}


def cells(name: str) -> list[tuple[str, str]]:
    """Kind and source of each cell of an example: what it is about, its parts, and the call."""
    source = (HERE / f"{name}.py").read_text()
    tree = ast.parse(source)
    lines = source.splitlines()
    docstring, *parts = tree.body
    starts = [
        first_line(one, lines) for one in parts if isinstance(one, (ast.ClassDef, ast.FunctionDef))
    ]
    # The last statement runs the program where it is a script.
    cuts = [docstring.end_lineno or 0, *starts, parts[-1].lineno - 1]
    about = [one for one in (ast.get_docstring(tree) or "").splitlines() if one[:7] != "python "]
    out = [("markdown", "\n".join([f"# {name}", "", *about]).rstrip())]
    for begin, end in pairwise(cuts):
        out.append(("code", "\n".join(lines[begin:end]).strip("\n")))
    return [*out, ("code", f"logged = main({json.dumps(NOTEBOOKS[name])})")]


def first_line(node: ast.ClassDef | ast.FunctionDef, lines: Sequence[str]) -> int:
    """Where a definition begins, with its decorators and the comment above it."""
    at = min(one.lineno for one in (node, *node.decorator_list)) - 1
    while lines[at - 1].startswith("#"):
        at -= 1
    return at


def execute(sources: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Run cells one after another; their names, and what each printed."""
    space: dict[str, Any] = {"__name__": "notebook"}
    compiler = codeop.Compile()  # which remembers imports from __future__, as a kernel does
    printed = []
    for number, source in enumerate(sources):
        with redirect_stdout(io.StringIO()) as out:
            exec(compiler(source, f"<cell {number}>", "exec"), space)
        printed.append(out.getvalue())
    return space, printed


def notebook(name: str, printed: Sequence[str]) -> dict[str, Any]:
    """The notebook in Jupyter's format 4.5."""
    out: list[dict[str, Any]] = []
    said = iter(printed)
    for number, (kind, source) in enumerate(cells(name)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"{name}-{number}", "metadata": {}}
        cell["source"] = source.splitlines(keepends=True)
        if kind == "code":
            text = next(said, "").splitlines(keepends=True)
            stream = {"name": "stdout", "output_type": "stream", "text": text}
            cell |= {"execution_count": number, "outputs": [stream] if text else []}
        out.append(cell)
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return {"cells": out, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def main(names: Sequence[str]) -> None:
    sys.path.insert(0, str(HERE))
    for name in names or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # `--out` is a relative path, and is printed as such
            _, printed = execute([source for kind, source in cells(name) if kind == "code"])
            os.chdir(HERE)
        path = HERE / f"{name}.ipynb"
        path.write_text(json.dumps(notebook(name, printed), indent=1, ensure_ascii=False) + "\n")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
