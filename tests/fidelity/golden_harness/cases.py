# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Reads golden files: every variation of the schema becomes the same `Case`."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# What no loss reads: who made a case, and how closely it is to be met.
BOOKKEEPING = {
    "set", "key", "case", "name", "note", "notes", "source", "provenance", "registry_key", "checks",
    "shapes", "dtype", "rtol", "atol", "tol", "quirk", "inputs_ref", "crosschecked", "input_dtype",
    "reference",
}  # fmt: skip
# What a code gives where it deviates from its formula, and what made-up data were made from.
NO_TARGET = re.compile(r"official_.*|count_.+|mammoth_.*|true")
# Where fields stand beside the key, these are gradients of the (mean) loss.
FLAT_GRADIENTS = {"grad": "logits", "grad_mean": "logits"}


@dataclass(frozen=True)
class Case:
    """One golden case: plain JSON values, tensors are made anew for each run."""

    file: str
    key: str
    name: str
    inputs: dict[str, Any]
    params: dict[str, Any]
    expected: dict[str, Any]  # values by name
    gradients: dict[str, Any]  # by input; None: that input must get no gradient
    flat: bool = False  # inputs and expected values are one heap; adapters return what is theirs
    rtol: float | None = None
    atol: float | None = None
    shared_inputs: bool = False  # a data set of many keys, none of which needs all of it

    @property
    def id(self) -> str:
        """``file::key::case``, unique among the cases of one reading."""
        return f"{self.file}::{self.key}::{self.name}"

    def tensors(self) -> dict[str, Any]:
        """The inputs with number lists as tensors; gradients enabled where they are asked for."""
        made = {name: as_tensors(value) for name, value in self.inputs.items()}
        for name in self.gradients:
            value = torch.as_tensor(made[name], dtype=torch.float64)
            made[name] = value.clone().requires_grad_()
        return made


def read(files: list[Path]) -> list[Case]:
    """All cases of some golden files, in order. Raises ValueError if a file is none."""
    labels = Counter(path.name for path in files)
    found: list[Case] = []
    for path in files:
        label = path.name if labels[path.name] == 1 else str(path)
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
            raise ValueError(f'{path} is no golden file: it has no list "cases".')
        data = content.get("data", {})
        seen: Counter[str] = Counter()
        for position, raw in enumerate(content["cases"]):
            name = str(raw.get("case", raw.get("name", position)))
            seen[f"{raw['key']}::{name}"] += 1
            repeat = seen[f"{raw['key']}::{name}"]
            found.append(_case(label, name if repeat == 1 else f"{name}#{repeat}", raw, data))
    return found


def _case(file: str, name: str, raw: dict[str, Any], data: dict[str, Any]) -> Case:
    flat = not isinstance(raw.get("inputs"), dict) or "expected" not in raw
    inputs = {k: v for k, v in raw.items() if k not in BOOKKEEPING} if flat else dict(raw["inputs"])
    shared = "ref" in inputs or "inputs_ref" in raw
    if "ref" in inputs:
        inputs = data[inputs.pop("ref")] | inputs
    shapes = raw.get("shapes", {})
    for field in inputs.keys() & shapes.keys():  # [] does not tell (0,) from (0, 5)
        if isinstance(inputs[field], list):
            inputs[field] = {"shape": shapes[field], "data": inputs[field]}
    wanted = dict(inputs) if flat else raw["expected"]
    if isinstance(wanted, dict) and "state_dict" in wanted:
        # A network's input and weights, noted where it was run; gradients are of its weights.
        wanted = dict(wanted)
        inputs |= {name: wanted.pop(name) for name in ("state_dict", "temp_arg")}
        wanted |= {f"grad of {name}": grad for name, grad in wanted.pop("grad").items()}
    expected, gradients = _expected(wanted, inputs, flat)
    tolerance = raw.get("atol", raw.get("tol"))
    params = raw.get("params") or raw.get("options") or {}
    return Case(
        file,
        raw["key"],
        name,
        inputs,
        params,
        expected,
        gradients,
        flat,
        raw.get("rtol"),
        tolerance,
        shared,
    )


def _expected(
    raw: Any, inputs: dict[str, Any], flat: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Expected values, and expected gradients by input."""
    if not isinstance(raw, dict):
        return {"value": raw}, {}
    values = {
        k: v for k, v in raw.items() if k not in ("grad", "extra", "grad_of", "loss_used_for_grads")
    }
    values |= raw.get("extra", {})
    gradients: dict[str, Any] = {}
    if flat:
        gradients = {i: raw[f] for f, i in FLAT_GRADIENTS.items() if f in raw and i in inputs}
    elif isinstance(raw.get("grad"), dict):
        gradients = dict(raw["grad"])
    elif "grad" in raw:
        gradients = {inputs.get("use", "logits"): raw["grad"]}
    for field in list(values):
        if not flat and NO_TARGET.fullmatch(field):
            del values[field]
            continue
        match = re.fullmatch(r"grad_(.+?)(_of_sum)?", field)
        # Batches of several steps are no one tensor; their gradients are values of the adapter's.
        given = inputs.get(match[1], ...) if match else ...
        if match and (given is None or isinstance(as_tensors(given), Tensor)):
            gradients[match[1]] = values.pop(field)
    # An option that the case leaves out has no gradient to speak of.
    return values, {name: g for name, g in gradients.items() if inputs.get(name) is not None}


def as_tensors(value: Any) -> Any:
    """JSON as an adapter wants it: integer lists int64, other number lists float64."""
    if isinstance(value, dict) and "data" in value:
        made = as_tensors(value["data"])
        made = made if isinstance(made, Tensor) else torch.as_tensor(made, dtype=torch.float64)
        if value.get("dtype"):
            made = made.to(getattr(torch, str(value["dtype"]).removeprefix("torch.")))
        return made.reshape(value["shape"]) if value.get("shape") is not None else made
    if isinstance(value, dict):
        return {k: as_tensors(v) for k, v in value.items()}
    if isinstance(value, list):
        leaves = list(_leaves(value))
        if all(isinstance(x, bool) for x in leaves) and leaves:
            return _tensor(value, torch.bool)
        if all(isinstance(x, int) for x in leaves) and leaves:
            return _tensor(value, torch.int64)
        if all(isinstance(number(x), (int, float)) for x in leaves):
            return _tensor(value, torch.float64)
        return [as_tensors(v) for v in value]
    return number(value)


def _leaves(value: Any) -> Any:
    if isinstance(value, list):
        for v in value:
            yield from _leaves(v)
    else:
        yield value


def _tensor(value: list[Any], dtype: torch.dtype) -> Any:
    try:
        return torch.tensor(_numbers(value), dtype=dtype)
    except ValueError:  # ragged
        return [as_tensors(v) for v in value]


def _numbers(value: Any) -> Any:
    return [_numbers(v) for v in value] if isinstance(value, list) else number(value)


def number(value: Any) -> Any:
    """JSON has no inf and nan, so a file may write them as strings."""
    if isinstance(value, str) and value.lower().lstrip("+-") in ("inf", "infinity", "nan"):
        return float(value)
    return value
