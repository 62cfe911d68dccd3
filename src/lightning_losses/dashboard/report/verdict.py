# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What happened in a run, in sentences: computed from what was logged, silent about the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from lightning_losses.dashboard.panels.catalogue import PANELS, Panel, matches
from lightning_losses.dashboard.runs.run import Run, Series

Tone = Literal["good", "note", "bad"]


class Said(NamedTuple):
    """A sentence, and whether it is good news, bad news or neither."""

    tone: Tone
    text: str


def verdict(run: Run) -> list[Said]:
    """The sentences of a run in the order of importance: broken, losses, confidence, the rest."""
    said = [Said("bad" if broken(note) else "note", sentence(note)) for note in run.notes]
    if not run.series:
        return [*said, Said("bad", "No number was logged.")]
    for say in (
        not_finite,
        losses,
        accuracy,
        entropy,
        alerts,
        calibration,
        post_hoc,
        radius,
        controller,
        logits,
        attention,
        disagreement,
        forecast,
    ):
        said += say(run.series)
    return said


def broken(note: str) -> bool:
    """Notes of files that are only absent are no bad news about the run."""
    return "was not found" not in note


def sentence(note: str) -> str:
    """A note with a full stop, and a capital unless it begins with a file's name."""
    first = note[0] if "." in note.split()[0] else note[0].upper()
    return first + note[1:] + ("" if note.endswith((".", "?")) else ".")


def not_measured(run: Run) -> list[str]:
    """What a monitor or controller would have shown, for those of which nothing was logged."""
    logged = {panel.source for panel in PANELS if is_logged(panel, run)}
    missing: dict[str, str] = {}
    for panel in PANELS:
        if not panel.detail and " " not in panel.source and panel.source not in logged:
            missing.setdefault(panel.source, panel.title.lower().rstrip("?"))
    return [f"{title} ({source})" for source, title in missing.items()]


def is_logged(panel: Panel, run: Run) -> bool:
    """Whether anything that a panel draws was logged."""
    names = matches(panel, run.series)
    return bool(names or (panel.table and run.tables.get(panel.table)))


Curves = Mapping[str, Series]


def curve(series: Curves, name: str) -> Series | None:
    """A curve that has at least one finite value."""
    found = series.get(name)
    return found if found is not None and found.values else None


def stage_of(series: Curves, measure: str) -> tuple[str, Series] | None:
    """A calibration measure of validation, or of another stage if that is all there is."""
    names = [n for n in series if n.startswith("calibration/") and n.endswith(f"/{measure}")]
    names = [name for name in names if series[name].values]
    if not names:
        return None
    name = min(names, key=lambda one: (not one.startswith("calibration/val/"), one))
    return "/".join(name.split("/")[1:-1]), series[name]


def at(step: float) -> str:
    """When."""
    return f"step {step:,.0f}"


def not_finite(series: Curves) -> list[Said]:
    """NaN and infinities: where first, in which names."""
    bad = {name: one.not_finite for name, one in series.items() if one.not_finite}
    if not bad:
        return []
    first = min(min(steps) for steps in bad.values())
    most = sorted(bad, key=lambda name: (min(bad[name]), name))
    names = ", ".join(f"{name} ({len(bad[name])} times)" for name in most[:4])
    more = f" and {len(most) - 4} more names" if len(most) > 4 else ""
    return [Said("bad", f"NaN or infinite from {at(first)} on: {names}{more}.")]


def moved(first: float, last: float, digits: int = 3) -> str:
    """The direction of a change in words."""
    word = "fell" if last < first else "rose" if last > first else "stayed"
    return f"{word} from {first:.{digits}g} to {last:.{digits}g}"


