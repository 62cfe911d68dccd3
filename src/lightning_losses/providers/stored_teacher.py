# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher that ran once: makes ``teacher_logits`` by looking up the sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.softmax import FLOATS, may_ask


class StoredTeacher(nn.Module):
    """Provides ``teacher_logits`` of the samples in ``sample_index``, out of a table.

    For a teacher that is run once over the data set, for inputs that are then always the same: of
    an augmented input the teacher has another opinion (Beyer et al., "Knowledge distillation: A
    good teacher is patient and consistent", arXiv 2106.05237). The table follows the batch's
    device, where it stays, and is not saved. One that is too large for it belongs in the data set,
    whose batches then have ``teacher_logits`` to pass to `compute_loss`.

    Args:
        logits: ``(samples, C)``, or the file that ``torch.save`` wrote them to.

    Raises:
        ValueError: it is no such table.

    Examples:
        >>> provider = StoredTeacher(torch.arange(6.0).reshape(3, 2))
        >>> provider({"sample_index": torch.tensor([2, 0])})
        tensor([[4., 5.],
                [0., 1.]])
    """

    makes = "teacher_logits"
    reads = ("sample_index",)

    def __init__(self, logits: Tensor | str | Path) -> None:
        super().__init__()
        table = logits
        if not isinstance(table, Tensor):
            table = torch.load(table, map_location="cpu", weights_only=True)
        if not isinstance(table, Tensor) or table.ndim != 2 or table.dtype not in FLOATS:
            found = tuple(table.shape) if isinstance(table, Tensor) else type(table).__name__
            raise ValueError(
                f"logits must be a float tensor (samples, C), or a file of one, got {found}: write "
                "torch.save(torch.cat(all_logits), path)."
            )
        self._table = table.detach()  # no buffer: it would be saved

    def forward(self, tensors: Mapping[str, Any]) -> Tensor:
        """``teacher_logits (N, C)``.

        Raises:
            ValueError: the step passed no indices, or, on a CPU, one that the table lacks.
        """
        index = tensors.get("sample_index")
        if index is None:
            raise ValueError(
                "The stored teacher needs to know which samples these are: write "
                "self.compute_loss(..., sample_index=index)."
            )
        if index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"sample_index must be int64, got {index.dtype}: write index.long().")
        index = index.long()  # int16 picks nothing from a tensor
        if self._table.device != index.device:
            self._table = self._table.to(index.device)
        samples = len(self._table)
        if may_ask(index) and index.numel():
            low, high = (int(x) for x in index.aminmax())
            if low < 0 or high >= samples:
                raise ValueError(
                    f"sample_index must be in [0, {samples}), as many samples are stored, found "
                    f"{low} to {high}."
                )
        return self._table[index]
