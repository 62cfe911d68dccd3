# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a comparison says over its runs: laws of their sizes, a sweep of learning rates."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from lightning_losses.dashboard.charts.vega import vega
from lightning_losses.dashboard.report.compare import comparison, over_runs
from lightning_losses.dashboard.report.page import render
from lightning_losses.dashboard.report.run_laws import frontier
from lightning_losses.dashboard.runs.run import Ended, Run, Series
from lightning_losses.metrics.training_curve.lr_sensitivity import lr_sensitivity


def run(loss: float, name: str = "val/loss", start: float = 9.0, **config: Any) -> Run:
    """A run that ended there; settings are named with `__` for a dot."""
    settings = {key.replace("__", "."): value for key, value in config.items()}
    label = " ".join(f"{key}={value}" for key, value in settings.items())
    steps = np.array([0.0, 1.0])
    curve = np.array([start, loss])
    kept = np.isfinite(curve)
    series = Series(steps[kept], curve[kept], steps[~kept])
    return Run(label, {"train/loss": series, name: series}, {}, [], config=settings)


def law(n: float, d: float) -> float:
    return float(1.8 + 300 / n**0.33 + 900 / d**0.31)


def said(runs: Sequence[Run]) -> tuple[str, list[Any]]:
    pictures: list[Any] = []
    lines, cards = over_runs(runs, pictures)
    assert len(cards) == len(pictures)
    return " ".join(one.text for one in lines), pictures


def grid(**more: Any) -> list[Run]:
    luck = random.Random(0)
    return [
        run(law(n, d) * (1 + 0.002 * luck.gauss(0, 1)), num_parameters=n, data__tokens=d, **more)
        for n in (3e6, 1e7, 1e8, 3e8)
        for d in (1e8, 1e9, 1e10)
    ]


def test_a_law_of_parameters_and_tokens() -> None:
    text, pictures = said(grid())
    assert "Over 12 runs val/loss follows 1.8" in text
    # The best allocation by the law that made the losses, of ten times 6 * 3e8 * 1e10.
    both = 0.33 + 0.31
    best = (0.33 * 300 / (0.31 * 900)) ** (1 / both) * (3e19) ** (0.31 / both)
    found = re.search(
        r"best spent on ([\d.]+)M parameters \(90 % .*?: ([\d.]+)M to ([\d.]+)M", text
    )
    assert found is not None
    assert float(found[2]) < best / 1e6 < float(found[3])
    assert [name for name, _, _ in pictures] == ["law_both"]  # of one alone: four sizes, five runs
    (_, chart, _) = pictures[0]
    assert [one["name"] for one in chart.data["series"]] == [
        "100M tokens",
        "1B tokens",
        "10B tokens",
    ]
    assert vega(chart) is not None


def test_the_page_holds_it_first() -> None:
    runs = grid()
    page, pictures = comparison(runs)
    assert page.sections[0].name == "Over the runs"
    html = render(page, [chart.data for _, chart, _ in pictures if chart.data], runs)
    assert '"kind":"scatter"' in html


def test_a_law_of_one_size_and_its_interval() -> None:
    luck = random.Random(1)
    sizes = [1e4, 3e4, 1e5, 3e5, 1e6, 3e6]
    losses = [0.5 + 40 / n**0.5 * (1 + 0.01 * luck.gauss(0, 1)) for n in sizes]
    runs = [run(loss, samples_seen=n) for n, loss in zip(sizes, losses, strict=True)]
    text, pictures = said(runs)
    low, high = (float(x) for x in re.findall(r"90 % between ([\d.]+) and ([\d.]+)\.", text)[0])
    assert low < 0.5 + 40 / 3e7**0.5 < high
    assert [name for name, _, _ in pictures] == ["law_samples"]
    assert len(pictures[0][1].data["series"][0]["band"]) == 40


def test_compute_is_read_along_the_frontier() -> None:
    assert frontier([1, 2, 3, 3, 4], [5, 6, 3, 2, 2]) == [0, 3]
    runs = [run(1 + 10 / c**0.3, flops=c) for c in (1e3, 1e4, 1e5, 1e6, 1e7)]
    text, _ = said([*runs, run(9.0, flops=1e7)])
    assert "Over 5 runs, no cheaper run being better, val/loss follows 1 + " in text


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([run(4 - i, num_parameters=1e6 * i) for i in (1, 2, 3)], "3 runs are too few"),
        ([run(9 / i, num_parameters=1e6 + i) for i in range(1, 7)], "less than a factor of 10"),
        ([run(1 + i, num_parameters=10.0**i) for i in range(6)], "does not fall"),
        ([run(2.0, num_parameters=1e6, tokens=1e9, seed=i) for i in range(4)], "all of them have"),
        (
            [run(1 / i, tokens=10.0**i, loss__ce__weight=i) for i in range(1, 7)],
            "not the same loss",
        ),
        (
            [run(1 / i, tokens=10.0**i if i < 3 else None) for i in range(1, 7)],
            "2 of 6 runs",
        ),
    ],
)
def test_it_says_why_there_is_no_law(runs: list[Run], words: str) -> None:
    text, pictures = said(runs)
    assert text.startswith("No law")
    assert words in text
    assert pictures == []


