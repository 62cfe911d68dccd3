# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Over runs: the best shares of languages or domains, and what quantised training costs.

A run says its mixture as numbers under one name in its config, such as ``data.mixture.en: 0.4``,
and measures a loss of each under the same word: ``val/en/loss``, ``val/loss/en``. It says that it
was quantised by ``group_size`` or ``bits``. Where the runs of a comparison do not, nothing is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lightning_losses.dashboard.charts.curves import Chart
from lightning_losses.dashboard.charts.scatter import Points, scatter
from lightning_losses.dashboard.report.final_losses import FinalLosses, is_seed, varied
from lightning_losses.dashboard.report.run_laws import (
    ELSEWHERE,
    Forecast,
    amount,
    between,
    sizes,
)
from lightning_losses.dashboard.report.sentences import Said
from lightning_losses.dashboard.runs.run import Run
from lightning_losses.metrics.training_curve.mixture_fit import MixtureFit, fit_mixture
from lightning_losses.metrics.training_curve.quantization_fit import (
    fit_bits,
    fit_group_quantization,
)
from lightning_losses.metrics.training_curve.run_laws import Refused, fit_hoffmann, fit_power

#: The name that holds the shares of a mixture, last but one of a setting's.
MIXTURE = r"(\w+_)?(mixture|mix|ratios|shares|proportions)|(domain|language|data)_weights"
GROUP = r"(\w+_)?group_size"
BITS = r"(\w+_)?(bits|bit_width|bitwidth)"
FULL = 16.0  # bits that are full precision here, as is no number
MOST = 8  # families that have a colour


def mixture_forecast(
    runs: Sequence[Run], finals: FinalLosses | None, settings: Sequence[str]
) -> Forecast:
    """Sentences and charts; none where no run says its mixture and none was quantised.

    Args:
        finals: what the runs ended at.
        settings: names of the settings in which the configs of the runs differ.
    """
    if finals is None:
        return Forecast([], [])
    lines, charts = mixture(runs, finals, settings)
    more = quantization(runs, finals, settings)
    return Forecast([*lines, *more], charts)


# Mixtures ---------------------------------------------------------------------------------------


def shares_of(settings: Sequence[str]) -> dict[str, str]:
    """Of each family the setting that is its share; of the first mixture that varies."""
    found: dict[str, dict[str, str]] = {}
    for key in settings:
        parts = key.split(".")
        named = len(parts) > 1 and re.fullmatch(MIXTURE, parts[-2].lower())
        if named and parts[0] not in ELSEWHERE:
            found.setdefault(key.rsplit(".", 1)[0], {})[parts[-1]] = key
    return next((of for of in found.values() if len(of) > 1), {})


def family_loss(run: Run, family: str) -> float | None:
    """The final loss of one family: of test data if there is one, else of validation."""
    names = []
    for name, one in run.series.items():
        parts = name.split("/")
        rest = "/".join(part for part in parts if part != family)
        if family in parts and re.search(r"(^|/)(loss|nll)", rest) and len(one.values):
            stage = [re.search(stage, rest) is not None for stage in ("test", "val", "train")]
            names.append((not stage[0], not stage[1], stage[2], len(name), name))
    if not names or min(names)[2]:
        return None
    return run.series[min(names)[-1]].last


def mixture(
    runs: Sequence[Run], finals: FinalLosses, settings: Sequence[str]
) -> tuple[list[Said], list[tuple[str, str, Chart]]]:
    """The law of shares, and the best of them."""
    keys = shares_of(settings)
    families = [
        family
        for family in keys
        if sum(family_loss(runs[at], family) is not None for at in finals.values) > 1
    ]
    if len(families) < 2:
        return [], []
    places = []
    for at in finals.values:
        cells = [runs[at].config.get(keys[family]) for family in keys]
        if all(isinstance(cell, float) and cell >= 0 for cell in cells) and any(cells):
            places.append(at)
    if not places:
        text = "no run says its shares as numbers that are not negative."
        return [Said("unknown", f"No law of the mixture: {text}")], []
    others = [
        key
        for key in varied([runs[at] for at in places], settings)
        if key not in keys.values() and not is_seed(key)
    ]
    groups = size_groups(runs, places)
    places.sort(key=lambda at: groups[at])  # the largest last
    shares, losses = [], []
    for at in places:
        row = [float(runs[at].config[keys[family]] or 0) for family in keys]
        shares.append(
            [value / sum(row) for f, value in zip(keys, row, strict=True) if f in families]
        )
        losses.append([family_loss(runs[at], family) or math.nan for family in families])
    try:
        fit = fit_mixture(shares, losses, [groups[at] for at in places], families)
    except Refused as why:
        return [Said("unknown", f"No law of the mixture: {why}")], []
    kinds = len(set(groups.values()))
    lines = [mixture_said(fit, families, len(places), kinds)]
    if others and kinds == 1:
        text = "The law of the mixture takes its runs for equal else, and they differ in "
        text += f"{', '.join(others[:4])}."
        lines.append(Said("unknown", text))
    here = [row for row, at in enumerate(places) if groups[at] == groups[places[-1]]]
    names = [runs[places[row]].name for row in here]
    drawn = mixture_chart(
        fit, families, [shares[r] for r in here], [losses[r] for r in here], names
    )
    return lines, [("law_mixture", "loss of each family by its share", drawn)]


