# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Batches without two rows of one label: on all ranks, every epoch, as many as there can be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader

from lightning_losses.samplers import DistinctLabelSampler


def most_batches(labels: list[int], size: int) -> int:
    """By taking rows of the labels with the most rows left, one after another, which is optimal."""
    left = [sum(y == label for y in labels) for label in set(labels) if label >= 0]
    left += [1 for y in labels if y < 0]
    batches = 0
    while sum(count > 0 for count in left) >= size:
        left.sort(reverse=True)
        left[:size] = [count - 1 for count in left[:size]]
        batches += 1
    return batches


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 7), max_size=40),
    batch=st.integers(1, 4),
    ranks=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_every_batch_of_all_ranks(labels: list[int], batch: int, ranks: int, epoch: int) -> None:
    expected = most_batches(labels, batch * ranks)
    if not expected:
        with pytest.raises(ValueError, match="more clusters"):
            DistinctLabelSampler(labels, batch, num_replicas=ranks, rank=0)
        return
    shares = []
    for rank in range(ranks):
        sampler = DistinctLabelSampler(labels, batch, num_replicas=ranks, rank=rank)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler) == expected * batch
        assert list(sampler) == shares[-1]
    everything = [i for share in shares for i in share]
    assert len({*everything}) == len(everything)  # no row twice in an epoch
    for start in range(0, len(shares[0]), batch):
        rows = [i for share in shares for i in share[start : start + batch]]
        found = [labels[i] for i in rows if labels[i] >= 0]
        assert len({*found}) == len(found)


def test_epochs_differ_and_use_every_row_in_the_end() -> None:
    labels = [0] * 20 + [1, 2, 3, 4]  # 3 of every batch of 4 are of the small ones: one batch
    sampler = DistinctLabelSampler(labels, 4, seed=1)
    loader = DataLoader(range(24), batch_size=4, sampler=sampler)  # type: ignore[arg-type, var-annotated]
    epochs = []
    for epoch in range(150):
        _set_sampler_epoch(loader, epoch)  # what Lightning does
        epochs.append([tuple(batch.tolist()) for batch in loader])
    assert all(len(batches) == 1 for batches in epochs)
    assert {i for batches in epochs for batch in batches for i in batch} == {*range(24)}
    assert len({*map(tuple, epochs)}) > 100
    other = DistinctLabelSampler(labels, 4, seed=2)
    assert list(other) != epochs[0]


def test_errors_say_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"\(N,\) integers.*float32"):
        DistinctLabelSampler(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="at least 1"):
        DistinctLabelSampler([0], 0)
    with pytest.raises(ValueError, match="must be an integer"):
        DistinctLabelSampler([0], 2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="number them"):
        DistinctLabelSampler(["cat"], 1)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="together"):
        DistinctLabelSampler([0], 1, rank=0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        DistinctLabelSampler([0, 1], 1, num_replicas=2, rank=2)
    with pytest.raises(ValueError, match=r"4 rows \(2 ranks of 2\).*there are 3"):
        DistinctLabelSampler([0, 1, 2], 2, num_replicas=2, rank=0)
