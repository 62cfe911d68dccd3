# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`benchmarks/scale_plan.py`: its arithmetic on small numbers, and the page that has its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale_plan

    return scale_plan


def test_the_page_has_what_the_script_prints(plan: Any) -> None:
    page = plan.PAGE.read_text()
    tables = plan.render(plan.default_plans())
    assert page == plan.replaced(page, tables), "python benchmarks/scale_plan.py --write"


def test_a_plan_that_fits_on_paper(plan: Any) -> None:
    """10 classes over 2 tensor ranks, 12 tokens over 3 data ranks; 1 byte a second, 1 s a hop."""
    small = plan.Plan(10, 4, 12, 3, 1, 2, 1.0, 1.0, 1.0)
    assert (small.rows, small.held) == (4, 5)
    held = {what: size for what, _, size in plan.tensors(small)}
    assert held["hidden states, bf16"] == 4 * 4 * 2
    assert held["gradient of the slice, float32 until reduced"] == 5 * 4 * 4
    sent = {what: (size, seconds) for what, _, size, seconds in plan.collectives(small)}
    # One hop to the other rank: 3 numbers of 4 bytes for each of 4 rows.
    assert sent["statistics for cross-entropy, 3 numbers a row, gather"] == (48, 49)
    # There and back, half of 4 x 4 numbers of 4 bytes each.
    assert sent["gradient of hidden states, float32, sum"] == (64, 66)


def test_numbers_a_row_are_those_of_the_kernel(plan: Any) -> None:
    counts = [plan.numbers_a_row(want) for want in plan.OBJECTIVES.values()]
    assert counts == [3, 4, 10]  # max, sum and target; and the entropy; and all