def test_nothing_is_said_without_sizes() -> None:
    # The samples of a monitor are none that a run has seen.
    assert said([run(1 / i, callbacks__x__samples=10.0**i, seed=i) for i in range(1, 9)])[0] == ""


def test_runs_that_died_are_left_out_and_the_best_of_a_size_is_fitted() -> None:
    runs = [run(1 + 10 / n**0.3, num_parameters=n, wd=0.1) for n in (1e3, 1e4, 1e5, 1e6, 1e7)]
    worse = [run(3 + 10 / n**0.3, num_parameters=n, wd=0.0) for n in (1e3, 1e4)]
    text, _ = said([*runs, *worse, run(math.nan, num_parameters=1e8, wd=0.1)])
    assert "Over 5 runs, val/loss follows 1 + " in text
    assert "the best by val/loss is fitted, for they differ in wd" in text
    assert "Left out of the laws: num_parameters=100000000.0 wd=0.1 (The training died" in text


def sized(n: float, rows: float, reason: str = "finished", **more: Any) -> Run:
    """A run whose size nobody logged: `ended.csv` has counted it."""
    loss = 1.8 + 300 / n**0.33 + 900 / rows**0.31
    return run(loss, **more)._replace(ended=Ended(reason, 2, 2, 0, "ended.csv", n, rows))


def test_sizes_that_nobody_logged_are_those_that_were_counted() -> None:
    sizes = (1e5, 3e5, 1e6, 3e6, 1e7)
    text, pictures = said([sized(n, 1e9, width=n) for n in sizes])
    assert "Over 5 runs, val/loss follows" in text
    assert [name for name, _, _ in pictures] == ["law_parameters"]
    text, pictures = said([sized(n, d) for n in (1e6, 1e7, 1e8) for d in (1e8, 1e9, 1e10)])
    assert "parameters)^0.33" in text
    assert "rows)^0.31" in text
    # What was said goes first: here other numbers, of data, than were counted.
    text, _ = said([sized(1e6, 1e9, tokens=t) for t in (1e6, 1e7, 1e8)])
    assert text == "No law of tokens: 3 runs are too few for three unknowns: it takes 5 at least."


def test_counted_sizes_that_nobody_varied_are_not_spoken_of() -> None:
    assert said([sized(1e6 + i, 1e9 + i, opt=i) for i in range(6)])[0] == ""
    # How many rows a run saw that stopped early follows from its loss, not the other way round.
    early = [sized(1e6, 10.0**i, "stopped early", opt=i) for i in range(4, 10)]
    assert said(early)[0] == ""


MIXTURES = ((0.2, 0.5, 0.3), (0.5, 0.2, 0.3), (0.3, 0.2, 0.5), (0.4, 0.4, 0.2), (0.1, 0.3, 0.6))


def mixed(shares: Sequence[float], n: float = 1e6, noise: float = 0.0) -> Run:
    """A run of the multilingual law, arXiv 2410.12883."""
    config: dict[str, Any] = {
        f"data__mixture__{name}": p for name, p in zip("abc", shares, strict=True)
    }
    one = run(3.0, num_parameters=n, seed=noise, **config)
    for name, p, gamma, level in zip("abc", shares, GAMMA, (2.0, 1.5, 3.0), strict=True):
        loss = (level + 40 / n**0.4) * p**-gamma * (1 + noise)
        one.series[f"val/{name}/loss"] = Series(np.array([0.0, 1.0]), np.array([9.0, loss]))
    return one


GAMMA = (0.05, 0.1, 0.2)


def test_the_best_mixture() -> None:
    runs = [mixed(shares, n, luck) for shares in MIXTURES for n, luck in ((1e6, 0.0), (1e7, 0.0))]
    text, pictures = said(runs)
    assert "Over 10 runs of 2 sizes the loss of each family" in text
    found = re.findall(r"([abc]) ([\d.]+) \([\d.]+ to [\d.]+\)", text)
    assert [(name, float(value)) for name, value in found] == [*zip("abc", GAMMA, strict=True)]
    # Relative to its own scale, loss_i is p^-gamma: gamma_i p_i^(-1 - gamma_i) are all the same.
    best = [int(x) / 100 for x in re.findall(r"[abc] (\d+) % \(", text)]
    pulls = [g * p ** (-1 - g) for g, p in zip(GAMMA, best, strict=True)]
    assert max(pulls) < 1.1 * min(pulls)  # whole percents
    assert [name for name, _, _ in pictures] == ["law_mixture"]
    (_, chart, _) = pictures[0]
    assert [one["name"] for one in chart.data["series"]] == ["a", "b", "c"]
    assert len(chart.data["series"][0]["x"]) == 5  # of the largest size
    assert vega(chart) is not None


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([mixed(shares) for shares in MIXTURES[:3]], "3 runs with a are too few"),
        ([mixed((0.3 + i / 100, 0.3, 0.4 - i / 100)) for i in range(6)], "within a factor of 1.17"),
        (
            [mixed((p, 1 - p - 0.01, 0.01), noise=10 * p) for p in (0.1, 0.3, 0.5, 0.9)],
            "of a does not",
        ),
    ],
)
def test_it_says_why_there_is_no_law_of_the_mixture(runs: list[Run], words: str) -> None:
    text, pictures = said(runs)
    assert "No law of the mixture: " in text
    assert words in text
    assert pictures == []


