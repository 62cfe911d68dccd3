# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Runs one case through its adapter, and judges what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapters.table import Adapter, Deviates, NotBuilt

from golden_harness.cases import Case
from golden_harness.compare import Change, Mismatch, Unbuilt, compare
from golden_harness.reads import Recorded

#: Parameters that are remarks of the one who made the case.
REMARKS = {"note", "notes"}


@dataclass(frozen=True)
class Outcome:
    """What an adapter made of a case."""

    case: Case
    inputs: dict[str, Any]
    found: dict[str, Any]
    deviates: Deviates | None = None

    def verdict(self, change: Change | None = None) -> dict[str, str | None]:
        """What is wrong with each compared value and gradient, None if nothing is.

        A case that deviates is held to what is expected, and where that is not met to what its
        adapter says is ours. ``change`` is done to all values and gradients first.
        """
        verdict = compare(self.case, self.inputs, self.found, {}, change)
        if self.deviates is not None and any(verdict.values()):
            return compare(self.case, self.inputs, self.found, self.deviates.ours, change)
        return verdict

    @property
    def met(self) -> bool:
        """Whether the case is met as the source has it."""
        return not any(compare(self.case, self.inputs, self.found, {}).values())


def outcome(case: Case, adapter: Adapter, variant: str | None = None) -> Outcome:
    """Let the adapter have the case; raises what it raises but `Deviates`.

    Raises `Mismatch` if it left a parameter or an input unread.
    """
    inputs, params = Recorded(case.tensors()), Recorded(case.params)
    extra = () if variant is None else (variant,)
    deviates = None
    try:
        found = adapter.function(inputs, params, *extra)
    except Deviates as raised:
        deviates, found = raised, raised.found
    unread = [f"param {name!r}" for name in params.unread() if name not in REMARKS]
    if not case.shared_inputs and not case.flat:
        # None is an option that the case leaves out.
        left = (name for name in inputs.unread() if case.inputs[name] is not None)
        unread += [f"input {name!r}" for name in left]
    if unread:
        raise Mismatch(f"the adapter did not read {', '.join(unread)}")
    return Outcome(case, inputs, found, deviates)


def run(case: Case, adapter: Adapter, variant: str | None = None) -> None:
    """Pass silently, or raise `Mismatch`, `Deviates`, `NotBuilt` or the adapter's own error."""
    judge(outcome(case, adapter, variant))


def judge(made: Outcome) -> None:
    """Pass silently, or raise `Mismatch`, `Deviates` or `NotBuilt`."""
    wrong = [line for line in made.verdict().values() if line]
    if wrong:
        raise Mismatch("\n".join(wrong))
    if made.deviates is not None and not made.met:
        raise made.deviates
    unbuilt = {v.reason: None for v in made.found.values() if isinstance(v, Unbuilt)}
    if unbuilt:
        raise NotBuilt("in part: " + "; ".join(unbuilt))
