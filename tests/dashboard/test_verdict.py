# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A verdict says how a training ended, judges no noise, and does not tick what it cannot know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lightning_losses.dashboard.report.sentences import Said, measured
from lightning_losses.dashboard.report.verdict import verdict
from lightning_losses.dashboard.runs.run import (
    Ended,
    Run,
    Series,
    clock_of,
    log_of,
    series_of,
    trainings,
)

NAN = math.nan


def run_of(rows: list[dict[str, Any]], **more: Any) -> Run:
    """A run from rows as a logger has them."""
    log = log_of(rows)
    (parts,) = trainings(log)
    clock, epochs = clock_of(log, parts)
    return Run("x", series_of(log, parts), {}, [], clock=clock, epochs=epochs)._replace(**more)


def curve_of(name: str, values: Any, every: int = 1) -> list[dict[str, Any]]:
    return [{"step": every * at, "epoch": 0, name: float(v)} for at, v in enumerate(values)]


def falling(steps: int, epoch: int = 20) -> list[dict[str, Any]]:
    """A healthy loss with 2 % of noise."""
    noise = np.random.default_rng(0).standard_normal(steps)
    return [
        {"step": at, "epoch": at // epoch, "train/loss": 2 * math.exp(-at / 40) + 0.02 * noise[at]}
        for at in range(steps)
    ]


def about(run: Run, word: str) -> Said:
    """The only sentence with a word in it."""
    (one,) = [one for one in verdict(run) if word in one.text]
    return one


def tones(run: Run) -> set[str]:
    return {one.tone for one in verdict(run)}


# ---------------------------------------------------------------- how it ended


@pytest.mark.parametrize(
    ("reason", "step", "planned", "tone", "text"),
    [
        ("finished", 60, 60, "good", "Training finished at step 60 of 60 planned."),
        ("ValueError: stopped", 29, 60, "bad", "ended at step 29 of 60 planned: ValueError: sto"),
        ("stopped early", 40, 60, "note", "Training was stopped early at step 40 of 60"),
        ("interrupted", 40, 60, "bad", "Training ended at step 40 of 60 planned: interrupted."),
        ("out of time", 40, 60, "bad", "ended at step 40 of 60 planned: out of time."),
        ("finished", NAN, NAN, "good", "Training finished at step 60."),
    ],
)
def test_the_end_that_was_recorded(
    reason: str, step: float, planned: float, tone: str, text: str
) -> None:
    run = run_of(falling(60), ended=Ended(reason, step, planned, NAN, "ended.csv"))
    first = verdict(run)[0]
    assert first.tone == tone
    assert text in first.text
    assert first.evidence == "ended.csv"


def test_a_training_that_died_of_nan() -> None:
    rows = falling(50)
    for row in rows[37:]:
        row["train/loss"] = NAN
    run = run_of(rows)
    said = verdict(run)
    assert said[0].tone == "bad"
    assert "train/loss is NaN or infinite from step 37 to its end (step 49)" in said[0].text
    # That it had fallen until then is no good news.
    assert about(run, "train/loss fell").tone == "note"
    # One NaN from which it came back is told, and is no death.
    rows = falling(50)
    rows[37]["train/loss"] = NAN
    assert not any("died" in one.text for one in verdict(run_of(rows)))
    assert about(run_of(rows), "NaN or infinite from step 37").tone == "bad"


def test_a_log_that_ends_before_the_plan() -> None:
    """As compute_loss's own error leaves it: the NaN is never logged."""
    config = {"trainer.max_epochs": 6.0}
    cut = about(run_of(falling(50), config=config), "The log ends at step 50 of about 120")
    assert cut.tone == "bad"
    assert "train/loss, 50 values, steps 0 to 49" in cut.evidence
    whole = about(run_of(falling(120), config=config), "The log reaches the planned end")
    assert whole.tone == "good"
    assert "step 120 of about 120" in whole.text
    by_steps = run_of(falling(50), config={"max_steps": 50.0, "max_epochs": -1.0})
    assert about(by_steps, "The log reaches the planned end").tone == "good"


def test_an_end_of_which_nothing_is_known_is_not_ticked() -> None:
    one = verdict(run_of(falling(60)))[0]
    assert one.tone == "unknown"
    assert "How the training ended is not known" in one.text


# ---------------------------------------------------------------- losses


def test_rounding_noise_does_not_rise() -> None:
    noise = 1e-8 * np.random.default_rng(0).standard_normal(200)
    noise[-20:] += 3e-8
    run = run_of(curve_of("train/loss", noise))
    assert "bad" not in tones(run)
    assert about(run, "train/loss stayed within").tone == "unknown"


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_no_direction(seed: int) -> None:
    values = 1 + 0.3 * np.random.default_rng(seed).standard_normal(400)
    one = about(run_of(curve_of("train/loss", values)), "train/loss neither fell nor rose")
    assert one.tone == "unknown"


def test_a_loss_that_rises_is_bad_and_a_surrogate_is_not() -> None:
    up = np.linspace(1, 2, 100)
    assert about(run_of(curve_of("train/loss", up)), "train/loss rose from").tone == "bad"
    around = np.linspace(-0.5, 0.5, 100)
    assert about(run_of(curve_of("train/loss", around)), "both sides of 0").tone == "note"


@pytest.mark.parametrize("place", [40, 999, 1500])
@pytest.mark.parametrize("height", [2.0, 50.0])
def test_a_spike_of_one_step(place: int, height: float) -> None:
    noise = np.random.default_rng(0).standard_normal(1501)
    values = 2 * np.exp(-np.arange(1501) / 300) + 0.3 + 0.02 * noise
    values[place] = values[place] + height
    said = about(run_of(curve_of("train/loss", values)), "spiked once")
    assert said.tone == "bad"
    assert f"at step {place:,}" in said.text


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [60, 300, 3000])
def test_a_healthy_fall_has_no_spikes(seed: int, count: int) -> None:
    """Steep at first, with noise in proportion: log-normal, a tenth of the loss."""
    generator = np.random.default_rng(seed)
    fall = 0.1 + 2.3 * np.exp(-np.arange(count) / (count / 12))
    values = fall * generator.lognormal(0, 0.1, count)
    assert about(run_of(curve_of("train/loss", values)), "spikes").tone == "good"