def test_a_mixture_that_says_nothing_costs_no_report() -> None:
    runs = [mixed(shares) for shares in MIXTURES]
    for one in runs:  # as a config has them that quotes its numbers
        one.config.update({key: str(value) for key, value in one.config.items() if "mix" in key})
    assert "No law of the mixture: no run says its shares as numbers" in said(runs)[0]


def quantised(n: float, group: float | None) -> Run:
    more = 0.0 if group is None else 0.4 * math.log2(group) ** 1.1 / n**0.19 if group > 0 else 1.0
    return run(2 + 5e3 / n**0.5 + more, num_parameters=n, quantizer__group_size=group)


def test_what_quantised_training_costs() -> None:
    runs = [quantised(n, group) for n in (1e6, 1e7, 1e8) for group in (None, 32.0, 128.0)]
    text, _ = said(runs)
    assert "Over 6 pairs of runs quantisation adds to val/loss as parameters^-0.19 (" in text
    assert "(log2 of the group)^1.1 (" in text
    added = 0.4 * 5**1.1 / 1e9**0.19
    assert re.search(rf"and {added:.3g} \(.*\) at ten times as many", text)
    # A group as long as the row (GPTQ's -1) is quantised too, and no run to measure others by.
    assert text in said([*runs, *(quantised(n, -1.0) for n in (1e6, 1e7, 1e8))])[0]
    few, _ = said(runs[:4] + runs[6:7])
    assert "No law of quantisation: 2 pairs of a quantised run" in few
    alone, _ = said([quantised(n, g) for n, g in ((1e6, 32.0), (1e7, 32.0), (1e8, 64.0))])
    assert "no run in full precision has the size" in alone


def test_what_parameters_of_few_bits_are_worth() -> None:
    def of_bits(n: float, bits: float) -> Run:
        worth = 1 if bits == 16 else 1 - math.exp(-bits / 2.5)
        return run(2 + 50 / (n * worth) ** 0.3, num_parameters=n, quant__weight_bits=bits)

    runs = [of_bits(n, 16.0) for n in (1e5, 3e5, 1e6, 1e7, 1e8)]
    text, _ = said([*runs, *(of_bits(n, bits) for n in (1e6, 1e7) for bits in (3.0, 4.0))])
    assert "By 4 pairs of runs quantised parameters are worth 1 - exp(-bits / 2.5)" in text
    assert f"of 4 bits {100 - 100 * math.exp(-4 / 2.5):.0f} %" in text
    text, _ = said([*runs[:3], *(of_bits(1e6, bits) for bits in (3.0, 4.0, 5.0))])
    assert "No law of quantisation: of the runs in full precision, 3 runs are too few" in text
    mixed_up = [
        quantised(1e6, group)._replace(
            config={"num_parameters": 1e6, "group_size": group, "bits": b}
        )
        for group, b in ((32.0, 4.0), (64.0, 3.0), (None, None))
    ]
    assert "differ in bits and in groups" in said(mixed_up)[0]


RATES = (1e-4, 1e-3, 1e-2, 1e-1)


def swept(losses: Mapping[str, Sequence[float]], rates: Sequence[float] = RATES) -> list[Run]:
    return [
        run(loss, optimizer__lr=rate, opt=name, seed=seed)
        for name, own in losses.items()
        for rate, loss in zip(rates, own, strict=True)
        for seed in (0, 1)
    ]


def test_a_sweep_of_learning_rates_by_arm() -> None:
    losses = {"adam": (0.5, 0.3, 0.4, 0.8), "sgd": (2.0, 1.0, 0.2, math.nan)}
    text, pictures = said(swept(losses))
    for name, own in losses.items():
        expected = lr_sensitivity(own, 9.0, RATES)
        assert re.search(rf"opt={name}: .* it is {expected:.3g} higher on average", text)
    assert text.index("opt=adam") < text.index("opt=sgd")
    ((name, chart, _),) = pictures
    assert name == "lr_sensitivity"
    assert chart.data["series"][1]["y"] == [2.0, 1.0, 0.2, 9.0]
    assert "edge of the sweep" not in text


def test_a_sweep_says_what_does_not_compare() -> None:
    text, _ = said([*swept({"a": (3, 2, 1)}, RATES[:3]), *swept({"b": (3, 1, 2)}, RATES[1:])])
    assert "over different learning rates" in text
    assert "The best is at the edge of the sweep" in text
    assert said(swept({"a": (3, 2)}, RATES[:2]))[0] == ""  # two rates are no sweep
