# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One wrong tensor among right ones, and what may come of it: the number that is right, or words.

A mutation of a tensor knows what it means: the same numbers in another dress (`same`), something
else that is as good (`legal`), or nothing that a loss can make sense of. `judge` says what became
of it: right, guided (an error of ours that names a tensor), raw (torch's or Python's own) or silent
(a number that is not the right one).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from factory import CLASSES, build, inputs
from torch import Tensor, nn

import lightning_losses
from lightning_losses import Objective

OURS = Path(lightning_losses.__file__).parent.resolve()
OUTCOMES = ("right", "guided", "raw", "silent")

#: Their columns are any number, whatever else there is.
FREE_COLUMNS = {"features", "other_features", "sensitive", "concept_logits", "class_similarity"}
FREE_COLUMNS |= {"clusters"}
#: Sets of points, whose sizes may differ; reference alone; a variance for all entries of a row;
#: predictions of any length beside attributes of any length.
FREE_BY_KEY = {
    ("pulaski_energy", "estimate"), ("pulaski_energy", "reference"),
    ("pulaski_sinkhorn", "estimate"), ("pulaski_sinkhorn", "reference"),
    ("cs_qmi", "reference"), ("gaussian_nll", "variance"), ("distance_covariance", "logits"),
    ("aggregate_responses", "logits"), ("profit_aware_bce", "logits"),
}  # fmt: skip
#: Settings that say how many columns there are.
SETTINGS = ("class_counts", "num_classes", "num_bins")
#: How many there are is their own matter: a list of layers, a set of other rows.
FREE_ROWS = {"attention", "head_weight", "kernel_points", "ref_features", "ref_target"}


class Mutation(NamedTuple):
    """A tensor in the place of another."""

    label: str
    value: Any
    same: bool = False  # means what it meant: the number must not change
    legal: bool = False  # means something else, that is right too
    by_name: bool = False  # its own name must be in the error


def mutations(
    name: str, x: Tensor, named: dict[str, Any], target: str, key: str
) -> Iterator[Mutation]:
    """Every way in which one tensor is made wrong.

    Args:
        name: of the tensor.
        x: the tensor, of at least 2 rows.
        named: all tensors of the call.
        target: the first kind of target in the loss's contract.
        key: of the catalogue.
    """
    x = x.detach()
    rows = [n for n, v in named.items() if isinstance(v, Tensor)]
    alone = len(rows) == 1 or name in FREE_ROWS
    yield Mutation("list", x.tolist(), by_name=True)
    yield Mutation("numpy", x.numpy(), by_name=True)
    if len(rows) > 1:
        yield Mutation("meta", x.to("meta"), by_name=True)
    yield Mutation("number", 0.5, by_name=True)
    yield Mutation("0-dim", x.flatten()[0])
    if x.is_floating_point():
        yield Mutation("float32", x.float(), same=True)
        yield Mutation("bfloat16", x.bfloat16(), same=True)
        yield Mutation("int64", x.round().long(), legal=True)  # whole numbers are numbers too
        yield Mutation("complex", x.to(torch.complex128), by_name=True)
    else:
        yield Mutation("int32", x.int(), same=True)
        yield Mutation("int16", x.short(), same=True)
        yield Mutation("float", x.double(), same=True)
        yield Mutation("half way", x + 0.5, legal=target in ("binary", "real") and name == "target")
    yield Mutation("one row less", x[:-1], legal=alone)
    yield Mutation("one row", x[:1], legal=alone)
    yield Mutation("one row more", torch.cat([x, x[:1]]), legal=alone)
    yield Mutation("a dimension before", x[None], same=True)
    # Views of each sample are in the middle: these are as many as a row has numbers, of one number.
    views = name == "features"
    yield Mutation("a dimension after", x[..., None], same=not views, legal=views)
    if x.ndim > 1:
        yield Mutation("flat", x.flatten(), same=True)
    if x.ndim == 2 and x.shape[1] > 1:
        free = name in FREE_COLUMNS or (key, name) in FREE_BY_KEY
        more = free or (name == "logits" and not _partners(named))
        # Of a target that says 0 and 1 by chance one column is the binary form of the loss.
        two_forms = target in ("binary", "level") or key in ("dice",)
        yes_or_no = name == "logits" and two_forms and int(named["target"].max()) < 2
        yield Mutation("one column", x[:, :1], legal=free or yes_or_no)
        yield Mutation("one column more", torch.cat([x, x[:, :1]], 1), legal=more)


def _partners(named: dict[str, Any]) -> bool:
    """Whether another tensor has a column for each of the logits."""
    columns = {
        *("logits_adv", "teacher_logits", "next_logits", "bag_proportion", "solutions"),
    }
    return bool(columns & named.keys())


def judge(objective: Objective, named: dict[str, Any], name: str, mutation: Mutation,
          expected: Tensor) -> tuple[str, str]:  # fmt: skip
    """One of `OUTCOMES`, and the number or the error."""
    try:
        total = objective(**{**named, name: mutation.value}).total
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        # Or another that it does not go with, a setting, or the name that the loss has for it.
        ((_, term),) = objective.named_terms()
        own = {a.parameter for a in term.arguments}
        names = {name} if mutation.by_name else {*named, *own, *SETTINGS}
        said = any(word in text for word in names)
        ours = isinstance(error, (ValueError, TypeError)) and _raised_by_us(error)
        return ("guided" if ours and said else "raw"), text
    if mutation.same:
        low = isinstance(mutation.value, Tensor) and mutation.value.dtype == torch.bfloat16
        near = torch.allclose(
            total.double(), expected, rtol=0.1 if low else 1e-4, atol=5e-2 if low else 1e-5
        )
        return ("right" if near else "silent"), f"{float(total.detach())} for {float(expected)}"
    return (
        "right" if mutation.legal else "silent"
    ), f"{float(total.detach())} for {float(expected)}"


def _raised_by_us(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and _ours(Path(trace.tb_frame.f_code.co_filename))


def _ours(file: Path) -> bool:
    file = file.resolve()
    return file.is_relative_to(OURS) or file.is_relative_to(OURS.parents[1] / "kernels")


def first_kind(objective: Objective) -> str:
    """The first kind of target that the objective's only term takes."""
    ((_, term),) = objective.named_terms()
    reader: nn.Module = term.loss if term.target_transform is None else term.target_transform
    kind: str = reader.contract.target[0]  # type: ignore[union-attr]
    return kind


def case(key: str, rows: int = 6, classes: int = CLASSES, seed: int = 0) -> dict[str, Any]:
    """Right tensors, in float64."""
    return inputs(build(key, classes), rows=rows, classes=classes, seed=seed)