def losses(series: Curves) -> list[Said]:
    """Train and validation loss from first to last, and whether validation turned round."""
    said = []
    train, val = curve(series, "train/loss"), curve(series, "val/loss")
    if train is not None:
        count = len(train.values)
        if count == 1:
            text = f"train/loss was logged once: {train.last:.3g} at {at(train.steps[0])}."
            said.append(Said("note", text))
        else:
            text = f"train/loss {moved(train.values[0], train.last)} ({at(train.steps[-1])})."
            said.append(Said("good" if train.last < train.values[0] else "bad", text))
    if val is not None:
        best = min(range(len(val.values)), key=val.values.__getitem__)
        low = val.values[best]
        # Up by a tenth of all that was gained: less is noise in most runs.
        gained = max(val.values) - low
        turned = val.last - low > max(0.1 * gained, 0.02 * abs(low)) and best < len(val.values) - 1
        text = f"val/loss was lowest, {low:.3g}, at {at(val.steps[best])}"
        if best < len(val.values) - 1:
            text += f" and ended at {val.last:.3g}"
        advice = ": it rose again, so stop earlier or regularise" if turned else ""
        said.append(Said("bad" if turned else "good", f"{text}{advice}."))
    return said


def accuracy(series: Curves) -> list[Said]:
    """How often the model was right in the end, by stage."""
    found = {name: one for name, one in series.items() if name.endswith("/accuracy") and one.values}
    parts = {}
    for name, one in sorted(found.items(), reverse=True):
        stage = name.removeprefix("calibration/").rsplit("/", 1)[0]
        parts[stage] = f"{stage} {one.last:.3g}"
    order = sorted(parts, key=lambda stage: ("test" not in stage, "val" not in stage, stage))
    text = ", ".join(parts[stage] for stage in order)
    return [Said("note", f"Accuracy in the end: {text}.")] if parts else []


def entropy(series: Curves) -> list[Said]:
    """Against its baseline if that was logged, else from first to last; and the marginal."""
    mean, ratio = curve(series, "entropy/mean"), curve(series, "entropy/ratio")
    said = []
    if ratio is not None:
        low = min(range(len(ratio.values)), key=ratio.values.__getitem__)
        text = f"Entropy fell to {ratio.values[low]:.2g} of baseline at {at(ratio.steps[low])}"
        if ratio.values[low] >= 1:
            text = f"Entropy never fell below its baseline (lowest {ratio.values[low]:.2g} times)"
        if low < len(ratio.values) - 1:
            text += f" and ended at {ratio.last:.2g} of it"
        if mean is not None:
            text += f" ({mean.last:.3g} nats)"
        said.append(Said("note", f"{text}; success in supervised training, a warning in policy."))
    elif mean is not None:
        text = f"Entropy {moved(mean.values[0], mean.last)} nats; no baseline was measured"
        said.append(Said("note", f"{text}."))
    return said


def alerts(series: Curves) -> list[Said]:
    """How often the entropy monitor warned."""
    found = curve(series, "entropy/alert")
    if found is None:
        return []
    steps = [step for step, value in zip(found.steps, found.values, strict=True) if value >= 1]
    worst = "critical" if max(found.values) >= 2 else "a warning"
    if not steps:
        return [Said("good", "No entropy alert.")]
    text = f"Entropy alert in {len(steps)} of {len(found.values)} measurements, first at "
    return [Said("bad", f"{text}{at(steps[0])}; the worst was {worst}.")]


def calibration(series: Curves) -> list[Said]:
    """Calibration error from first to last, and on which side."""
    found = stage_of(series, "ece")
    if found is None:
        return []
    stage, ece = found
    if len(ece.values) > 1:
        text = f"ECE ({stage}) {ece.values[0]:.2g} -> {ece.last:.2g}, first to last measurement"
    else:
        text = f"ECE ({stage}) {ece.last:.2g}"
    gap = stage_of(series, "gap")
    if gap is not None and gap[0] == stage and abs(gap[1].last) >= 0.01:
        side = "over" if gap[1].last > 0 else "under"
        text += f"; the model is {side}confident by {abs(gap[1].last):.2g}"
    return [Said("good" if ece.last <= 0.05 else "bad", f"{text}.")]


