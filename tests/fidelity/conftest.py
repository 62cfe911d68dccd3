# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`pytest tests/fidelity --golden FILE`: golden cases as tests, and a report a file at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from textwrap import wrap
from typing import Any

import pytest
from adapters import ADAPTERS
from golden_harness.cases import Case, read

COPY = Path(__file__).parents[1] / "golden"
NO_BREAK = "\u00a0"  # keeps a key and its count on one line
COLLECTED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        action="append",
        metavar="FILE",
        help="golden file to run; may be repeated (default: every file of tests/golden)",
    )


def golden_cases(config: pytest.Config) -> list[Case]:
    """The cases that this run is about."""
    # The default serves a run of the whole suite, which loads this file too late for its option.
    given = config.getoption("--golden", default=None)
    files = (
        [config.invocation_params.dir / f for f in given] if given else sorted(COPY.glob("*.json"))
    )
    for file in files:
        if not file.is_file():
            raise pytest.UsageError(f"--golden {file}: there is no such file.")
    try:
        return read(files)
    except ValueError as error:
        raise pytest.UsageError(f"--golden: {error}") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames or "variant" not in metafunc.fixturenames:
        return
    metafunc.config.stash[COLLECTED] = True
    rows = []
    for case in golden_cases(metafunc.config):
        known = ADAPTERS.get(case.key)
        for variant in (known.variants if known else ()) or (None,):
            name = case.id if variant is None else f"{case.id}[{variant}]"
            rows.append(pytest.param(case, variant, id=name))
    metafunc.parametrize(("case", "variant"), rows)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keys without adapter are deselected, not failed: the report counts them."""

    def unknown(item: pytest.Item) -> bool:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        return isinstance(case, Case) and case.key not in ADAPTERS

    dropped = [item for item in items if unknown(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not unknown(item)]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    verdicts: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            told = dict(getattr(report, "user_properties", ()))
            if outcome and "golden" in told and getattr(report, "when", "") == "call":
                verdicts[told["golden"]][told.get("verdict", outcome)].append(
                    (told["id"], told.get("reason", ""))
                )
    if config.option.collectonly or not (verdicts or config.stash.get(COLLECTED, False)):
        return
    write = terminalreporter.write_line
    terminalreporter.section("fidelity to golden vectors")
    cases = golden_cases(config)
    for file in dict.fromkeys(case.file for case in cases):
        missing = Counter(c.key for c in cases if c.file == file and c.key not in ADAPTERS)
        found = verdicts[file]
        if config.option.keyword and not found:
            continue
        counts = [f"{len(found[v])} {v}" for v in ("passed", "failed", "deviates", "not built")]
        write(f"{file}: {', '.join(counts)}, {missing.total()} without adapter")
        for verdict in ("failed", "deviates", "not built"):
            for name, reason in found[verdict]:
                write(f"  {verdict}: {name}" + (f": {reason}" if reason else ""))
        if missing:
            keys = ", ".join(f"{key}{NO_BREAK}{n}" for key, n in sorted(missing.items()))
            text = f"without adapter ({len(missing)} keys, with cases): {keys}"
            for line in wrap(text, 110, subsequent_indent="    "):
                write("  " + line.replace(NO_BREAK, " "))
