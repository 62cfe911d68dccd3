# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""``pytest -m fuzz``: several thousand calls, most with one wrong tensor, and what became of them.

Not in the default run. LIGHTNING_LOSSES_FUZZ=5000 says how many calls; the seed is fixed, so that a
finding can be found again.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
import torch
from factory import LOSSES, PARAMETERS_ONLY, WHOLE, build
from mutations import OUTCOMES, case, first_kind, judge, mutations
from torch import Tensor

pytestmark = pytest.mark.fuzz
BY_PLACE = {
    "clip_cov", "concept_bottleneck", "dark_experience", "ensloss", "kl_cov", "metric_mixup",
}  # fmt: skip
CALLS = int(os.environ.get("LIGHTNING_LOSSES_FUZZ", "5000"))


@pytest.fixture(autouse=True)
def _asked_for(request: pytest.FixtureRequest) -> None:
    if "fuzz" not in (request.config.getoption("-m") or ""):
        pytest.skip("write pytest -m fuzz")


def right_or_silent(key: str, rows: int, classes: int, seed: int) -> tuple[str, str]:
    """A call without a mistake: in float32 with rows that do not count, against those deleted."""
    named = case(key, rows, classes, seed)
    kept = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) > 0.3
    if key in PARAMETERS_ONLY or not kept.any():
        return "right", ""
    some = {n: x if n in WHOLE or not isinstance(x, Tensor) else x[kept] for n, x in named.items()}
    low = {
        n: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x
        for n, x in named.items()
    }
    expected = build(key, classes)(**some).total
    found = build(key, classes)(**low, mask=kept).total
    # Which rows are drawn depends on their place, or on the rounding of a tie (kl_cov: of two rows
    # the covariances are equal); replayed rows are a batch that no mask tells of.
    by_place = key in BY_PLACE
    near = by_place or torch.allclose(found.double(), expected.double(), rtol=1e-3, atol=1e-4)
    return (
        "right" if near else "silent"
    ), f"{float(found.detach())} for {float(expected.detach())}"


def test_many_calls(capsys: pytest.CaptureFixture[str]) -> None:
    draw, counts, found = random.Random(0), Counter[str](), Counter[str]()
    for call in range(CALLS):
        key, seed = draw.choice(LOSSES), draw.randrange(10**6)
        rows, classes = draw.randint(2, 9), draw.randint(3, 7)
        label = "nothing wrong"
        try:
            if call % 5 == 0:
                outcome, text = right_or_silent(key, rows, classes, seed)
            else:
                named = case(key, rows, classes, seed)
                tensors = [n for n, x in named.items() if isinstance(x, Tensor)]
                if not tensors:
                    continue
                name = draw.choice(tensors)
                objective = build(key, classes)
                wrong = mutations(name, named[name], named, first_kind(objective), key)
                mutation = draw.choice(list(wrong))
                label = f"{name}, {mutation.label}"
                expected = objective(**named).total.detach()
                outcome, text = judge(objective, named, name, mutation, expected)
        except Exception as error:  # of the right call
            outcome, text = "raw", f"{type(error).__name__}: {error}"
        counts[outcome] += 1
        if outcome in ("raw", "silent"):
            found[f"{outcome}: {key}: {label} ({rows} rows, {classes} classes): {text[:120]}"] += 1
    with capsys.disabled():
        total = sum(counts.values())
        print(f"\n{total} calls over {len(LOSSES)} keys")
        for outcome in OUTCOMES:
            print(f"  {outcome:7} {counts[outcome]:6} {100 * counts[outcome] / total:6.2f} %")
        for line in sorted(found):
            print(f"  {line}")
    assert not counts["silent"]
    assert counts["raw"] <= 0.01 * sum(counts.values())
