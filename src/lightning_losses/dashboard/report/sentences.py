# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the sentences of a verdict are made of: a tone, evidence, and words for curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from lightning_losses.dashboard.runs.run import Series

Tone = Literal["good", "note", "bad", "unknown"]
Curves = Mapping[str, Series]


class Said(NamedTuple):
    """A sentence, whether it is good news, bad news or neither, and what it was read from."""

    tone: Tone
    text: str
    evidence: str = ""


def curve(series: Curves, name: str) -> Series | None:
    """A curve that has at least one finite value."""
    one = series.get(name)
    return one if one is not None and len(one.values) else None


def at(step: float) -> str:
    """When."""
    return f"step {step:,.0f}"


def seen(name: str, one: Series) -> str:
    """What a sentence was read from."""
    count = len(one.values) + len(one.not_finite)
    if count == 1:
        return f"{name}, 1 value"
    first = min([steps[0] for steps in (one.steps, one.not_finite) if len(steps)])
    return f"{name}, {count:,} values, steps {first:,.0f} to {one.last_step:,.0f}"


def moved(first: float, last: float) -> str:
    """The direction of a change in words."""
    word = "fell" if last < first else "rose" if last > first else "stayed"
    return f"{word} at {last:.3g}" if word == "stayed" else f"{word} from {first:.3g} to {last:.3g}"


def worst(one: Series) -> int:
    """Where a curve is largest."""
    return int(one.values.argmax())


def measured(one: Series) -> Series:
    """A curve without repetitions of a value that was measured once and logged again and again.

    Lightning repeats what was logged until the next measurement; a value that stands in most rows
    next to itself is such a one, and counting its rows would count it many times.
    """
    again = np.append(False, np.diff(one.values) == 0)
    if len(one.values) < 6 or again.mean() < 0.6 or not (~again[1:]).any():
        return one
    return Series(one.steps[~again], one.values[~again], one.not_finite)
