# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of whole rows from hidden states and heads: which they are, and what chunks are made of.

Most losses read softmax statistics, which a pass makes without logits. Losses against a teacher
read every class of a row; those whose `Contract` says ``by_chunks`` get the rows a few at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_losses.named_tensors import NAMED_TENSORS
from lightning_losses.softmax import Chunks, Source, make_problem
from lightning_losses.term import Term

if TYPE_CHECKING:
    from lightning_losses.evaluation.rows import Rows

#: Logits, and the hidden states, head and bias that stand for them.
MADE_OF = {
    "logits": ("hidden", "head_weight", "head_bias"),
    "teacher_logits": ("teacher_hidden", "teacher_head_weight", "teacher_head_bias"),
}


def made_by_chunks(term: Term, tensors: Mapping[str, Any]) -> tuple[str, ...]:
    """Logits that the term cannot do without, that are not there, and that chunks can have."""
    contract = term.contract
    if contract is None or not contract.by_chunks:
        return ()
    # Of a word of the user's own nobody knows whether it has rows.
    if any(a.tensor not in NAMED_TENSORS for a in term.arguments):
        return ()
    return tuple(
        name
        for name, (hidden, *_) in MADE_OF.items()
        if name in term.required and name not in tensors and hidden in tensors
    )


def chunks_of(term: Term, rows: Rows, tensors: Mapping[str, Any]) -> Chunks:
    """The term's arguments in chunks of rows.

    Args:
        term: one with `made_by_chunks`.
        rows: the batch.
        tensors: what the term reads, statistics and its own target among it.

    Raises:
        ValueError: hidden states and head of one model do not go together.
    """
    made: dict[str, Source] = {}
    cut: dict[str, Tensor] = {}
    others: dict[str, Any] = {}
    absent = made_by_chunks(term, tensors)
    for parameter, name, _ in term.arguments:
        if name in absent:
            made[parameter] = _source(name, rows)
        elif name in tensors:
            by_row = NAMED_TENSORS[name].layout in ("rows", "vectors")
            (cut if by_row and isinstance(tensors[name], Tensor) else others)[parameter] = tensors[
                name
            ]
    return Chunks(made, cut, others, rows.num_rows)


def _source(name: str, rows: Rows) -> Source:
    if name == "logits":
        return Source(rows.problem(None), trained=True)
    tensors = rows.tensors
    try:
        problem = make_problem(
            hidden=tensors["teacher_hidden"].detach(),
            head_weight=_detached(tensors.get("teacher_head_weight")),
            head_bias=_detached(tensors.get("teacher_head_bias")),
            valid=rows.valid,
            softcap=tensors.get("teacher_softcap"),
        )
    except (TypeError, ValueError) as error:
        words = re.sub(r"\b(hidden|head_weight|head_bias|softcap)\b", r"teacher_\1", str(error))
        raise type(error)(words) from error
    return Source(problem, trained=False)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
