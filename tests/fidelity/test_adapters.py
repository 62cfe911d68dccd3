# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do adapters hand everything on, and is what they return the product's?

One case a key, of the project's own copy of the golden files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import ADAPTERS
from adapters.table import NotBuilt
from golden_harness.cases import Case, read
from golden_harness.compare import Unbuilt
from golden_harness.mutations import wrong_product
from golden_harness.runner import REMARKS, Outcome, outcome
from golden_harness.varied import louder, numbers, variations

FILES = sorted((Path(__file__).parents[1] / "golden").glob("*.json"))
CASES: dict[str, list[Case]] = {}
for one in read(FILES):
    if one.key in ADAPTERS:
        CASES.setdefault(one.key, []).append(one)

#: What the product keeps as a state or sets at construction, and adapters read there.
STATE = {
    ("adaptive_entropy_coef", "coef_and_enabled_after"),
    ("aldr_kl", "lambda_after"),
    ("balance.dwa", "weights_by_epoch"),
    ("class_balanced", "weights"),
    ("forecast.nmt_bivariate", "optimal_share_encoder"),
    ("fourier_head", "reg"),
    ("meco", "u_new"),
    ("mirostat", "mu_after"),
    ("mirostat_v1", "mu_by_step"),
    ("mirostat_v1", "s_by_step"),
    ("mirostat_v2", "mu_by_step"),
    ("mirostat_v2", "s_by_step"),
    ("sigma_reparam", "u_after"),
    ("truncated_gce", "weight_after_update"),
    ("unpg", "all_negatives"),  # a property of the batch
}

#: Values that are 0 in every case, which the wrong product makes 0 as well; tested elsewhere.
NOUGHT = {("cov_at_5_risk", "value")}

#: What the product is given, and a ratio of two numbers that are off alike.
ALIKE = {
    ("balance.gradnorm", "norms"),
    ("forecast.hoffmann", "exponent_D"),
    ("forecast.hoffmann", "exponent_N"),
    ("forecast.hoffmann", "tokens_per_parameter"),
}

#: What was chosen, or not: numbers a little off choose the same. And what is 0 in the first case.
CHOSEN = {
    ("dco", "direct_grad_logits"),
    ("eata_weight", "keep"),
    ("mirostat_v1", "k_by_step"),
    ("mirostat_v1", "token_by_step"),
    ("mirostat_v2", "k_by_step"),
    ("mirostat_v2", "token_by_step"),
    ("sampling", "kept"),
    ("sampling", "number_kept"),
    ("unpg", "kept_negatives"),
}

#: Parameters that change nothing in the project's cases, and why that is right.
INACTIVE = {
    ("adaptive_margin_softmax", "min_scale"): "a floor that no case reaches",
    ("margin_calibration", "sin_floor"): "a floor that no case reaches",
    ("adaptive_entropy_coef", "max"): "a bound that no case reaches",
    ("adaptive_entropy_coef", "min"): "a bound that no case reaches",
    ("balance.aggregator", "norm_eps"): "below the length of every gradient of the cases",
    ("f_divergence_alpha", "iw_clip"): "not built where it binds",
    ("gce", "prob_clip"): "ours does not clamp",
    ("grpo_trl", "max_completion_length"): "of dr_grpo alone",
    ("kl_cov", "k_percent"): "at most one token of eleven either way",
    ("steer", "omega_floor"): "below the largest omega of the cases",
    ("symmetric_ce", "prob_clip"): "ours does not clamp",
}


def made(case: Case) -> Outcome:
    adapter = ADAPTERS[case.key]
    return outcome(case, adapter, (adapter.variants or (None,))[0])


def first_built(key: str) -> Outcome:
    for case in CASES[key]:
        try:
            return made(case)
        except NotBuilt:
            continue
    pytest.skip("no case of it is built")


@pytest.mark.parametrize("key", CASES)
def test_values_are_those_of_the_product(key: str) -> None:
    """With a wrong product each value changes, or an error is raised on the way."""
    right = first_built(key)
    try:
        with wrong_product():
            wrong = made(right.case)
    except Exception:
        return
    both = {"value": "loss"}
    for name in right.case.expected:
        name = name if name in right.found else both.get(name, name)
        if (
            name not in right.found
            or isinstance(right.found[name], Unbuilt)
            or (key, name) in STATE | NOUGHT | ALIKE | CHOSEN
        ):
            continue
        before, after = (numbers(only_value(o, name)) for o in (right, wrong))
        assert before.shape != after.shape or not torch.allclose(before, after, 1e-4, 1e-9), name


def only_value(made: Outcome, name: str) -> Any:
    case = Case("", "", "", {}, {}, {}, {})
    return Outcome(case, {}, {name: made.found[name]})


PARAMS = {(key, name): case for key in CASES for case in CASES[key] for name in case.params}


@pytest.mark.parametrize(("key", "name"), PARAMS)
def test_every_param_is_handed_on(key: str, name: str) -> None:
    """Another value changes the result, or is refused as not built or by the product itself."""
    if name in REMARKS or (key, name) in INACTIVE:
        return
    tried = 0
    for case in [c for c in CASES[key] if name in c.params]:
        for start in (case, louder(case)):
            try:
                before = numbers(made(start))
            except (NotBuilt, ValueError):
                continue
            for other in variations(start, name):
                tried += 1
                try:
                    after = numbers(made(other))
                except (NotBuilt, ValueError, RuntimeError):  # RuntimeError: shapes of weights
                    return
                if before.shape != after.shape or not torch.equal(before, after):
                    return
    assert not tried, f"{name} is read, but no other value of it changes anything"
