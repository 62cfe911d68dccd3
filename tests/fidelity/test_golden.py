# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every golden case through the adapter of its key."""

from __future__ import annotations

import pytest
from adapters import ADAPTERS
from adapters.table import Deviates, NotBuilt
from golden_harness.cases import Case
from golden_harness.runner import run


def test_golden(case: Case, variant: str | None, request: pytest.FixtureRequest) -> None:
    tell = request.node.user_properties.append
    tell(("golden", case.file))
    tell(("id", request.node.callspec.id.removeprefix(f"{case.file}::")))
    try:
        run(case, ADAPTERS[case.key], variant)
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
