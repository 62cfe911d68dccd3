# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Runs one case through its adapter."""

from __future__ import annotations

from adapters.table import Adapter, Deviates

from golden_harness.cases import Case
from golden_harness.compare import Mismatch, check


def run(case: Case, adapter: Adapter, variant: str | None = None) -> None:
    """Pass silently, or raise `Mismatch`, `Deviates`, `NotBuilt` or the adapter's own error."""
    inputs = case.tensors()
    extra = () if variant is None else (variant,)
    try:
        found = adapter.function(inputs, dict(case.params), *extra)
    except Deviates as deviates:
        if deviates.found is None:
            raise
        try:
            check(case, inputs, deviates.found)
        except Mismatch as mismatch:
            raise deviates from mismatch
    else:
        check(case, inputs, found)
