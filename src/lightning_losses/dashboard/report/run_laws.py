# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How the final loss falls over runs of other sizes: laws, forecasts, and why there are none.

A run says its size in its config, its hyperparameters or its metrics, under one of the usual names
(`num_parameters`, `tokens`, `samples_seen`, `flops`, ...). Where most do not, what `ended.csv` has
counted stands for it: parameters, and rows seen. These are of every run, so nothing is said of
sizes that nobody varied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lightning_losses.dashboard.charts.curves import Chart
from lightning_losses.dashboard.charts.scatter import Points, scatter
from lightning_losses.dashboard.report.final_losses import (
    FinalLosses,
    arms,
    is_seed,
    of_losses,
    varied,
)
from lightning_losses.dashboard.report.sentences import Said, Tone
from lightning_losses.dashboard.runs.run import Run
from lightning_losses.metrics.training_curve.run_laws import (
    Fit,
    PowerFit,
    Refused,
    fit_hoffmann,
    fit_power,
)

#: Last parts of the names of settings and metrics that say a run's size.
SIZES = {
    "parameters": r"(num_|n_|total_|trainable_|model_)?(parameters|params)",
    "tokens": r"(num_|n_|total_|train_|training_)?tokens(_seen)?",
    "samples": r"(num_|n_|total_|train_|training_)?(samples|examples)(_seen)?|train_size",
    "compute": r"(total_|train_|training_)?(flops|compute)",
}
DATA = ("tokens", "samples", "rows")  # the last are those that `ended.csv` has counted
VARIED = 2.0  # times the smallest: a counted size that varies less was not what was varied
#: Settings of these have their own samples and parameters.
ELSEWHERE = ("callbacks", "logger", "loss", "kernel", "hydra", "optimizer", "scheduler", "trainer")
FARTHER = 10.0  # times the largest run: how far ahead is looked
GROUPS = 5  # of amounts of data that have a colour
FLOPS = 6.0  # of a multiplication and its gradients, for each parameter and token


class Sizes(NamedTuple):
    """What is known of the runs that have both a size and a final loss."""

    places: list[int]
    of: dict[str, list[float]]  # of each kind that all of them say
    data: str  # "tokens", "samples" or "rows"


class Forecast(NamedTuple):
    """What a comparison shows of laws over its runs."""

    lines: list[Said]
    charts: list[tuple[str, str, Chart]]  # name, title


def size_of(run: Run, kind: str) -> float | None:
    """A run's size as it was measured, else as its config says."""
    for key, one in run.series.items():
        if is_size(key.rsplit("/", 1)[-1], kind) and len(one.values):
            return float(one.values.max())
    for key, cell in run.config.items():
        parts = key.replace("/", ".").split(".")
        if is_size(parts[-1], kind) and parts[0] not in ELSEWHERE and isinstance(cell, float):
            return cell
    return None


def is_size(name: str, kind: str) -> bool:
    """Whether a metric or a setting of this name says a size of this kind."""
    return re.fullmatch(SIZES[kind], name.lower()) is not None


def counted(runs: Sequence[Run], places: Sequence[int]) -> dict[str, dict[int, float]]:
    """Parameters and rows that `ended.csv` has, of the kinds that were varied.

    Rows of a run that stopped early follow from its loss, so they are no size that it was given.
    """
    found: dict[str, dict[int, float]] = {"parameters": {}, "rows": {}}
    for at in places:
        ended = runs[at].ended
        if ended is not None and ended.num_parameters > 0:
            found["parameters"][at] = ended.num_parameters
        if ended is not None and ended.rows_seen > 0:
            found["rows"][at] = ended.rows_seen
    ends = (runs[at].ended for at in places)
    if any(ended is not None and ended.reason.startswith("stopped") for ended in ends):
        del found["rows"]
    return {
        kind: of
        for kind, of in found.items()
        if of and max(of.values()) >= VARIED * min(of.values())
    }


