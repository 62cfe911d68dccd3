# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a report says about the losses: where they went, whether they turned round, and spikes."""

from __future__ import annotations

import re

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lightning_losses.dashboard.report.sentences import Curves, Said, at, curve, moved, seen
from lightning_losses.dashboard.runs.run import Array, Series

TRAIN_LOSSES = ("train/loss", "train_loss", "train_loss_step", "loss", "train_loss_epoch")
VAL_LOSSES = ("val/loss", "val_loss", "validation/loss", "val_loss_epoch")
ROUNDING = 1e-6  # a loss within this is rounding: policy surrogates are 0 by construction
BLOCK = 50  # values that a spike is compared with
CROSSES = 0.1  # of the steps: a loss that changes its sign so often is centred on 0


def losses(series: Curves, dead: bool) -> list[Said]:
    """Train and validation loss, from the first tenth to the last, and whether it turned round.

    That a loss fell before the training died is no good news.
    """
    said = []
    train = named_losses(series, "train", TRAIN_LOSSES)
    for name, one in train:
        moved_so = trend(name, one)
        good = moved_so.tone == "good"
        said.append(moved_so._replace(tone="note") if dead and good else moved_so)
    if not train and not any(
        "loss" in name and len(one.not_finite) for name, one in series.items()
    ):
        text = "No training loss is in the log, so its course is not judged: Lightning writes it "
        said.append(Said("unknown", f"{text}every log_every_n_steps batches, by default 50."))
    return said + [validation(*val) for val in named_losses(series, "val", VAL_LOSSES)]


def named_losses(series: Curves, stage: str, names: tuple[str, ...]) -> list[tuple[str, Series]]:
    """The loss of a stage, or those of its calls by name, or what people call it."""
    calls = sorted(name for name in series if re.fullmatch(rf"{stage}/\w+/loss", name))
    for group in ([names[0]], calls, *([name] for name in names[1:])):
        known = [(name, one) for name in group if (one := curve(series, name)) is not None]
        if known:
            return known
    return []


