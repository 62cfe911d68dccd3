# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Pieces and holes of masks, against a flood fill."""

from __future__ import annotations

import pytest
import torch

from lightning_losses.metrics import BettiError, betti_error, betti_numbers


def pieces(mask: list[list[bool]], corners: bool) -> int:
    cells = {(i, j) for i, line in enumerate(mask) for j, on in enumerate(line) if on}
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (corners or a * b == 0)]
    found = 0
    while cells:
        found += 1
        todo = [cells.pop()]
        while todo:
            i, j = todo.pop()
            near = {(i + a, j + b) for a, b in steps} & cells
            cells -= near
            todo += near
    return found


def slow(mask: torch.Tensor, connectivity: int) -> list[int]:
    outside = ~torch.nn.functional.pad(mask, (1, 1, 1, 1))
    return [
        pieces(mask.tolist(), connectivity == 8),
        pieces(outside.tolist(), connectivity == 4) - 1,
    ]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_betti_numbers_by_flood_fill(connectivity: int) -> None:
    g = torch.Generator().manual_seed(connectivity)
    # From nearly empty to nearly full; one row, one column and no pixel at all beside squares.
    for height, width in ((9, 12), (1, 7), (7, 1), (16, 16)):
        masks = torch.stack([torch.rand(height, width, generator=g) < k / 10 for k in range(11)])
        expected = [slow(mask, connectivity) for mask in masks]
        assert betti_numbers(masks, connectivity).tolist() == expected
    spiral = torch.zeros(1, 9, 9)  # one long piece, which takes several rounds
    for i, j in (
        [(0, c) for c in range(9)]
        + [(r, 8) for r in range(9)]
        + [(8, c) for c in range(9)]
        + [(r, 0) for r in range(2, 9)]
        + [(2, c) for c in range(7)]
    ):
        spiral[0, i, j] = 1
    assert betti_numbers(spiral, connectivity).tolist() == [slow(spiral[0].bool(), connectivity)]
    assert betti_numbers(torch.zeros(0, 3, 3)).shape == (0, 2)


def test_betti_error_streams_and_names_its_patches() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.rand(6, 9, 9, generator=g) < 0.5 for _ in range(2))
    whole = BettiError()
    for part in (slice(0, 4), slice(4, 4), slice(4, 6)):
        whole.update(a[part], b[part])
    expected = betti_error(a, b).double().mean(0)
    found = whole.compute()
    assert [float(found["error_0"]), float(found["error_1"])] == pytest.approx(expected.tolist())
    assert float(found["error"]) == pytest.approx(float(expected.sum()))
    tiles = BettiError(patch=4)
    tiles.update(a, b)
    assert int(tiles.count) == 6 * 4  # the ninth row and column are left out
    assert BettiError().compute()["error"].isnan()
    with pytest.raises(ValueError, match="patches of 10"):
        BettiError(patch=10).update(a, b)
    with pytest.raises(ValueError, match="one shape"):
        betti_error(a, b[:, :3])