def sizes(runs: Sequence[Run], places: Sequence[int]) -> Sizes:
    """The sizes that are known of these runs; a kind that few of them say is none."""
    known = {
        kind: {at: size for at in places if (size := size_of(runs[at], kind)) is not None}
        for kind in SIZES
    }
    # What somebody has said is of his own counting, so the two are not mixed.
    known |= {
        kind: of
        for kind, of in counted(runs, places).items()
        if 2 * len(known.get(kind, {})) <= len(places)
    }
    data = max(DATA, key=lambda kind: len(known.get(kind, {})))  # the first of equals
    kinds = [k for k in ("parameters", data, "compute") if 2 * len(known.get(k, {})) > len(places)]
    kept = [at for at in places if all(at in known[kind] for kind in kinds)]
    return Sizes(kept, {kind: [known[kind][at] for at in kept] for kind in kinds}, data)


def run_forecast(
    runs: Sequence[Run], finals: FinalLosses | None, settings: Sequence[str]
) -> Forecast:
    """Sentences and charts; none where no run says its size and none was varied.

    Args:
        finals: what the runs ended at.
        settings: names of the settings in which the configs of the runs differ.
    """
    said = [run for run in runs if any(size_of(run, kind) is not None for kind in SIZES)]
    if finals is None:
        return Forecast([], [])
    found = sizes(runs, list(finals.values))
    if not found.of and len(said) < 2:
        return Forecast([], [])
    if not found.of:
        few = f"{len(said)} of {len(runs)} runs say their size; a law takes it of most of them."
        return Forecast([Said("unknown", f"No law over the runs: {few}")], [])
    mixed = varied([runs[at] for at in found.places], of_losses(settings))
    if finals.of_an_objective and mixed:
        why = f"{finals.name} is not the same loss in all of them ({', '.join(mixed[:4])} differ); "
        why += "with CalibrationMonitor they also measure the likelihood of validation."
        return Forecast([Said("unknown", f"No law over the runs: {why}")], [])
    found, tuned = best_of_each_size(runs, found, finals, settings)
    losses = [finals.values[at] for at in found.places]
    names = [runs[at].name for at in found.places]
    lines, charts = laws(found, losses, names, finals.name)
    if tuned and charts:
        lines.append(Said("note", tuned))
    if finals.left_out:
        text = f"Left out of the laws: {'; '.join(finals.left_out[:3])}"
        more = len(finals.left_out) - 3
        lines.append(Said("note", text + (f"; and {more} more" if more > 0 else "") + "."))
    return Forecast(lines, charts)


def best_of_each_size(
    runs: Sequence[Run], found: Sizes, finals: FinalLosses, settings: Sequence[str]
) -> tuple[Sizes, str]:
    """Of runs of one size that were set differently, the best: a law is of tuned runs.

    Runs of one size that differ in their seeds only all count.
    """
    groups: dict[tuple[float, ...], list[int]] = {}
    for row, at in enumerate(found.places):
        groups.setdefault(tuple(column[row] for column in found.of.values()), []).append(at)
    kept, differ = [], []
    for places in groups.values():
        of_group = [
            key for key in varied([runs[at] for at in places], settings) if not is_seed(key)
        ]
        if not of_group:
            kept += places
            continue
        differ += of_group
        one_setting = arms({at: runs[at] for at in places}, of_group)
        means = {
            key: sum(finals.values[at] for at in arm) / len(arm) for key, arm in one_setting.items()
        }
        kept += one_setting[min(means, key=lambda key: means[key])]
    kept = [at for at in found.places if at in kept]
    rows = [found.places.index(at) for at in kept]
    of = {kind: [column[row] for row in rows] for kind, column in found.of.items()}
    text = ""
    if differ:
        which = ", ".join(list(dict.fromkeys(differ))[:4])
        text = (
            f"Of runs of one size the best by {finals.name} is fitted, for they differ in {which}."
        )
    return Sizes(kept, of, found.data), text


