# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`SampleHistory`: what each sample was at each of its presentations, in a few numbers a sample."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

#: Columns of sums.
SUMS: Final = ("el2n", "aum", "grad_norm", "influence")


class SampleHistory:
    """Sums by ``sample_index``, and events of forgetting; grows with the largest index.

    An event of forgetting is a presentation that is wrong after one that was right (Toneva et al.,
    arXiv 1812.05159), as the model predicts before it is trained on the batch; augmentation and
    dropout make events too. A sample that was never right has none: see ``learned``.
    """

    def __init__(self) -> None:
        self.sums = torch.zeros(0, len(SUMS), dtype=torch.float64)
        # presentations, rights, events of forgetting; the first right one and the last wrong one,
        # counted from 1, 0 for none; whether the last was right; label and prediction of the last.
        self.counts = torch.zeros(0, 8, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.sums)

    def add(
        self, index: Tensor, right: Tensor, values: Tensor, target: Tensor, prediction: Tensor
    ) -> None:
        """Rows of a batch, on the CPU; a sample that is twice in it counts twice.

        Args:
            index: ``(N,)`` int64, at least 0.
            right: ``(N,)`` bool.
            values: ``(N, K)`` float64 what is summed; NaN stays NaN.
            target: ``(N,)`` int64.
            prediction: ``(N,)`` int64.
        """
        if not len(index):
            return
        self._grow(int(index.max()) + 1)
        while len(index):  # presentations of one sample one after another
            first = torch.full((len(self.counts),), len(index))
            first.scatter_reduce_(0, index, torch.arange(len(index)), "amin")
            now = first[index] == torch.arange(len(index))
            self._add_once(index[now], right[now], values[now], target[now], prediction[now])
            index, right, values = index[~now], right[~now], values[~now]
            target, prediction = target[~now], prediction[~now]

    def _add_once(
        self, index: Tensor, right: Tensor, values: Tensor, target: Tensor, prediction: Tensor
    ) -> None:
        self.sums[index] += values
        seen, rights, events, learned, wrong, last, _, _ = self.counts[index].unbind(1)
        yes, seen = right.long(), seen + 1
        self.counts[index] = torch.stack(
            [
                seen,
                rights + yes,
                events + last * (1 - yes),
                torch.where((learned == 0) & right, seen, learned),
                torch.where(right, wrong, seen),
                yes,
                target,
                prediction,
            ],
            1,
        )

    def _grow(self, size: int) -> None:
        more = size - len(self)
        if more > 0:
            more = max(more, len(self) // 2)  # seldom
            self.sums = torch.cat([self.sums, self.sums.new_zeros(more, self.sums.shape[1])])
            self.counts = torch.cat([self.counts, self.counts.new_zeros(more, 8)])

    def table(self) -> dict[str, Tensor]:
        """A column each, a row for each sample that was presented.

        ``sample_index``, ``presentations``, ``target``, ``prediction`` (of the last), ``el2n``,
        ``aum``, ``grad_norm`` and ``influence`` (the sum over presentations, others the mean),
        ``forgotten`` (events), ``learned`` (presentation that was right first, from 1; 0 for
        never), ``last_wrong`` (the last that was wrong, 0 for none).
        """
        index = self.counts[:, 0].nonzero()[:, 0]
        seen, _, events, learned, wrong, _, target, prediction = self.counts[index].unbind(1)
        means = self.sums[index] / seen[:, None]
        found = {"sample_index": index, "presentations": seen}
        found |= {"target": target, "prediction": prediction}
        found |= dict(zip(SUMS, means.unbind(1), strict=True))
        found["influence"] = self.sums[index, SUMS.index("influence")]
        return found | {"forgotten": events, "learned": learned, "last_wrong": wrong}

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.sums, self.counts = state["sums"].clone(), state["counts"].clone()
