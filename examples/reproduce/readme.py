# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Put the printed results between the markers of README.md: no number there is typed.

python examples/reproduce/readme.py
"""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- (results: (\w+)|summary) -->\n).*?(<!-- end -->)", re.DOTALL)
VERDICTS = ("shown", "not told apart", "the opposite")


def filled(text: str, results: Path = HERE / "results") -> str:
    """The text with what is between each marker and its `<!-- end -->` renewed."""
    studies = [found[3] for found in BLOCK.finditer(text) if found[3]]
    printed = {study: (results / f"{study}.md").read_text(encoding="utf-8") for study in studies}

    def block(found: re.Match[str]) -> str:
        study = found[3]
        body = f"![{study}](results/{study}.png)\n\n{printed[study]}" if study else summary(printed)
        return f"{found[1]}\n{body}\n{found[4]}"

    return BLOCK.sub(block, text)


def summary(printed: dict[str, str]) -> str:
    """How many claims of each study came out how."""
    rows = [f"| claims | {' | '.join(VERDICTS)} |", "| --- | ---: | ---: | ---: |"]
    for study, text in printed.items():
        counts = [str(text.count(f"| **{words}** |")) for words in VERDICTS]
        rows.append(f"| [{study}](results/{study}.md) | {' | '.join(counts)} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    readme = HERE / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
