# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Can the harness fail? Each kind of wrong result, and each way out, is reported as what it is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters.table import Adapter, Deviates, NotBuilt
from golden_harness.cases import Case, read
from golden_harness.compare import (
    GRADIENT_RTOL,
    VALUE_RTOL,
    Mismatch,
    Unbuilt,
    Within,
    difference,
)
from golden_harness.mutations import one_percent
from golden_harness.reads import Recorded
from golden_harness.runner import run

# Two rows whose loss is known: p_y = 1/2 and 1/4, so 1 - p_y = 1/2 and 3/4.
LOGITS, TARGET = [[0.0, 0.0], [0.0, math.log(3.0)]], [0, 0]
MAE = {"loss": 0.625, "grad": {"logits": [[-0.125, 0.125], [-0.09375, 0.09375]]}}


def raw(key: str, name: str, expected: Any, **fields: Any) -> dict[str, Any]:
    inputs = {"logits": LOGITS, "target": TARGET}
    return {"key": key, "case": name, "inputs": inputs, "params": {}, "expected": expected} | fields


def golden(folder: Path, *cases: dict[str, Any], name: str = "made.json", **top: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps({"cases": list(cases)} | top))
    return path


def one(folder: Path, case: dict[str, Any], **top: Any) -> Case:
    (made,) = read([golden(folder, case, **top)])
    return made


# -------------------------------------------------------------------------- the whole, from outside


def test_every_verdict_is_reported(tmp_path: Path) -> None:
    wrong_gradient = {"loss": 0.625, "grad": {"logits": [[-0.125, 0.125], [-0.09375, 0.0938]]}}
    clamped = {"logits": [[40.0, 0.0]], "target": [1]}
    cases = [
        raw("mae_noisy", "right", MAE),
        raw("mae_noisy", "wrong value", MAE | {"loss": 0.6250001}),
        raw("mae_noisy", "wrong gradient", wrong_gradient),
        raw("mae_noisy", "extra output", MAE | {"extra": {"weights": [1.0]}}),
        raw("no_such_loss", "a", MAE),
        raw("no_such_loss", "b", MAE),
        raw("gce", "clamp", {"loss": 1.4, "grad": {}}, params={"q": 0.7, "prob_clip": 1e-7})
        | {"inputs": clamped},
    ]
    path = golden(tmp_path, *cases)
    second = golden(tmp_path, raw("mae_noisy", "right", MAE), name="second.json")
    command = [sys.executable, "-m", "pytest", str(Path(__file__).with_name("test_golden.py"))]
    command += ["-p", "no:cacheprovider", "--golden", path.name, "--golden", str(second)]
    done = subprocess.run(
        command,  # in tmp_path, for "-m" puts the current folder before the installed package
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    out = done.stdout
    assert done.returncode == 1, out + done.stderr
    # Two tests a case: that it is met, and that it would notice a wrong product.
    assert "3 failed, 8 passed" in out
    assert "1 xfailed" in out
    report = out.split("fidelity to golden vectors")[1].split("short test summary")[0]
    lines = [line.strip() for line in report.splitlines()]

    def told(start: str) -> str:
        return next(line for line in lines if line.startswith(start))

    counts = "1 passed, 3 failed, 1 deviates, 0 not built, 2 without adapter"
    assert told("made.json") == f"made.json: {counts}"
    assert told("second.json").startswith("second.json: 1 passed, 0 failed, 0 deviates")
    assert "loss: 0.625 instead of 0.6250001" in told("failed: mae_noisy::wrong value")
    assert "grad.logits: 0.09375 instead of 0.0938" in told("failed: mae_noisy::wrong gradient")
    assert "weights: expected, but" in told("failed: mae_noisy::extra output")
    assert "clamps p_y at 1e-07" in told("deviates: gce::clamp:")
    assert told("without adapter") == "without adapter (1 keys, with cases): no_such_loss 2"


def test_a_file_without_cases_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='has no list "cases"'):
        read([golden(tmp_path, name="a.json", cases={})])


# ----------------------------------------------------------------------------------- the comparison