def laws(
    found: Sizes, losses: list[float], names: list[str], loss: str
) -> tuple[list[Said], list[tuple[str, str, Chart]]]:
    """Those that the sizes allow."""
    lines: list[Said] = []
    charts: list[tuple[str, str, Chart]] = []
    both = [kind for kind in ("parameters", found.data) if kind in found.of]
    vary = [kind for kind in both if len(set(found.of[kind])) > 1]
    if len(vary) == 2:
        n, d = found.of["parameters"], found.of[found.data]
        try:
            fit = fit_hoffmann(n, d, losses)
        except Refused as why:
            lines.append(Said("unknown", f"No law of parameters and {found.data}: {why}"))
        else:
            lines += of_both(fit, found, losses, loss)
            title = f"{loss} of parameters and {found.data}"
            charts.append(("law_both", title, both_chart(fit, found, losses, names, loss)))
    for kind in vary:
        rows = at_most(found, kind)
        x, y = [found.of[kind][row] for row in rows], [losses[row] for row in rows]
        try:
            one = fit_power(x, y)
        except Refused as why:
            if len(vary) == 1:
                lines.append(Said("unknown", f"No law of {kind}: {why}"))
            continue
        other = next((name for name in vary if name != kind), "")
        at = f", at {amount(max(found.of[other]))} {other}" if other else ""
        lines.append(of_one(one, kind, x, y, loss, at))
        chart = one_chart(one, kind, x, y, [names[row] for row in rows], loss)
        charts.append((f"law_{kind}", f"{loss} of {kind}{at}", chart))
    if "compute" in found.of and len(set(found.of["compute"])) > 1:
        rows = frontier(found.of["compute"], losses)
        x, y = [found.of["compute"][row] for row in rows], [losses[row] for row in rows]
        try:
            one = fit_power(x, y)
        except Refused as why:
            words = "of the runs that no cheaper one beats"
            lines.append(Said("unknown", f"No law of compute, {words}: {why}"))
        else:
            lines.append(of_one(one, "operations", x, y, loss, ", no cheaper run being better"))
            chart = one_chart(one, "operations", x, y, [names[row] for row in rows], loss)
            charts.append(("law_compute", f"{loss} of compute", chart))
    if not lines:
        equal = ", ".join(f"{amount(column[0])} {kind}" for kind, column in found.of.items())
        lines.append(Said("unknown", f"No law over the runs: all of them have {equal}."))
    return lines, charts


def at_most(found: Sizes, kind: str) -> list[int]:
    """The rows in which the other size does not bound the loss more than it must: its largest."""
    others = [k for k in ("parameters", found.data) if k in found.of and k != kind]
    rows = list(range(len(found.places)))
    for other in others:
        largest = max(found.of[other])
        rows = [row for row in rows if found.of[other][row] > 0.99 * largest]
    return rows


def frontier(compute: Sequence[float], losses: Sequence[float]) -> list[int]:
    """The rows that none with as much compute or less beats."""
    rows = sorted(range(len(compute)), key=lambda row: (compute[row], losses[row]))
    kept: list[int] = []
    for row in rows:
        if not kept or losses[row] < losses[kept[-1]]:
            kept.append(row)
    return kept


# Sentences --------------------------------------------------------------------------------------


def amount(value: float) -> str:
    """A size in few letters."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if unit <= value < 1e15:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def between(values: Sequence[float]) -> str:
    """90 % of them."""
    low, high = np.quantile(np.array(values), (0.05, 0.95))
    return f"{amount(float(low))} to {amount(float(high))}"


def of_one(
    fit: PowerFit, kind: str, x: Sequence[float], y: Sequence[float], loss: str, at: str
) -> Said:
    """A law of one size: what it is, and what ten times the largest would bring."""
    law, far = fit.law, FARTHER * max(x)
    low, high = fit.interval(far)
    text = (
        f"Over {len(x)} runs{at}, {loss} follows {law.e:.3g} + "
        f"({amount(scale(law.a, law.alpha))} / {kind})^{law.alpha:.2g} (exponent "
        f"{between([one.alpha for one in fit.resampled])}, floor "
        f"{between([one.e for one in fit.resampled])}). With {amount(far)} {kind}, {FARTHER:g} "
        f"times the largest, it expects {float(law.loss(torch.tensor(far))):.3g}, 90 % between "
        f"{low:.3g} and {high:.3g}."
    )
    return Said(tone(low, high), text, evidence(x, y, kind, fit.residual))


def of_both(fit: Fit, found: Sizes, losses: Sequence[float], loss: str) -> list[Said]:
    """The law of two sizes, and the best use of ten times the largest run's compute."""
    law, n, d = fit.law, found.of["parameters"], found.of[found.data]
    text = (
        f"Over {len(n)} runs {loss} follows {law.e:.3g} + ({amount(scale(law.a, law.alpha))} / "
        f"parameters)^{law.alpha:.2g} + ({amount(scale(law.b, law.beta))} / {found.data})"
        f"^{law.beta:.2g} (exponents {between([one.alpha for one in fit.resampled])} and "
        f"{between([one.beta for one in fit.resampled])}, floor "
        f"{between([one.e for one in fit.resampled])})."
    )
    measured = found.of.get("compute")
    products = [one * two for one, two in zip(n, d, strict=True)]
    flops = FLOPS
    if measured is not None:
        ratios = [one / two for one, two in zip(measured, products, strict=True)]
        flops = float(np.median(np.array(ratios)))
    budget = FARTHER * flops * max(products)
    best = law.best(torch.tensor(budget, dtype=torch.float64), flops)
    low, high = fit.interval(float(best.n), float(best.d))
    ways = [one.best(torch.tensor(budget, dtype=torch.float64), flops) for one in fit.resampled]
    counted = "as measured" if measured is not None else "counted as 6 a parameter and datum"
    advice = (
        f"{FARTHER:g} times the operations of the largest run ({budget:.2g}, {counted}) are best "
        f"spent on {amount(float(best.n))} parameters (90 % of resampled runs: "
        f"{between([float(one.n) for one in ways])}) and {amount(float(best.d))} {found.data}, "
        f"{float(best.d / best.n):.3g} a parameter: {float(best.loss):.3g} is expected, 90 % "
        f"between {low:.3g} and {high:.3g}. The best number of parameters grows as compute^"
        f"{law.exponent_n:.2g}."
    )
    seen = evidence(n, losses, "parameters", fit.residual)
    return [Said("note", text, seen), Said(tone(low, high), advice)]


