# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every golden case through the adapter of its key; and would each notice a wrong product?"""

from __future__ import annotations

import pytest
from adapters import ADAPTERS
from adapters.table import Deviates, NotBuilt
from golden_harness.cases import Case
from golden_harness.mutations import noticeable, one_percent
from golden_harness.runner import Outcome, judge, outcome

#: What adapters made of the cases, so that the second test need not ask again.
OUTCOMES: dict[str, Outcome] = {}


def outcome_of(case: Case, variant: str | None) -> Outcome:
    name = f"{case.id}[{variant}]"
    if name not in OUTCOMES:
        OUTCOMES[name] = outcome(case, ADAPTERS[case.key], variant)
    return OUTCOMES[name]


def test_golden(case: Case, variant: str | None, request: pytest.FixtureRequest) -> None:
    tell = request.node.user_properties.append
    tell(("golden", case.file))
    tell(("id", request.node.callspec.id.removeprefix(f"{case.file}::")))
    try:
        judge(outcome_of(case, variant))
    except Deviates as deviates:
        tell(("verdict", "deviates"))
        tell(("reason", deviates.reason))
        pytest.xfail(f"deviates: {deviates.reason}")
    except NotBuilt as missing:
        tell(("verdict", "not built"))
        tell(("reason", str(missing)))
        pytest.skip(f"not built: {missing}")
    except Exception as error:
        tell(("reason", f"{type(error).__name__}: {error}".replace("\n", "; ")[:300]))
        raise


def test_one_percent_is_noticed(case: Case, variant: str | None) -> None:
    """Each value and each gradient that a case compares, 1 % off alone, fails it."""
    try:
        made = outcome_of(case, variant)
    except NotBuilt:
        return
    wanted = case.expected | {f"grad.{name}": grad for name, grad in case.gradients.items()}
    unnoticed = [
        name
        for name, line in made.verdict(one_percent).items()
        # What the case itself says is near enough is not for us to narrow.
        if line is None and (wanted[name] is None or noticeable(case, wanted[name]))
    ]
    assert not unnoticed, "1 % off and not noticed"