# Just inside and just outside of what is allowed, for both signs.
@pytest.mark.parametrize(("rtol", "sign"), [(VALUE_RTOL, 1), (GRADIENT_RTOL, 1), (1e-8, -1)])
def test_the_tolerance_is_the_one_stated(rtol: float, sign: int) -> None:
    assert difference("x", 2 * (1 + sign * 0.99 * rtol), 2.0, rtol, 0.0) is None
    assert difference("x", 2 * (1 + sign * 1.02 * rtol), 2.0, rtol, 0.0)


def test_a_small_entry_is_not_excused_by_a_large_one() -> None:
    assert difference("x", [1e3, 1e-3], [1e3, 1.00001e-3], 1e-7, 0.0)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (math.nan, 1.0),
        (1.0, "nan"),
        (math.inf, 1.0),
        (1e300, "inf"),
        (math.inf, "-inf"),
        ([1.0], 1.0),
        ([1.0, 2.0], [1.0]),
        ({"a": 1.0}, {"a": 1.0, "b": 2.0}),
    ],
)
def test_these_are_different(found: Any, wanted: Any) -> None:
    assert difference("x", found, wanted, 1e-7, 0.0)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (math.nan, "nan"),
        ([math.inf, -math.inf, 1.0], ["inf", "-inf", 1.0]),
        (torch.tensor([True, False]), [1, 0]),
        (torch.tensor(3), 3),
        ({"a": 1.0, "c": 0.0}, {"a": 1.0}),
        ([], []),
    ],
)
def test_these_are_equal(found: Any, wanted: Any) -> None:
    assert difference("x", found, wanted, 1e-7, 0.0) is None


def test_a_stated_bound_holds_on_its_side_only() -> None:
    low = Within(0.9, above=0.0, below=0.2)
    assert difference("x", low, 1.0, 0.0, 0.0) is None
    assert difference("x", low, 0.8, 0.0, 0.0)
    assert difference("x", low, 1.2, 0.0, 0.0)


# --------------------------------------------------------------------------------------- one case