def trend(name: str, one: Series) -> Said:
    """Whether a loss fell, where that can be told from its noise."""
    values, evidence = one.values, seen(name, one)
    if len(values) == 1:
        return Said(
            "note", f"{name} was logged once: {one.last:.3g} at {at(one.steps[0])}.", evidence
        )
    if np.abs(values).max() < ROUNDING:
        text = (
            f"{name} stayed within {np.abs(values).max():.1g} of 0, which is rounding: it is not "
        )
        return Said("unknown", f"{text}this number that says whether training goes well.", evidence)
    tenth = max(1, len(values) // 10)
    first, last = float(np.mean(values[:tenth])), float(np.mean(values[-tenth:]))
    # Standard error of the difference of two such means, from how much neighbours differ: the
    # median of |a - b| of two normal values is 0.954 of their standard deviation.
    spread = float(np.median(np.abs(np.diff(values)))) / 0.954
    noise = spread * (2 / tenth) ** 0.5 if tenth > 1 else 0.0
    over = f" (means of the first and last {tenth:,} values)"
    if tenth == 1:
        first, last, over = one.first, one.last, f" ({at(one.steps[-1])})"
    if abs(last - first) <= max(3 * noise, 1e-6 * max(abs(first), abs(last))):
        text = f"{name} neither fell nor rose: {first:.3g} to {last:.3g}, within its noise"
        return Said("unknown", f"{text}{over}.", evidence)
    text = f"{name} {moved(first, last)}{over}."
    if last < first:
        return Said("good", text, evidence)
    if values.min() < 0 < values.max():
        text += " It is on both sides of 0, as a policy's surrogate is, and says little by itself."
        return Said("note", text, evidence)
    return Said("bad", text, evidence)


def validation(name: str, val: Series) -> Said:
    """Where validation was best, and whether it got worse from there."""
    evidence = seen(name, val)
    best = int(val.values.argmin())
    low = float(val.values[best])
    if len(val.values) == 1:
        return Said("note", f"{name} was measured once: {low:.3g} at {at(val.steps[0])}.", evidence)
    # Up by a tenth of all that was gained: less is noise in most runs.
    gained = float(val.values.max()) - low
    turned = val.last - low > max(0.1 * gained, 0.02 * abs(low), ROUNDING)
    text = f"{name} was lowest, {low:.3g}, at {at(val.steps[best])}"
    if best < len(val.values) - 1:
        text += f" and ended at {val.last:.3g}"
    advice = ": it rose again, so stop earlier or regularise" if turned else ""
    return Said("bad" if turned else "good", f"{text}{advice}.", evidence)


def spikes(series: Curves) -> list[Said]:
    """Steps at which a training loss stood out from its neighbours."""
    return [
        spikes_of(name, one)
        for name, one in named_losses(series, "train", TRAIN_LOSSES)
        if np.abs(one.values).max() >= ROUNDING
    ]


def spikes_of(name: str, one: Series) -> Said:
    """How often, and the highest."""
    evidence = seen(name, one)
    if len(one.values) < 2 * BLOCK // 5:
        text = "Too few values to tell spikes in the loss from its fall."
        return Said("unknown", text, evidence)
    if np.mean(np.sign(one.values[1:]) != np.sign(one.values[:-1])) > CROSSES:
        text = f"{name} often crosses 0, as a policy's surrogate does: spikes cannot be told."
        return Said("unknown", text, evidence)
    usual, places = stand_out(one.values)
    if not len(places):
        return Said("good", f"No spikes in {name}.", evidence)
    apart = np.flatnonzero(np.diff(places, prepend=places[0] - BLOCK) > 5)
    top = int(places[one.values[places].argmax()])
    count = f"{len(apart)} times" if len(apart) > 1 else "once"
    text = f"{name} spiked {count}, to {one.values[top]:.3g} at {at(one.steps[top])}"
    return Said("bad", f"{text} where {usual[top]:.3g} is usual.", evidence)


def stand_out(values: Array) -> tuple[Array, NDArray[np.intp]]:
    """What is usual at each place, and the places whose values are far above it.

    Usual is the median of the values before. Far is 4 times as far from it as the highest tenth of
    them begins, on a logarithmic scale: near 0 the values of a batch are skewed, and a few of a
    healthy training are ten times the median. It is also a quarter above it, by 2 % of the first
    losses, and above what comes some values later: a loss that stays up did not spike. Where values
    are not all positive the scale is linear, and far is 8 times. The first values, with which every
    training begins high, do not count.
    """
    size = min(BLOCK, max(8, len(values) // 8))
    least = max(5, len(values) // 50)
    positive = bool(values.min() > 0)
    scale = np.log(np.maximum(values, ROUNDING)) if positive else values
    ends = np.arange(least, len(values) + 1, max(1, size // 5))  # of windows
    windows = [scale[max(0, end - size) : end] for end in ends[ends < size]]
    every = sliding_window_view(scale, size)[ends[ends >= size] - size]
    middle, high = (
        np.append([np.quantile(one, q) for one in windows], np.quantile(every, q, axis=1))
        for q in (0.5, 0.9)
    )
    place = np.arange(len(values))
    before = np.clip(np.searchsorted(ends, place, side="right") - 1, 0, None)
    usual, spread = middle[before], (high - middle)[before]
    later = np.searchsorted(ends, place + 2 * size)  # the first window that begins after `size`
    after = np.append(middle, -np.inf)[np.minimum(later, len(middle))]
    level = np.exp(usual) if positive else usual
    margin = np.log(1.25) if positive else np.maximum(0.5 * np.abs(usual), ROUNDING)
    margin = np.maximum((4 if positive else 8) * spread, margin)
    over = (scale > usual + margin) & (scale > after + margin)
    over &= values - level > 0.02 * abs(float(np.median(values[:least])))
    over[:least] = False
    return level, np.flatnonzero(over)