def size_groups(runs: Sequence[Run], places: Sequence[int]) -> dict[int, tuple[float, str]]:
    """What runs of one size have in common, ordered by size; all the same where none is known."""
    found = sizes(runs, places)
    columns = [found.of[kind] for kind in ("parameters", found.data) if kind in found.of]
    known = {at: tuple(column[row] for column in columns) for row, at in enumerate(found.places)}
    # As many digits as tell sizes apart: two epochs of almost the same data are one size.
    return {
        at: (float(f"{math.prod(known[at]):.2g}"), " ".join(f"{x:.2g}" for x in known[at]))
        if at in known
        else (0.0, "")
        for at in places
    }


def percent(values: Sequence[float]) -> str:
    """90 % of some shares."""
    low, high = np.quantile(np.array(values), (0.05, 0.95))
    return f"{100 * float(low):.0f} to {100 * float(high):.0f}"


def mixture_said(fit: MixtureFit, families: Sequence[str], runs: int, kinds: int) -> Said:
    """How steep each family's law is, and the shares that it makes best."""
    slopes = []
    for i, family in enumerate(families):
        drawn = [float(law.gamma[i]) for law in fit.resampled]
        slopes.append(f"{family} {float(fit.law.gamma[i]):.2g} ({between(drawn)})")
    best, drawn_best = fit.best_shares()
    plain, _ = fit.best_shares(alike=False)
    of_size = "" if kinds == 1 else f" of {kinds} sizes"
    ways = ", ".join(
        f"{family} {100 * float(best[i]):.0f} % ({percent(drawn_best[:, i].tolist())})"
        for i, family in enumerate(families)
    )
    sums = ", ".join(f"{family} {100 * float(plain[i]):.0f} %" for i, family in enumerate(families))
    text = (
        f"Over {runs} runs{of_size} the loss of each family falls as its share to the power of "
        f"minus {'; '.join(slopes)}. Each taken relative to its own scale, the sum of losses is "
        f"least at {ways}; of the losses as they are at {sums}. In brackets 90 % of resampled runs."
    )
    evidence = f"residuals of {100 * fit.residual:.2g} %; gamma is taken to be that of any size"
    return Said("note", text, evidence)


def mixture_chart(
    fit: MixtureFit,
    families: Sequence[str],
    shares: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
    names: Sequence[str],
) -> Chart:
    """Loss over share, a family a colour, of the runs of the largest size."""
    groups = []
    for i, family in enumerate(families[:MOST]):
        rows = [r for r, row in enumerate(shares) if row[i] > 0 and math.isfinite(losses[r][i])]
        x = [shares[r][i] for r in rows]
        where = np.geomspace(min(x), max(x), 20)
        level, gamma = float(fit.law.e[i]), float(fit.law.gamma[i])
        line = [(float(at), level * float(at) ** -gamma) for at in where]
        groups.append(
            Points(family, x, [losses[r][i] for r in rows], line, (), [names[r] for r in rows])
        )
    hidden = len(families) - MOST
    facts = [f"{len(shares)} runs; lines are the law"]
    facts += [f"{hidden} more families are not drawn"] if hidden > 0 else []
    return scatter(groups, "share of the training data", "loss")._replace(facts=facts)


# Quantised training -----------------------------------------------------------------------------


class Pair(NamedTuple):
    """A quantised run, and what it ended above the runs of its size in full precision."""

    added: float
    n: float
    d: float
    group: float
    bits: float


def number_of(run: Run, settings: Sequence[str], name: str) -> float | None:
    """A setting by the form of its last part, of those that vary."""
    for key in settings:
        parts = key.split(".")
        if re.fullmatch(name, parts[-1].lower()) and parts[0] not in ELSEWHERE:
            cell = run.config.get(key)
            if isinstance(cell, float):
                return cell
    return None