def mae(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    p = inputs["logits"].softmax(-1).gather(1, inputs["target"][:, None])
    return {"loss": (1 - p).mean()}


def test_a_detached_loss_is_wrong_although_its_value_is_right(tmp_path: Path) -> None:
    case = one(tmp_path, raw("k", "c", MAE))
    run(case, Adapter(mae, ()))
    detached = Adapter(lambda i, p: {"loss": mae(i, p)["loss"].detach()}, ())
    with pytest.raises(Mismatch, match="no graph"):
        run(case, detached)


def test_an_input_that_must_get_no_gradient(tmp_path: Path) -> None:
    inputs = {"logits": LOGITS, "target": TARGET, "teacher": {"shape": [2], "data": [1.0, 2.0]}}
    expected = MAE | {"grad": MAE["grad"] | {"teacher": None}}  # type: ignore[operator]
    case = one(tmp_path, raw("k", "c", expected, inputs=inputs))
    run(case, Adapter(lambda i, p: [mae(i, p), i["teacher"]][0], ()))
    leaking = Adapter(lambda i, p: {"loss": mae(i, p)["loss"] + 0 * i["teacher"].sum() ** 2}, ())
    run(case, leaking)  # connected, but zero
    teacher = Adapter(lambda i, p: {"loss": mae(i, p)["loss"] + i["teacher"].sum() - 3}, ())
    with pytest.raises(Mismatch, match=r"grad\.teacher: expected none"):
        run(case, teacher)


def test_a_deviation_counts_only_where_the_case_is_not_met(tmp_path: Path) -> None:
    def deviating(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        raise Deviates("because", mae(inputs, params), {"loss": 0.625})

    run(one(tmp_path, raw("k", "met", MAE)), Adapter(deviating, ()))
    with pytest.raises(Deviates, match="because"):
        run(one(tmp_path, raw("k", "missed", MAE | {"loss": 0.7})), Adapter(deviating, ()))


def test_what_deviates_is_held_to_what_is_ours(tmp_path: Path) -> None:
    def deviating(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        found = mae(inputs, params) | {"other": 3.0}
        ours = (1.0 - inputs["logits"].softmax(-1)[:, 0]).mean()
        if "scale" in params:
            found["loss"] = found["loss"] * params["scale"]
        raise Deviates("because", found, {"loss": ours, "backward": ours})

    missed = MAE | {"loss": 0.7, "other": 3.0}
    with pytest.raises(Deviates):
        run(one(tmp_path, raw("k", "c", missed)), Adapter(deviating, ()))
    with pytest.raises(Mismatch, match=r"(?s)loss: .*grad\.logits: "):
        run(one(tmp_path, raw("k", "c", missed, params={"scale": 1.01})), Adapter(deviating, ()))
    with pytest.raises(Mismatch, match="other: 3 instead of 4"):  # which ours does not speak of
        run(one(tmp_path, raw("k", "c", missed | {"other": 4.0})), Adapter(deviating, ()))


def test_the_gradient_of_a_deviation_is_held_to_the_source_unless_ours_has_one(
    tmp_path: Path,
) -> None:
    def deviating(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        raise Deviates("because", mae(inputs, params), {"loss": 0.625})

    wrong = {"loss": 0.7, "grad": {"logits": [[-0.125, 0.125], [-0.09375, 0.0938]]}}
    with pytest.raises(Mismatch, match=r"grad\.logits"):
        run(one(tmp_path, raw("k", "c", wrong)), Adapter(deviating, ()))


def test_a_param_or_an_input_that_nobody_reads_fails_the_case(tmp_path: Path) -> None:
    def reading(*names: str) -> Adapter:
        def adapter(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
            _ = [params.get(name) for name in names], "p" in params
            return mae(inputs, params)

        return Adapter(adapter, ())

    case = one(tmp_path, raw("k", "c", MAE, params={"p": 2, "eps": 0.1, "note": "of no matter"}))
    run(case, reading("p", "eps"))
    for names in ((), ("p",), ("eps",)):
        with pytest.raises(Mismatch, match="did not read param"):
            run(case, reading(*names))
    more = raw("k", "c", MAE) | {"inputs": {"logits": LOGITS, "target": TARGET, "weight": [1.0]}}
    with pytest.raises(Mismatch, match="did not read input 'weight'"):
        run(one(tmp_path, more), reading())
    run(one(tmp_path, more | {"inputs_ref": "a data set of many keys"}), reading())


def test_reads_are_remembered_through_what_adapters_do_with_a_dict() -> None:
    params = Recorded({"a": 1, "b": 2, "c": 3})
    assert ({"a": 0, "d": 4} | params)["a"] == 1
    assert (params | {"b": 5})["b"] == 5
    assert params.unread() == ["c"]
    assert "c" in params
    assert params.unread() == ["c"]
    assert list(params.values()) == [1, 2, 3]
    assert params.unread() == []


def test_what_is_not_built_in_part_is_compared_for_the_rest(tmp_path: Path) -> None:
    def partly(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return mae(inputs, params) | {"metrics": Unbuilt("no metrics")}

    expected = MAE | {"metrics": {"clipped": 0.5}}
    with pytest.raises(NotBuilt, match="in part: no metrics"):
        run(one(tmp_path, raw("k", "c", expected)), Adapter(partly, ()))
    with pytest.raises(Mismatch, match="loss"):
        run(one(tmp_path, raw("k", "c", expected | {"loss": 0.7})), Adapter(partly, ()))


def test_a_change_of_one_percent_changes_every_number() -> None:
    for value in ([1.0, -2.0], [0.0, 0.0], [math.inf, 1.0], [math.nan, math.nan]):
        before = torch.tensor(value, dtype=torch.float64)
        assert difference("x", one_percent(before), before, 1e-7, 0.0)


def test_what_is_not_built_reaches_the_report(tmp_path: Path) -> None:
    def unbuilt(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        raise NotBuilt("norm l2")

    with pytest.raises(NotBuilt, match="norm l2"):
        run(one(tmp_path, raw("k", "c", MAE)), Adapter(unbuilt, ()))


def test_variants_reach_the_adapter(tmp_path: Path) -> None:
    def by_variant(inputs: Any, params: Any, variant: str) -> dict[str, Any]:
        return {"loss": mae(inputs, params)["loss"] * (1 if variant == "good" else 2)}

    case = one(tmp_path, raw("k", "c", MAE))
    run(case, Adapter(by_variant, ("good", "bad")), "good")
    with pytest.raises(Mismatch):
        run(case, Adapter(by_variant, ("good", "bad")), "bad")


# ------------------------------------------------------------------------- variations of the schema


def test_grad_of_sum_upstream_and_names_of_gradients(tmp_path: Path) -> None:
    def rows(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        return {"loss": inputs["x"] ** 2}

    inputs = {"x": [1.0, 2.0], "bias": None}
    for expected in (
        {"loss": [1.0, 4.0], "grad": {"x": [2.0, 4.0]}, "grad_of": "sum"},
        {"loss": [1.0, 4.0], "grad_x": [2.0, 4.0], "grad_bias": None},
        {"value": [1.0, 4.0], "grad_x_of_sum": [2.0, 4.0]},
    ):
        run(one(tmp_path, raw("k", "c", expected, inputs=inputs)), Adapter(rows, ()))
        wrong = json.loads(json.dumps(expected).replace("[2.0, 4.0]", "[2.0, 4.1]"))
        with pytest.raises(Mismatch, match=r"grad\.x"):
            run(one(tmp_path, raw("k", "c", wrong, inputs=inputs)), Adapter(rows, ()))
    weighted = Adapter(lambda i, p: rows(i, p) | {"backward": (rows(i, p)["loss"] * 3).sum()}, ())
    case = raw("k", "c", {"loss": [1.0, 4.0], "grad_x": [6.0, 12.0]}, inputs=inputs)
    run(one(tmp_path, case), weighted)


def test_inputs_by_reference_and_bare_expected_values(tmp_path: Path) -> None:
    case = raw("k", "c", {"value": 3.0, "grad": [1.0, 1.0]}, inputs={"ref": "d", "use": "p"}, tol=0)
    made = one(tmp_path, case, data={"d": {"p": [1.0, 2.0], "y": [0, 1]}})
    assert made.inputs == {"use": "p", "p": [1.0, 2.0], "y": [0, 1]}
    assert made.gradients == {"p": [1.0, 1.0]}
    assert one(tmp_path, raw("k", "c", [1, 2])).expected == {"value": [1, 2]}


def test_fields_beside_the_key_are_inputs_and_expected_values(tmp_path: Path) -> None:
    case = {"key": "k", "name": "n", "note": "", "z": [1.0, "-inf"], "rho": "inf", "sigma": 2.0}
    made = one(tmp_path, case)
    assert made.flat
    assert made.name == "n"
    assert made.tensors()["z"].tolist() == [1.0, -math.inf]
    run(made, Adapter(lambda i, p: {"rho": math.inf}, ()))  # sigma is nobody's business
    with pytest.raises(Mismatch):
        run(made, Adapter(lambda i, p: {"rho": 1.0}, ()))
    with pytest.raises(Mismatch, match="nothing that is expected"):
        run(made, Adapter(lambda i, p: {"other": 1.0}, ()))


def test_tensors_keep_their_kind(tmp_path: Path) -> None:
    inputs = {
        "indices": [[0, 1]],
        "mixed": [0, 0.5],
        "mask": [True, False],
        "empty": [],
        "shaped": {"dtype": "float64", "shape": [2, 1], "data": [1, 2]},
        "scalar": 2.5,
        "word": "logits",
        "none": None,
        "ragged": [[1], [1, 2]],
    }
    shapes = {"empty": [0, 3]}
    made = one(tmp_path, raw("k", "c", 0.0, inputs=inputs, shapes=shapes)).tensors()
    assert made["indices"].dtype == torch.int64
    assert made["mixed"].dtype == torch.float64
    assert made["mask"].dtype == torch.bool
    assert made["empty"].shape == (0, 3)
    assert made["shaped"].dtype == torch.float64
    assert made["shaped"].shape == (2, 1)
    assert (made["scalar"], made["word"], made["none"]) == (2.5, "logits", None)
    assert [list(row) for row in made["ragged"]] == [[1], [1, 2]]


def test_ids_are_unique_and_tell_files_apart(tmp_path: Path) -> None:
    case = raw("k", "c", 0.0)
    (tmp_path / "other").mkdir()
    files = [golden(tmp_path, case, case), golden(tmp_path / "other", case)]
    ids = [made.id for made in read(files)]
    assert len(set(ids)) == 3
    assert ids[1].endswith("::k::c#2")
    assert read(files[:1])[0].id == "made.json::k::c"
