# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two small data sets that need no download: handwritten digits, and Python's own source text."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Batches = DataLoader[tuple[Tensor, ...]]


class Digits(L.LightningDataModule):
    """Scikit-learn's 1797 handwritten digits: x (B, 1, 8, 8) float32 in [0, 1] and y (B,) int64.

    Split 60/20/20 into train, validation and test, each with the same share of every digit.
    The training order is drawn anew each epoch from `seed`; a last, incomplete batch is dropped.
    """

    def __init__(self, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.splits: dict[str, TensorDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        x = torch.from_numpy((images / 16).astype(np.float32)).view(-1, 1, 8, 8)
        y = torch.from_numpy(labels.astype(np.int64))
        train, rest = train_test_split(
            np.arange(len(y)), test_size=0.4, stratify=labels, random_state=self.seed
        )
        val, test = train_test_split(
            rest, test_size=0.5, stratify=labels[rest], random_state=self.seed
        )
        self.splits = {
            name: TensorDataset(x[rows], y[rows])
            for name, rows in (("train", train), ("val", val), ("test", test))
        }

    def train_dataloader(self) -> Batches:
        return shuffled(self.splits["train"], self.batch_size, self.seed)

    def val_dataloader(self) -> Batches:
        return DataLoader(self.splits["val"], self.batch_size)

    def test_dataloader(self) -> Batches:
        return DataLoader(self.splits["test"], self.batch_size)


class LibraryText(L.LightningDataModule):
    """Bytes of Python's standard library: (tokens, target), both (B, context) int64 in 0..255.

    `target` is already shifted: target[:, t] is the byte that follows tokens[:, t]. Every file
    belongs to one split only (80/10/10 by bytes), and no byte is a target twice in an epoch.
    One Python version and one `seed` give the same batches. A zero byte ends each file.

    Args:
        batch_size: windows a batch.
        context: bytes a window.
        max_bytes: whole files, none larger than a twentieth of this, are taken while they fit.
        seed: of the order in which files are taken, and of the training order.
    """

    vocabulary = 256

    def __init__(
        self,
        batch_size: int = 16,
        context: int = 128,
        max_bytes: int = 1_000_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.context = batch_size, context
        self.max_bytes, self.seed = max_bytes, seed
        self.files: dict[str, list[Path]] = {}
        self.splits: dict[str, TensorDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        self.files = split_files(library_files(), self.max_bytes, self.seed)
        for name, files in self.files.items():
            text = b"".join(file.read_bytes() + b"\0" for file in files)
            count = (len(text) - 1) // self.context
            if count < 1:
                raise ValueError(
                    f"the {name} split holds {len(text)} bytes, fewer than one window of "
                    f"context={self.context} bytes; give LibraryText a larger max_bytes "
                    f"(it is {self.max_bytes})"
                )
            stream = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
            size = count * self.context
            tokens = stream[:size].view(count, self.context)
            target = stream[1 : size + 1].view(count, self.context)
            # Mixed once, so that the first few validation batches speak for all of the files.
            order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
            self.splits[name] = TensorDataset(tokens[order], target[order])

    @property
    def unigram_entropy(self) -> float:
        """Of the validation targets, in nats a byte: no model without context can do better."""
        self.setup()
        counts = torch.bincount(self.splits["val"].tensors[1].flatten()).double()
        share = counts[counts > 0] / counts.sum()
        return float(-(share * share.log()).sum())

    def train_dataloader(self) -> Batches:
        return shuffled(self.splits["train"], self.batch_size, self.seed)

    def val_dataloader(self) -> Batches:
        return DataLoader(self.splits["val"], self.batch_size)

    def test_dataloader(self) -> Batches:
        return DataLoader(self.splits["test"], self.batch_size)


class DigitStrings(L.LightningDataModule):
    """Strings of digits to sort: prompts (B, length + 1) int64; the last token asks for the answer.

    Every string is equally likely; validation and test have strings of their own draw.
    """

    def __init__(
        self,
        length: int = 3,
        digits: int = 6,
        batch_size: int = 32,
        batches: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.length, self.digits, self.seed = length, digits, seed
        self.batch_size, self.batches = batch_size, batches

    def _prompts(self, number: int, seed: int) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        strings = torch.randint(self.digits, (number, self.length), generator=generator)
        return TensorDataset(torch.nn.functional.pad(strings, (0, 1), value=self.digits))

    def train_dataloader(self) -> Batches:
        rows = self._prompts(self.batch_size * self.batches, 3 * self.seed)
        return shuffled(rows, self.batch_size, self.seed)

    def val_dataloader(self) -> Batches:
        return DataLoader(self._prompts(256, 3 * self.seed + 1), 64)

    def test_dataloader(self) -> Batches:
        return DataLoader(self._prompts(256, 3 * self.seed + 2), 64)


def library_files() -> list[Path]:
    """The single-file modules of the standard library, sorted by name, no two alike.

    Named by the interpreter, not found by listing a folder: build settings and whatever a
    distribution adds to that folder (machine paths among them) stay out.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files: dict[bytes, Path] = {}
    for name in sorted(sys.stdlib_module_names):
        path = root / f"{name}.py"
        if path.is_file():
            files.setdefault(path.read_bytes(), path)
    if len(files) < 3:
        raise FileNotFoundError(
            f"LibraryText needs the .py sources of the standard library and found {len(files)} in "
            f"{root}; run it with a Python that ships its sources"
        )
    return list(files.values())


def split_files(files: list[Path], max_bytes: int, seed: int) -> dict[str, list[Path]]:
    """Whole files to train, val and test, 80/10/10 by bytes and at most `max_bytes` together."""
    share = {"train": 0.8, "val": 0.1, "test": 0.1}
    held = dict.fromkeys(share, 0)
    split: dict[str, list[Path]] = {name: [] for name in share}
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))
    for index in order.tolist():
        size = files[index].stat().st_size
        # The large files would each fill a validation split alone.
        if size > max_bytes / 20 or sum(held.values()) + size > max_bytes:
            continue
        neediest = min(share, key=lambda name: held[name] / share[name])
        split[neediest].append(files[index])
        held[neediest] += size
    return split


def shuffled(rows: TensorDataset, batch_size: int, seed: int) -> Batches:
    """Full batches only: no step runs on one row (BatchNorm) or on an odd shape (compile)."""
    if len(rows) < batch_size:
        raise ValueError(
            f"batch_size={batch_size} leaves no full training batch: there are {len(rows)} rows; "
            f"use a batch_size of at most {len(rows)}"
        )
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(rows, batch_size, shuffle=True, drop_last=True, generator=generator)
