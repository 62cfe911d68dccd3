# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What terms need and the step did not pass; all that they read, in a form fit to be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.evaluation.chunks import MADE_OF, made_by_chunks
from lightning_losses.evaluation.rows import Rows
from lightning_losses.evaluation.validation import (
    check,
    missing_tensors,
    refuse_given_statistics,
    refuse_options_with_raw_logits,
    refuse_some_classes,
)
from lightning_losses.named_tensors import NAMED_TENSORS
from lightning_losses.softmax import STATISTICS, in_autocast_dtype, zero_ignored_rows
from lightning_losses.term import Term

#: Kernels upcast these block by block; losses get whole tensors upcast.
LEFT_TO_KERNELS = frozenset({"input", *(name for names in MADE_OF.values() for name in names)})


def provide(
    rows: Rows, terms: Mapping[str, Term], providers: Mapping[str, nn.Module], ignore_index: int
) -> Rows:
    """Rows with everything that the terms require, in float32 at least, harmless where ignored.

    Softmax statistics are not among it: `plan_passes` decides how they are had.

    Raises:
        ValueError: a tensor is missing that nobody passed or provides, an option was passed that a
            term would not see, or a tensor is none that a term takes, see `validation.check`.
    """
    tensors = dict(rows.tensors)
    refuse_given_statistics(tensors)
    missing: list[tuple[str, nn.Module, str]] = []
    if rows.valid is not None:
        tensors["valid"] = rows.valid
    has_classes = "logits" in tensors or "hidden" in tensors
    for name, term in terms.items():
        # A provider is somebody's wish, so it also makes what a loss merely looks at.
        for tensor in sorted(term.required | term.read & providers.keys()):
            if tensor in tensors:
                continue
            if tensor in STATISTICS and has_classes:
                if tensor == "log_prob" and "target" not in tensors:
                    missing.append((name, term.loss, "target"))
            elif tensor == "valid":
                tensors["valid"] = torch.ones(rows.num_rows, dtype=torch.bool, device=rows.device)
            elif tensor in made_by_chunks(term, tensors):
                continue
            else:
                # The tensor, or hidden states that stand for it.
                names = [n for n in (tensor, *MADE_OF.get(tensor, ())[:1]) if n in providers]
                if names and names[0] not in tensors:
                    made = providers[names[0]](tensors)
                    tensors.update(made if isinstance(made, dict) else {names[0]: made})
                if tensor not in tensors and tensor not in made_by_chunks(term, tensors):
                    missing.append((name, term.loss, tensor))
    if missing:
        raise missing_tensors(dict.fromkeys(missing), rows.tensors, tensors)
    refuse_options_with_raw_logits(terms, tensors)
    refuse_some_classes(terms, tensors)
    for logits, (hidden, *_) in MADE_OF.items():
        if hidden in tensors and logits not in tensors:
            tensors[hidden] = in_autocast_dtype(tensors[hidden])
    read = {name for term in terms.values() for name in term.read} - LEFT_TO_KERNELS
    read -= _left_to_chunks(terms, tensors)
    for name in [name for name in tensors if name in read]:
        tensors[name] = _fit_to_read(name, tensors[name], rows.valid)
    check(terms, tensors, rows.valid, ignore_index)
    if "target" in tensors and tensors["target"].dtype == torch.bool:
        tensors["target"] = tensors["target"].long()
    return rows._replace(tensors=tensors)


def _left_to_chunks(terms: Mapping[str, Term], tensors: Mapping[str, Any]) -> set[str]:
    """Logits that are there beside others that chunks make, and are made fit a few rows at a time.

    Half of stored logits in float32 would be as much as what chunks are there to save.
    """
    return {
        name
        for name in MADE_OF
        if name in tensors
        and all(made_by_chunks(term, tensors) for term in terms.values() if name in term.read)
    }


def _fit_to_read(name: str, value: Any, valid: Tensor | None) -> Any:
    """Half precision as float32, and vectors of rows that do not count at 0."""
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point() and value.element_size() < 4:
        value = value.float()
    word = NAMED_TENSORS.get(name)
    return zero_ignored_rows(value, valid) if word and word.layout == "vectors" else value
