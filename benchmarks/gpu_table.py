# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The GPU table of docs/kernels.md, from what `gpu_hour.py` wrote to `benchmarks/results/`.

    python benchmarks/gpu_table.py            print it
    python benchmarks/gpu_table.py --write    put it between its marks in docs/kernels.md

Ratios are to the floor of the same shape and run: three matrix products, of the rows that count.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "kernels.md"
BEGIN, END = "<!-- benchmarks/gpu_table.py -->", "<!-- end -->"
#: In the order of the table; what was measured again lies last in the file.
VARIANTS = (
    "cross-entropy", "40 % ignored", "40 % ignored, max_valid", "five terms, monitors on",
    "all options", "forward only",
)  # fmt: skip
NOTHING = "Nothing yet: the kernels have not run on a GPU."


def render(folder: Path = ROOT / "benchmarks" / "results") -> str:
    """Markdown: a section a device, a table a shape."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu_hour_*.json"))]
    measured = [content for content in found if content["parts"].get("table")]
    if not measured:
        return NOTHING
    return "\n\n".join(section(content) for content in measured)


def section(content: dict[str, Any]) -> str:
    parts = content["parts"]
    about = parts.get("device", {}).get("versions", {})
    ceilings = parts.get("device", {})
    lines = [f"**{content['device']}**, torch {about.get('torch')}, triton {about.get('triton')}"]
    rate = ceilings.get("products", {}).get("mm_tflops")
    copied = ceilings.get("memory", {}).get("copy_tb_s")
    if rate is not None and copied is not None:
        lines[0] += f"; {rate:.0f} TFLOP/s in a large product, {copied:.1f} TB/s in a copy"
    rows = parts["table"]
    for key, floor in rows.items():
        if key.endswith(" floor") and "ms" in floor:
            lines += ["", *table(key.removesuffix(" floor"), floor, rows)]
    wrong = [f"{part}: {key}" for part, row in parts.items() for key in row if "failed" in row[key]]
    if wrong:
        lines += ["", f"Failed or not measured: {'; '.join(wrong)}."]
    return "\n".join(lines)


def table(shape: str, floor: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    """Lines of one shape; what failed is said under the table, what did not fit in it."""
    lines = [
        f"(N, D, V) = {shape}; floor {floor['ms']:.1f} ms, {floor['tflops']:.0f} TFLOP/s",
        "",
        "| | | ms | TFLOP/s | of the floor's rate | peak MB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    found = []
    for key, row in rows.items():
        if key.startswith(f"{shape}: "):
            variant, method = key.removeprefix(f"{shape}: ").split(": ", 1)
            found.append((VARIANTS.index(variant), not method.startswith("ours"), method, row))
    for place, _, method, row in sorted(found, key=lambda one: one[:3]):
        variant = VARIANTS[place]
        if "ms" in row:
            share = row["tflops"] / floor["tflops"]
            numbers = f"{row['ms']:.2f} | {row['tflops']:.0f} | {share:.2f} | {row['peak_mb']:.0f}"
            lines.append(f"| {variant} | {method} | {numbers} |")
        elif "does not fit" in row:
            lines.append(f"| {variant} | {method} | out of memory | | | |")
    return lines


def replaced(page: str, text: str) -> str:
    """The page with the text between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(replaced(PAGE.read_text(), render()))
    else:
        print(render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