def post_hoc(series: Curves) -> list[Said]:
    """What the temperature did to the calibration error."""
    said = []
    temperature = curve(series, "post_hoc/temperature")
    for name in sorted(series):
        if name.startswith("post_hoc/") and name.endswith("/ece_before"):
            before = curve(series, name)
            after = curve(series, name.replace("ece_before", "ece_after"))
            if before is None or after is None:
                continue
            stage = name.split("/")[1]
            text = f"ECE ({stage}) {before.last:.2g} -> {after.last:.2g} after temperature"
            text += f" {temperature.last:.2g}." if temperature is not None else " scaling."
            said.append(Said("good" if after.last <= before.last else "bad", text))
    return said


def radius(series: Curves) -> list[Said]:
    """How often a step left the radius."""
    found = curve(series, "step_radius/r") or curve(series, "step_radius_controller/r")
    if found is None:
        return []
    above = sum(value > 1 for value in found.values)
    top = max(range(len(found.values)), key=found.values.__getitem__)
    largest = f"largest {found.values[top]:.2g} at {at(found.steps[top])}"
    if not above:
        text = f"r stayed at or below 1 in all {len(found.values)} measured steps ({largest})."
        return [Said("good", text)]
    text = f"r exceeded 1 in {above} of {len(found.values)} measured steps ({largest})"
    return [Said("bad", f"{text}: a smaller learning rate or a longer warm-up brings it down.")]


def controller(series: Curves) -> list[Said]:
    """How often the controller shortened or undid a step."""
    found = curve(series, "step_radius_controller/interventions")
    if found is None:
        return []
    undone = curve(series, "step_radius_controller/undone")
    text = f"The step-radius controller shortened {max(found.values):,.0f} steps"
    text += f" and undid {max(undone.values):,.0f}" if undone is not None else ""
    return [Said("note", f"{text}.")]


def logits(series: Curves) -> list[Said]:
    """Rows that no longer train."""
    found = curve(series, "logit_health/softmax_collapse")
    if found is None:
        return []
    steps = [step for step, value in zip(found.steps, found.values, strict=True) if value > 0]
    if not steps:
        return [Said("good", "No softmax collapse.")]
    text = f"Softmax collapse from {at(steps[0])} on, in up to {max(found.values):.0%} of rows."
    return [Said("bad", text)]


def attention(series: Curves) -> list[Said]:
    """The most focused head."""
    found = curve(series, "attention_entropy/min")
    if found is None:
        return []
    low = min(range(len(found.values)), key=found.values.__getitem__)
    text = f"The most focused attention head reached {found.values[low]:.2g} nats"
    return [Said("note", f"{text} at {at(found.steps[low])}.")]


def disagreement(series: Curves) -> list[Said]:
    """Pairs of terms whose gradients were opposed in most measurements."""
    said = []
    for name in sorted(series):
        found = curve(series, name)
        if name.startswith("term_balance/cosine/") and found is not None:
            opposed = sum(value < 0 for value in found.values)
            if opposed > len(found.values) / 2:
                pair = name.removeprefix("term_balance/cosine/").replace(":", " and ")
                text = f"The gradients of {pair} were opposed in {opposed} of {len(found.values)}"
                said.append(Said("note", f"{text} measurements."))
    return said


def forecast(series: Curves) -> list[Said]:
    """The last prediction of the final loss."""
    found = curve(series, "forecast/loss")
    if found is None:
        return []
    low, high = curve(series, "forecast/low"), curve(series, "forecast/high")
    text = f"Predicted final loss {found.last:.3g}"
    if low is not None and high is not None:
        text += f" ({low.last:.3g} to {high.last:.3g})"
    return [Said("note", f"{text}, said at {at(found.steps[-1])}.")]