def test_what_is_a_spike_and_what_is_not() -> None:
    generator = np.random.default_rng(3)
    steps = np.arange(600)
    text = (2.4 + 2.5 * np.exp(-steps / 40)) * generator.lognormal(0, 0.05, 600)
    slow = text + 2.3 * np.exp(-(steps - 400) / 25) * (steps >= 400)
    said = about(run_of(curve_of("train/loss", slow)), "spiked once")
    assert "at step 40" in said.text  # a recovery of 60 steps hides nothing
    # A few hard batches where the loss is nearly 0: ten times the median, as a healthy one has.
    near_0 = 0.02 * generator.lognormal(0, 1.3, 600)
    assert near_0[100:].max() > 0.2
    assert about(run_of(curve_of("train/loss", near_0)), "spikes").tone == "good"
    # A term that begins at step 300 lifts the loss for good.
    assert about(run_of(curve_of("train/loss", text + (steps >= 300))), "spikes").tone == "good"
    # A policy's surrogate, and a likelihood of densities that is below 0 with one bad step.
    crosses = 0.05 * generator.standard_normal(600) ** 3
    assert about(run_of(curve_of("train/loss", crosses)), "spikes cannot be told").tone == "unknown"
    density = -3 + 0.1 * generator.standard_normal(600)
    density[450] = 5.0
    assert "to 5 at step 450" in about(run_of(curve_of("train/loss", density)), "spiked once").text


def test_what_people_call_their_loss() -> None:
    rows = [{"step": at, "epoch": 0, "train_loss": 2 - at / 50} for at in range(50)]
    rows += [{"step": at, "epoch": 0, "val_loss": 2 - at / 50} for at in (24, 49)]
    run = run_of(rows)
    assert about(run, "train_loss fell from").tone == "good"
    assert about(run, "val_loss was lowest").tone == "good"
    assert about(run, "No spikes in train_loss").tone == "good"


def test_calls_by_name_are_judged_one_by_one() -> None:
    rows = [
        {"step": at, "epoch": 0, "train/critic/loss": at / 50, "train/generator/loss": 2 - at / 50}
        for at in range(50)
    ]
    run = run_of(rows)
    assert about(run, "train/critic/loss rose").tone == "bad"
    assert about(run, "train/generator/loss fell").tone == "good"
    assert not any("No training loss" in one.text for one in verdict(run))


def test_a_loss_that_was_not_logged_is_not_judged() -> None:
    one = about(run_of(curve_of("entropy/mean", [2, 1])), "No training loss is in the log")
    assert one.tone == "unknown"


def test_too_few_values_are_not_ticked() -> None:
    run = run_of(curve_of("train/loss", [3, 2, 1]))
    assert about(run, "Too few values to tell spikes").tone == "unknown"


# ---------------------------------------------------------------- entropy by its mode


POLICY = {"callbacks.entropy.mode": "policy"}
SUPERVISED = {"callbacks.entropy.mode": "supervised"}


@pytest.mark.parametrize(
    ("config", "tone", "words"),
    [
        (POLICY, "bad", "it has collapsed"),
        (SUPERVISED, "note", "in supervised training falling is success"),
        ({}, "note", "which of them this was is not in the config"),
    ],
)
def test_falling_entropy(config: dict[str, Any], tone: str, words: str) -> None:
    mean = [2.0, 1.5, 1.0, 0.5, 0.2]
    rows = [
        {"step": 10 * at, "epoch": 0, "entropy/mean": value, "entropy/ratio": value / 2}
        for at, value in enumerate(mean)
    ]
    one = about(run_of(rows, config=config), "Entropy")
    assert one.tone == tone
    assert words in one.text
    assert "entropy/mean, 5 values, steps 0 to 40" in one.evidence