def scale(a: float, alpha: float) -> float:
    """The x at which ``a / x^alpha`` is 1."""
    return float(min(a ** (1 / alpha), 1e300)) if a > 0 and np.log(a) / alpha < 690 else 1e300


def tone(low: float, high: float) -> Tone:
    """An interval of a factor of two says nothing of use."""
    return "note" if high < 2 * low else "unknown"


def evidence(x: Sequence[float], y: Sequence[float], kind: str, residual: float) -> str:
    """What a law was read from."""
    return (
        f"{len(x)} runs, {amount(min(x))} to {amount(max(x))} {kind}, losses {min(y):.3g} to "
        f"{max(y):.3g}, residuals of {100 * residual:.2g} %; intervals by drawing runs again"
    )


# Charts -----------------------------------------------------------------------------------------


def along(low: float, high: float) -> list[float]:
    """Places of a curve."""
    return [float(x) for x in np.geomspace(low, high, 40)]


def one_chart(
    fit: PowerFit, kind: str, x: Sequence[float], y: Sequence[float], names: list[str], loss: str
) -> Chart:
    """Runs, the law through them, and its 90 % interval, up to ten times the largest run."""
    where = along(min(x), FARTHER * max(x))
    line = [(at, float(fit.law.loss(torch.tensor(at, dtype=torch.float64)))) for at in where]
    band = [(at, *fit.interval(at)) for at in where]
    return scatter([Points("runs", x, y, line, band, names)], kind, loss)._replace(
        facts=[f"{len(x)} runs; the area is the 90 % interval of a new one"]
    )


def both_chart(
    fit: Fit, found: Sizes, losses: Sequence[float], names: list[str], loss: str
) -> Chart:
    """Loss over parameters, a colour and a curve for each amount of data."""
    n, d = found.of["parameters"], found.of[found.data]
    kinds = sorted(set(d))
    if len(kinds) > GROUPS:  # as many runs in each
        edges = np.quantile(np.array(d), np.linspace(0, 1, GROUPS + 1))[1:-1]
        group = [int(np.searchsorted(edges, one, side="right")) for one in d]
    else:
        group = [kinds.index(one) for one in d]
    points = []
    where = along(min(n), max(n) * FARTHER)
    for one in sorted(set(group)):
        rows = [row for row in range(len(n)) if group[row] == one]
        middle = float(np.median(np.array([d[row] for row in rows])))
        near = "" if len(kinds) <= GROUPS else "about "
        law = fit.law.loss(
            torch.tensor(where, dtype=torch.float64), torch.tensor(middle, dtype=torch.float64)
        ).tolist()
        points.append(
            Points(
                f"{near}{amount(middle)} {found.data}",
                [n[row] for row in rows],
                [losses[row] for row in rows],
                list(zip(where, law, strict=True)),
                runs=[names[row] for row in rows],
            )
        )
    facts = [f"{len(n)} runs; curves are the law"]
    return scatter(points, "parameters", loss)._replace(facts=facts)
