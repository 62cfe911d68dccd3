# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What happened in a run, in sentences: computed from what was logged, each with its evidence.

What was not logged is not judged: where a question that everybody asks cannot be answered (did it
end as planned?), the sentence says that instead.
"""

from __future__ import annotations

import numpy as np

from lightning_losses.dashboard.panels.catalogue import PANELS, Panel, matches
from lightning_losses.dashboard.report.ending import ending, loss_of, resumed
from lightning_losses.dashboard.report.losses import losses, spikes
from lightning_losses.dashboard.report.sentences import (
    Curves,
    Said,
    Tone,
    at,
    curve,
    measured,
    moved,
    seen,
    worst,
)
from lightning_losses.dashboard.runs.run import Run, Series

RADII = ("step_radius/r", "step_radius_controller/applied_r", "step_radius_controller/r")
#: Of the rows, as `LogitHealthMonitor` announces it by default.
COLLAPSE_SHARE = 0.9
MONITORS = {
    "entropy": "EntropyMonitor",
    "step_radius": "StepRadiusMonitor",
    "logit_health": "LogitHealthMonitor",
    "term_balance": "TermBalanceMonitor",
    "gradient_rms": "GradientRmsMonitor",
    "attention_entropy": "AttentionEntropyMonitor",
}  # that measure at a cadence, by the first part of their names


def verdict(run: Run) -> list[Said]:
    """The sentences of a run in the order of importance: its end, losses, confidence, the rest."""
    said = [Said("bad" if broken(note) else "note", sentence(note)) for note in run.notes]
    if not run.series:
        return [*ending(run), *said, Said("bad", "No number was logged.")]
    curves = run.series
    end = ending(run)
    dead = any(one.tone == "bad" for one in end)
    said = [*end, *not_finite(curves), *said, *resumed(run), *losses(curves, dead)]
    said += [*spikes(curves), *measurements(run), *accuracy(curves), *entropy(run)]
    for say in (alerts, calibration, post_hoc, drift, radius, controller, logits, attention):
        said += say(curves)
    return said + disagreement(curves) + forecast(curves)


def broken(note: str) -> bool:
    """Notes that are no bad news about the run: of files that are absent or shown in part."""
    quiet = ("was not found", "are shown", "joined:", "in one metrics.csv")
    return not any(words in note for words in quiet)


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


# -- numbers ---------------------------------------------------------------------------------------


def not_finite(series: Curves) -> list[Said]:
    """NaN and infinities: where first, in which names."""
    bad = {name: one.not_finite for name, one in series.items() if len(one.not_finite)}
    if not bad:
        return []
    first = min(float(steps[0]) for steps in bad.values())
    most = sorted(bad, key=lambda name: (float(bad[name][0]), name))
    names = ", ".join(f"{name} ({len(bad[name])} times)" for name in most[:4])
    more = f" and {len(most) - 4} more names" if len(most) > 4 else ""
    return [Said("bad", f"NaN or infinite from {at(first)} on: {names}{more}.")]


# -- measurements ----------------------------------------------------------------------------------


def measurements(run: Run) -> list[Said]:
    """Monitors that logged less often than the config asks for, or the same again and again."""
    said = []
    for prefix, source in MONITORS.items():
        names = [name for name in run.series if name.startswith(f"{prefix}/")]
        # That of the most different values: a count or a share may well be the same each time.
        long = max(names, key=lambda name: len(np.unique(run.series[name].values)), default="")
        if not long or not len(run.series[long].values):
            continue
        one = run.series[long]
        kept = measured(one)
        if len(kept.values) < len(one.values):
            text = f"{source}: {len(one.values):,} rows hold {len(kept.values):,} measurements; "
            text += "a value that was repeated counts once here"
            said.append(Said("note", f"{text}.", seen(long, one)))
        every = run.config.get(f"callbacks.{prefix}.every_n_steps")
        loss = loss_of(run.series)
        if isinstance(every, float) and every >= 1 and loss is not None:
            due = int(loss[1].last_step // every) + 1
            if len(kept.values) < 0.7 * due - 1:
                text = f"{source} was to measure every {every:g} steps, about {due:,} times; "
                text += f"{len(kept.values):,} measurements are in the log. What is said about "
                said.append(Said("bad", f"{text}it here rests on those.", seen(long, one)))
    return said


def accuracy(series: Curves) -> list[Said]:
    """How often the model was right in the end, by stage."""
    known = {n: one for n, one in series.items() if n.endswith("/accuracy") and len(one.values)}
    parts = {}
    for name, one in sorted(known.items(), reverse=True):
        stage = name.removeprefix("calibration/").rsplit("/", 1)[0]
        parts[stage] = f"{stage} {one.last:.3g}"
    order = sorted(parts, key=lambda stage: ("test" not in stage, "val" not in stage, stage))
    text = ", ".join(parts[stage] for stage in order)
    return [Said("note", f"Accuracy in the end: {text}.", ", ".join(known))] if parts else []


def entropy(run: Run) -> list[Said]:
    """By what the monitor was told to watch for; without that, what happened."""
    series = run.series
    mean, ratio = curve(series, "entropy/mean"), curve(series, "entropy/ratio")
    if mean is None:
        return []
    mode = entropy_mode(run)
    evidence = seen("entropy/mean", mean) + (f"; mode {mode}" if mode else "")
    low = float(mean.values.min())
    top = float(mean.values[: max(1, len(mean.values) // 10)].max())
    text = f"Entropy {moved(mean.first, mean.last)} nats"
    if ratio is not None:
        lowest = int(ratio.values.argmin())
        text = (
            f"Entropy fell to {ratio.values[lowest]:.2g} of baseline at {at(ratio.steps[lowest])}"
        )
        if ratio.values[lowest] >= 1:
            text = (
                f"Entropy never fell below its baseline (lowest {ratio.values[lowest]:.2g} times)"
            )
        if lowest < len(ratio.values) - 1:
            text += f" and ended at {ratio.last:.2g} of it"
        text += f" ({mean.last:.3g} nats)"
        evidence += f"; entropy/ratio, {len(ratio.values):,} values"
    elif not mode:
        text += "; no baseline was measured"
    if mode == "supervised":
        return [Said("note", f"{text}; in supervised training falling is success.", evidence)]
    # The first measurement counts as well: a baseline may have been taken after a collapse.
    least = min(
        float(ratio.values.min()) if ratio is not None else 1.0, low / top if top > 0 else 1
    )
    if mode == "policy" and least < 0.5:
        if ratio is None or low / top < float(ratio.values.min()) - 0.05:
            text = (
                f"Entropy fell from {top:.3g} to {low:.3g} nats ({low / top:.2g} of where it began)"
            )
        end = "; a policy that has no entropy left does not explore, so it has collapsed"
        end = end if least < 0.2 else "; in policy training that is a warning"
        return [Said("bad", f"{text}{end}.", evidence)]
    if mode == "policy":
        return [Said("good", f"{text}; for a policy it stayed up.", evidence)]
    words = "success in supervised training, a warning in policy"
    return [
        Said("note", f"{text}; {words} (which of them this was is not in the config).", evidence)
    ]


def entropy_mode(run: Run) -> str:
    """What the entropy monitor was told to watch for; nothing if the config does not say."""
    for key, value in run.config.items():
        if key.endswith("entropy.mode") and value in ("supervised", "policy"):
            return str(value)
    for key, value in run.config.items():  # the monitor's default
        if key.endswith("._target_") and str(value).endswith(".EntropyMonitor"):
            return "supervised"
    if "entropy/token_covariance" in run.series:
        return "policy"  # which logs it only where a step passes an advantage
    return ""


def alerts(series: Curves) -> list[Said]:
    """How often the entropy monitor warned."""
    one = curve(series, "entropy/alert")
    if one is None:
        return []
    mean = curve(series, "entropy/mean")
    if mean is not None:  # a level that stays is no repetition, but one of a repeated mean is
        new = np.isin(one.steps, measured(mean).steps)
        one = Series(one.steps[new], one.values[new]) if new.any() else one
    steps = one.steps[one.values >= 1]
    evidence = seen("entropy/alert", one)
    if not len(steps):
        return [Said("good", "No entropy alert.", evidence)]
    level = "critical" if one.values.max() >= 2 else "a warning"
    text = f"Entropy alert in {len(steps):,} of {len(one.values):,} measurements, first at "
    return [Said("bad", f"{text}{at(steps[0])}; the worst was {level}.", evidence)]


def stage_of(series: Curves, measure: str) -> tuple[str, str, Series] | None:
    """Stage, name and curve of a calibration measure: of validation, else of what there is."""
    names = [n for n in series if n.startswith("calibration/") and n.endswith(f"/{measure}")]
    names = [name for name in names if len(series[name].values)]
    if not names:
        return None
    name = min(names, key=lambda one: (not one.startswith("calibration/val/"), one))
    return "/".join(name.split("/")[1:-1]), name, series[name]


def calibration(series: Curves) -> list[Said]:
    """Calibration error from first to last, and on which side."""
    known = stage_of(series, "ece")
    if known is None:
        return []
    stage, name, ece = known
    if len(ece.values) > 1:
        text = f"ECE ({stage}) {ece.first:.2g} -> {ece.last:.2g}, first to last measurement"
    else:
        text = f"ECE ({stage}) {ece.last:.2g}"
    gap = stage_of(series, "gap")
    if gap is not None and gap[0] == stage and abs(gap[2].last) >= 0.01:
        side = "over" if gap[2].last > 0 else "under"
        text += f"; the model is {side}confident by {abs(gap[2].last):.2g}"
    return [Said("good" if ece.last <= 0.05 else "bad", f"{text}.", seen(name, ece))]


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
            tone: Tone = "good" if after.last <= before.last else "bad"
            said.append(Said(tone, text, f"post_hoc/{stage}/ece_before and ece_after"))
    return said


def drift(series: Curves) -> list[Said]:
    """Whether confidences are those of the reference."""
    said = []
    for name in matches(next(panel for panel in PANELS if panel.name == "drift"), series):
        one = curve(series, name)
        if one is None:
            continue
        text = f"{name} ended at {one.last:.2g}"
        if one.last > 0.25:
            said.append(Said("bad", f"{text}: the confidences are not those of the reference.",
                             seen(name, one)))  # fmt: skip
        elif one.last > 0.1:
            said.append(Said("note", f"{text}: some drift of the confidences.", seen(name, one)))
        else:
            said.append(Said("good", f"{text}: no drift of the confidences.", seen(name, one)))
    return said


# -- steps -----------------------------------------------------------------------------------------


def radius(series: Curves) -> list[Said]:
    """How often a step that was applied left the radius.

    A controller logs the r of the update as the optimizer made it as well; what it then scaled was
    not taken, and does not count.
    """
    name = next((name for name in RADII if curve(series, name) is not None), "")
    one = curve(series, name)
    if one is None:
        return []
    scale = curve(series, "step_radius_controller/scale")
    if name == "step_radius_controller/r" and scale is not None:  # before applied_r was logged
        taken = ~np.isin(one.steps, scale.steps[scale.values < 1])
        name, one = f"{name} where scale is 1", Series(one.steps[taken], one.values[taken])
        if not len(one.values):
            return []
    one = measured(one)
    above = int((one.values > 1).sum())
    top = worst(one)
    largest = f"largest {one.values[top]:.2g} at {at(one.steps[top])}"
    if not above:
        text = f"r stayed at or below 1 in all {len(one.values):,} measured steps ({largest})."
        return [Said("good", text, seen(name, one))]
    text = f"r exceeded 1 in {above:,} of {len(one.values):,} measured steps ({largest})"
    advice = "a smaller learning rate or a longer warm-up brings it down"
    return [Said("bad", f"{text}: {advice}.", seen(name, one))]


def controller(series: Curves) -> list[Said]:
    """How often the controller shortened or undid a step."""
    one = curve(series, "step_radius_controller/interventions")
    if one is None:
        return []
    undone = curve(series, "step_radius_controller/undone")
    text = f"The step-radius controller shortened {one.values.max():,.0f} steps"
    text += f" and undid {undone.values.max():,.0f}" if undone is not None else ""
    return [Said("note", f"{text}.", seen("step_radius_controller/interventions", one))]


def logits(series: Curves) -> list[Said]:
    """Rows that no longer train."""
    one = curve(series, "logit_health/softmax_collapse")
    if one is None:
        return []
    evidence = seen("logit_health/softmax_collapse", one)
    most = float(one.values.max())
    if not most:
        return [Said("good", "No softmax collapse.", evidence)]
    # What a model is sure of and right about collapses too, and it learns from the other rows.
    bad = one.values >= COLLAPSE_SHARE
    steps = one.steps[bad if bad.any() else one.values > 0]
    text = f"Softmax collapse from {at(steps[0])} on, in up to {most:.0%} of rows"
    if bad.any():
        return [Said("bad", f"{text}: hardly a row sends a gradient any more.", evidence)]
    return [Said("note", f"{text}; the others go on sending gradients.", evidence)]


def attention(series: Curves) -> list[Said]:
    """The most focused head."""
    one = curve(series, "attention_entropy/min")
    if one is None:
        return []
    low = int(one.values.argmin())
    text = f"The most focused attention head reached {one.values[low]:.2g} nats"
    return [Said("note", f"{text} at {at(one.steps[low])}.", seen("attention_entropy/min", one))]


def disagreement(series: Curves) -> list[Said]:
    """Pairs of terms whose gradients were opposed in most measurements."""
    said = []
    for name in sorted(series):
        one = curve(series, name)
        if name.startswith("term_balance/cosine/") and one is not None:
            opposed = int((one.values < 0).sum())
            if opposed > len(one.values) / 2:
                pair = name.removeprefix("term_balance/cosine/").replace(":", " and ")
                text = f"The gradients of {pair} were opposed in {opposed} of {len(one.values)}"
                said.append(Said("note", f"{text} measurements.", seen(name, one)))
    return said


def forecast(series: Curves) -> list[Said]:
    """The last prediction of the final loss."""
    one = curve(series, "forecast/loss")
    if one is None:
        return []
    low, high = curve(series, "forecast/low"), curve(series, "forecast/high")
    text = f"Predicted final loss {one.last:.3g}"
    if low is not None and high is not None:
        text += f" ({low.last:.3g} to {high.last:.3g})"
    return [Said("note", f"{text}, said at {at(one.steps[-1])}.", seen("forecast/loss", one))]
