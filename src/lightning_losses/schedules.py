# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that move while training: plain callables from the optimizer step to a float.

The step is Lightning's ``trainer.global_step``, which counts the steps of all optimizers together:
with two optimizers that both step every batch, ``steps: 1000`` are 500 batches.

Any callable ``step -> float`` is a schedule; these are the usual ones, as frozen dataclasses so
that they pickle, compare and print.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The same value at every step.

    Examples:
        >>> Constant(0.3)(1000)
        0.3
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _numbers(value=self.value)

    def __call__(self, step: int) -> float:
        return float(self.value)


@dataclass(frozen=True)
class Linear:
    """``start`` until ``delay``, then straight to ``end`` within ``steps``, then ``end``.

    Examples:
        >>> warmup = Linear(start=0.0, end=1.0, steps=100, delay=50)
        >>> [warmup(step) for step in (0, 50, 100, 150, 1000)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """

    start: float = 0.0
    end: float = 1.0
    steps: int = 1000
    delay: int = 0

    def __post_init__(self) -> None:
        _numbers(start=self.start, end=self.end, steps=self.steps, delay=self.delay)
        _positive("steps", self.steps)

    def __call__(self, step: int) -> float:
        done = min(max((step - self.delay) / self.steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class Cosine(Linear):
    """As `Linear`, along half a cosine: flat at both ends.

    Examples:
        >>> fall = Cosine(start=1.0, end=0.0, steps=100)
        >>> [round(fall(step), 3) for step in (0, 25, 50, 75, 100)]
        [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def __call__(self, step: int) -> float:
        done = min(max((step - self.delay) / self.steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * 0.5 * (1 - math.cos(math.pi * done))


@dataclass(frozen=True)
class Piecewise:
    """``values[i]`` from step ``boundaries[i - 1]`` on; one more value than boundaries.

    Examples:
        >>> weight = Piecewise(boundaries=[100, 200], values=[1.0, 0.3, 0.0])
        >>> [weight(step) for step in (99, 100, 200)]
        [1.0, 0.3, 0.0]
    """

    boundaries: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        for name, given in (("boundaries", self.boundaries), ("values", self.values)):
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise TypeError(f"{name} must be a list of numbers, got {given!r}.")
            _numbers(**{f"{name}[{i}]": x for i, x in enumerate(given)})
        if len(self.values) != len(self.boundaries) + 1 or list(self.boundaries) != sorted(
            self.boundaries
        ):
            raise ValueError(
                f"piecewise needs increasing boundaries and one more value than boundaries; got "
                f"boundaries={list(self.boundaries)}, values={list(self.values)}."
            )

    def __call__(self, step: int) -> float:
        return float(self.values[bisect_right(self.boundaries, step)])


def as_schedule(weight: float | Schedule | Mapping[str, float]) -> Schedule:
    """A number, a callable, or the fields of `Linear` as a schedule.

    Raises:
        ValueError: a negative number, or a mapping with other fields than `Linear` has.
        TypeError: anything else.

    Examples:
        >>> as_schedule(0.3)
        Constant(value=0.3)
        >>> as_schedule({"start": 0.0, "end": 1.0, "steps": 100})(50)
        0.5
    """
    if callable(weight):
        _refuse_negative(weight)
        return weight
    if isinstance(weight, Mapping):
        fields = {"start", "end", "steps", "delay"}
        if unknown := sorted(set(weight) - fields):
            raise ValueError(
                f"A weight given as a mapping is a linear schedule with {sorted(fields)}; found "
                f"{unknown}. For another shape write `_target_: lightning_losses.schedules.Cosine`."
            )
        return as_schedule(Linear(**weight))  # type: ignore[arg-type]
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TypeError(
            f"A weight is a number, a callable step -> float, or a mapping such as "
            f"{{start: 0, end: 0.3, steps: 1000}}; found {weight!r}."
        )
    if not 0 <= weight < math.inf:
        raise ValueError(
            f"A weight must be finite and at least 0, found {weight}. To reward a quantity use a "
            "loss that is minus it (entropy_bonus rewards entropy)."
        )
    return Constant(float(weight))


def _refuse_negative(schedule: Schedule) -> None:
    """Complain at once of a schedule that will be no weight at some step; of ours that is known."""
    if isinstance(schedule, Linear):
        extremes = {schedule.delay: schedule.start, schedule.delay + schedule.steps: schedule.end}
    elif isinstance(schedule, Piecewise):
        extremes = dict(zip((0, *schedule.boundaries), schedule.values, strict=True))
    elif isinstance(schedule, Constant):
        extremes = {0: schedule.value}
    else:
        return
    for step, value in extremes.items():
        if not 0 <= value < math.inf:
            raise ValueError(
                f"A weight must be finite and at least 0, and {schedule!r} is {value} at step "
                f"{step}. To reward a quantity use a loss that is minus it."
            )


def _numbers(**given: object) -> None:
    """Raise TypeError for what is no number; steps that never end are an infinite one."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} of a schedule must be a number, got {value!r}.")
        if name in ("steps", "delay") and not math.isfinite(value):
            raise ValueError(f"{name} of a schedule must be finite, got {value!r}.")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}.")