def quantization(runs: Sequence[Run], finals: FinalLosses, settings: Sequence[str]) -> list[Said]:
    """What quantised runs lose against those of their size in full precision."""
    places = list(finals.values)
    groups = {at: number_of(runs[at], settings, GROUP) or 0.0 for at in places}
    bits = {at: number_of(runs[at], settings, BITS) or 0.0 for at in places}
    few = [at for at in places if groups[at] >= 2 or 0 < bits[at] < FULL]
    if not few:
        return []
    found = sizes(runs, places)
    if "parameters" not in found.of:
        text = "No law of quantisation: it takes runs that say their num_parameters."
        return [Said("unknown", text)]
    # Of GPTQ, -1 is a group as long as the row: quantised, and no size that a law could read.
    odd = {at for at in places if groups[at] < 0 or bits[at] < 0}
    n = dict(zip(found.places, found.of["parameters"], strict=True))
    d = dict(zip(found.places, found.of.get(found.data, [1.0] * len(found.places)), strict=True))
    whole: dict[tuple[str, str], list[float]] = {}
    for at in found.places:
        if at not in few and at not in odd:
            whole.setdefault((f"{n[at]:.3g}", f"{d[at]:.3g}"), []).append(finals.values[at])
    pairs = []
    for at in few:
        base = whole.get((f"{n[at]:.3g}", f"{d[at]:.3g}")) if at in n else None
        if base:
            above = finals.values[at] - sum(base) / len(base)
            pairs.append(Pair(above, n[at], d[at], groups[at], bits[at]))
    if not pairs:
        text = "No law of quantisation: no run in full precision has the size of a quantised one."
        return [Said("unknown", text)]
    full = [at for at in found.places if at not in few and at not in odd]
    by_bits = len({pair.bits for pair in pairs}) > 1
    by_group = len({pair.group for pair in pairs}) > 1
    try:
        if by_bits and by_group:
            raise Refused("the quantised runs differ in bits and in groups; vary one at a time.")
        if by_bits:
            losses = [finals.values[at] for at in full]
            law = law_of([n[at] for at in full], [d[at] for at in full], losses)
            return [bits_said(law, pairs)]
        return [group_said(pairs, found.data, finals.name)]
    except Refused as why:
        return [Said("unknown", f"No law of quantisation: {why}")]


def law_of(n: Sequence[float], d: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """A and alpha of ``A / N^alpha`` in the law of runs in full precision. Raises Refused."""
    try:
        if len(set(d)) > 1:
            both = fit_hoffmann(n, d, losses, resamples=0).law
            return both.a, both.alpha
        one = fit_power(n, losses, resamples=0).law
    except Refused as why:
        raise Refused(f"of the runs in full precision, {why}") from why
    return one.a, one.alpha


def bits_said(law: tuple[float, float], pairs: Sequence[Pair]) -> Said:
    """What share of the parameters each number of bits leaves."""
    a, alpha = law
    bits = [pair.bits for pair in pairs]
    fit = fit_bits([p.added for p in pairs], [a / p.n**alpha for p in pairs], bits, alpha)
    shares = []
    for one in sorted(set(bits)):
        low, high = np.quantile([fit.worth(one, gamma) for gamma in fit.resampled], (0.05, 0.95))
        share = f"{100 * fit.worth(one):.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        shares.append(f"of {one:g} bits {share}")
    text = (
        f"By {len(pairs)} pairs of runs quantised parameters are worth 1 - exp(-bits / "
        f"{fit.gamma:.3g}) of as many in full precision: {', '.join(shares)}."
    )
    evidence = f"arXiv 2411.04330, with the exponent of the others, {alpha:.2g}; the middle pair"
    return Said("note", text, evidence)


def group_said(pairs: Sequence[Pair], data: str, loss: str) -> Said:
    """The law, and what ten times the parameters make of it. Raises Refused."""
    above, sizes_n, sizes_d, groups = ([pair[i] for pair in pairs] for i in range(4))
    fit = fit_group_quantization(above, sizes_n, sizes_d, groups)
    law, terms = fit.law, []
    for name, words, value, drawn in (
        ("n", "parameters^", -law.gamma_n, [-one.gamma_n for one in fit.resampled]),
        ("d", f"{data}^", law.gamma_d, [one.gamma_d for one in fit.resampled]),
        ("group", "(log2 of the group)^", law.gamma_g, [one.gamma_g for one in fit.resampled]),
    ):
        if name not in fit.fixed:
            terms.append(f"{words}{value:.2g} ({between(drawn)})")
    largest = max(pairs, key=lambda pair: pair.n * pair.d)
    n, d, group = (torch.tensor(x, dtype=torch.float64) for x in largest[1:4])
    text = (
        f"Over {len(pairs)} pairs of runs quantisation adds to {loss} as {' '.join(terms)}: "
        f"{float(law.loss(n, d, group)):.3g} at {amount(largest.n)} parameters and groups of "
        f"{largest.group:g}"
    )
    if "n" not in fit.fixed:
        far = [float(one.loss(10 * n, d, group)) for one in fit.resampled]
        text += (
            f", and {float(law.loss(10 * n, d, group)):.3g} ({between(far)}) at ten times as many"
        )
    evidence = f"residuals of {100 * fit.residual:.2g} % of it; intervals by drawing pairs again"
    return Said("note", text + ".", evidence)
