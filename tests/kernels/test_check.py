# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`lightning-losses check` tries what it says, and tells a right kernel from a wrong one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from lightning_losses import kernel_check
from lightning_losses.__main__ import main
from lightning_losses.kernel_check import OPTIONS, cases, check, sensible
from lightning_losses.kernels.eager import chunked


def test_every_sensible_pair_of_options_is_in_some_case() -> None:
    every = cases()
    assert all(sensible(case) and case.keys() == OPTIONS.keys() for case in every)
    for a, b in itertools.combinations(OPTIONS, 2):
        for x, y in itertools.product(OPTIONS[a], OPTIONS[b]):
            together = any(case[a] is x and case[b] is y for case in every)
            assert together == sensible({a: x, b: y}), (a, x, b, y)
    # Of 186,624 combinations; three of the options have three values and one has four, so 12 pairs
    # of two of them alone need as many cases.
    assert 12 <= len(every) <= 30


@pytest.mark.parametrize("kernel", ["chunked", "triton", "triton_keep", "triton_lean"])
def test_every_kernel_is_right(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel in ("triton", "triton_keep"):  # one program a row: the interpreter takes 0.1 s each
        monkeypatch.setitem(OPTIONS, "rows", (9, 5, 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = list(check(device, (kernel,)))
    assert not any("WRONG" in line for line in lines)
    tried = int(lines[1].split()[1])
    assert tried >= 7, lines


def test_a_wrong_kernel_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = chunked.chunk_logits

    def padded(chunk: chunked.Problem, used: Tensor | None) -> Tensor:
        z = right(chunk, used)
        if chunk.softcap is not None and chunk.logits is None:
            z[:, -1] = -chunk.softcap  # what a padded class becomes that is capped like the others
        return z

    monkeypatch.setattr(chunked, "chunk_logits", padded)
    monkeypatch.setattr(chunked, "TORCH", chunked.TORCH._replace(logits=padded))
    monkeypatch.setattr(chunked, "BY_CHUNKS", chunked.by_chunks(chunked.TORCH))
    monkeypatch.setattr(kernel_check, "check", lambda device: check(device, ("chunked",)))
    assert main(["check", "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "results are wrong" in said.err
    wrong = [line for line in said.out.splitlines() if "WRONG" in line]
    assert wrong
    assert all("softcap=5.0" in line for line in wrong)