def test_a_collapse_that_became_the_baseline_is_still_one() -> None:
    """From 3.97 to 0.29 nats before the baseline was frozen: the ratio never left 1."""
    mean = [3.97, 3.0, 1.0, 0.3, 0.29, 0.29, 0.3, 0.29]
    rows = [{"step": 5 * at, "epoch": 0, "entropy/mean": value} for at, value in enumerate(mean)]
    for row in rows[4:]:
        row["entropy/ratio"] = 1.0
    one = about(run_of(rows, config=POLICY), "Entropy")
    assert one.tone == "bad"
    assert "from 3.97 to 0.29 nats" in one.text


# ---------------------------------------------------------------- measurements


def test_a_value_that_was_repeated_counts_once() -> None:
    """20 measurements, each in 20 rows: r exceeded 1 in one of 20, not in 20 of 400."""
    r = np.random.default_rng(0).uniform(0.1, 0.9, 20)
    r[7] = 1.7
    run = run_of(curve_of("step_radius/r", np.repeat(r, 20)))
    assert (
        "r exceeded 1 in 1 of 20 measured steps (largest 1.7 at step 140)"
        in about(run, "r exceeded").text
    )
    assert "400 rows hold 20 measurements" in about(run, "rows hold").text
    # Values that differ are measurements, however many.
    assert len(measured(Series(np.arange(50.0), np.linspace(0, 1, 50))).values) == 50


def test_measurements_that_did_not_reach_the_log() -> None:
    rows = falling(120)
    for step in (49, 99):
        rows[step]["entropy/mean"] = 2.0 - step / 100
    run = run_of(rows, config={"callbacks.entropy.every_n_steps": 10.0})
    one = about(run, "EntropyMonitor was to measure every 10 steps")
    assert one.tone == "bad"
    assert "about 12 times; 2 measurements are in the log" in one.text
    for step in range(0, 120, 10):
        rows[step]["entropy/mean"] = 2.0 - step / 100
    run = run_of(rows, config={"callbacks.entropy.every_n_steps": 10.0})
    assert not any("was to measure" in one.text for one in verdict(run))


def test_a_step_that_a_controller_capped_did_not_exceed() -> None:
    rows = [
        {"step": at, "epoch": 0, "step_radius_controller/r": r, "step_radius_controller/scale": s}
        for at, (r, s) in enumerate([(0.4, 1.0), (22.6, 0.04), (0.6, 1.0)])
    ]
    one = about(run_of(rows), "measured steps")
    assert one.tone == "good"
    assert "largest 0.6" in one.text
    # What the controller says that it applied needs no such thought.
    rows[1]["step_radius_controller/applied_r"] = 0.9
    assert "largest 0.9 at step 1" in about(run_of(rows), "measured steps").text
    del rows[1]["step_radius_controller/applied_r"]
    # A scale of 1 left the step alone.
    rows[1]["step_radius_controller/scale"] = 1.0
    assert about(run_of(rows), "r exceeded 1 in 1 of 3").tone == "bad"


@pytest.mark.parametrize(("psi", "tone"), [(0.05, "good"), (0.2, "note"), (3.0, "bad")])
def test_drift(psi: float, tone: str) -> None:
    assert about(run_of(curve_of("drift/psi", [0.0, psi])), "drift/psi ended").tone == tone


@pytest.mark.parametrize(
    ("share", "tone", "step"),
    [(0.0, "good", None), (0.5, "note", 1), (0.89, "note", 1), (0.9, "bad", 2), (1.0, "bad", 2)],
)
def test_softmax_collapse_of_some_rows_is_a_note(share: float, tone: str, step: int | None) -> None:
    run = run_of(curve_of("logit_health/softmax_collapse", [0.0, min(share, 0.5), share]))
    said = about(run, "oftmax collapse")
    assert said.tone == tone
    assert step is None or f"from step {step} on" in said.text


def test_every_judgement_names_its_evidence() -> None:
    rows = falling(200)
    for row in rows[::10]:
        row |= {"entropy/mean": 1.0, "entropy/alert": 0, "step_radius/r": 0.1 + row["step"] / 1e4}
        row |= {"logit_health/softmax_collapse": 0, "drift/psi": 0.1, "attention_entropy/min": 1}
        row |= {"calibration/val/ece": 0.1, "val/loss": 1.0, "forecast/loss": 1.0}
    for one in verdict(run_of(rows)):
        assert one.evidence, one.text


def test_a_fall_before_an_error_is_no_good_news() -> None:
    ended = Ended("ValueError: logits hold NaN.", 60, 120, 1, "ended.csv")
    run = run_of(falling(60), ended=ended)
    assert verdict(run)[0].text.endswith("of 120 planned: ValueError: logits hold NaN.")
    assert about(run, "train/loss fell").tone == "note"
