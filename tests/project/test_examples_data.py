# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The examples' data does not leak and does not change; their models do what they say."""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F


def example(name: str) -> ModuleType:
    """`examples/` is a folder of scripts, not a package: load one by its path."""
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"examples_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


data, models = example("data"), example("models")
SPLITS = ("train", "val", "test")
# A fifth of the default, so that the tests are quick; still several files in every split.
TEXT = {"batch_size": 4, "context": 64, "max_bytes": 200_000}


@pytest.fixture(scope="module")
def digits():
    module = data.Digits()
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def text():
    module = data.LibraryText(**TEXT)
    module.setup("fit")
    return module


def test_digits_batches(digits):
    x, y = next(iter(digits.train_dataloader()))
    assert x.shape == (64, 1, 8, 8)
    assert x.dtype == torch.float32
    assert y.shape == (64,)
    assert y.dtype == torch.int64
    pixels = torch.cat([digits.splits[name].tensors[0] for name in SPLITS])
    assert pixels.min() == 0
    assert pixels.max() == 1
    # 1078 training rows: 16 full batches, the last 54 rows of an epoch's order are left out.
    assert [len(x) for x, _ in digits.train_dataloader()] == [64] * 16
    # Validation and test leave nothing out.
    assert sum(len(x) for x, _ in digits.val_dataloader()) == 359
    assert sum(len(x) for x, _ in digits.test_dataloader()) == 360


def test_digits_splits_are_the_whole_set_once(digits):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    original = Counter(
        (tuple(row), label) for row, label in zip(images.tolist(), labels.tolist(), strict=True)
    )
    seen: Counter[tuple[tuple[float, ...], int]] = Counter()
    for name in SPLITS:
        x, y = digits.splits[name].tensors
        rows = (x.flatten(1) * 16).tolist()
        seen.update((tuple(row), label) for row, label in zip(rows, y.tolist(), strict=True))
    assert seen == original
    # No picture occurs twice in the set, so "the whole set once" is "no leak".
    assert max(original.values()) == 1


def test_digits_splits_hold_the_same_share_of_every_digit(digits):
    whole = sum(torch.bincount(digits.splits[name].tensors[1]) for name in SPLITS)
    for name, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        counts = torch.bincount(digits.splits[name].tensors[1])
        # Stratified splits round each class to a whole row; two splits in a row, so two rows.
        assert (counts - share * whole).abs().max() <= 2


def test_text_batches_are_shifted_by_one(text):
    tokens, target = next(iter(text.train_dataloader()))
    assert tokens.shape == target.shape == (4, 64)
    assert tokens.dtype == target.dtype == torch.int64
    assert torch.equal(tokens[:, 1:], target[:, :-1])
    for name in SPLITS:
        tokens, target = text.splits[name].tensors
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < data.LibraryText.vocabulary


def test_text_is_what_the_files_hold(text):
    for name in SPLITS:
        tokens, target = text.splits[name].tensors
        found = Counter(
            (bytes(row), bytes(after))
            for row, after in zip(tokens.tolist(), target.tolist(), strict=True)
        )
        joined = b"".join(file.read_bytes() + b"\0" for file in text.files[name])
        starts = range(0, len(joined) - 64, 64)
        assert found == Counter((joined[i : i + 64], joined[i + 1 : i + 65]) for i in starts)
        # Mixed: the first window of the dataset is not the first of the first file.
        assert bytes(tokens[0].tolist()) != joined[:64]


def test_text_splits_share_no_file_and_no_content(text):
    files = [file for name in SPLITS for file in text.files[name]]
    assert len(set(files)) == len(files)
    assert len({file.read_bytes() for file in files}) == len(files)
    assert all(len(text.files[name]) >= 2 for name in SPLITS)
    sizes = {name: sum(file.stat().st_size for file in text.files[name]) for name in SPLITS}
    assert sum(sizes.values()) <= TEXT["max_bytes"]
    # 80/10/10 up to one file, and a file is at most a twentieth of the whole.
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(sizes[name] / TEXT["max_bytes"] - share) < 0.08


def test_library_files_are_the_interpreters_own_modules():
    files = data.library_files()
    names = [file.stem for file in files]
    assert names == sorted(names)
    assert {"argparse", "dataclasses", "inspect"} <= set(names)
    # It lies in the same folder, differs between machines and holds their paths.
    assert not any(name.startswith("_sysconfigdata") for name in names)


def test_unigram_entropy_is_that_of_the_validation_targets(text):
    counts = Counter(text.splits["val"].tensors[1].flatten().tolist())
    total = sum(counts.values())
    reference = -sum(n / total * math.log(n / total) for n in counts.values())
    assert text.unigram_entropy == pytest.approx(reference, rel=1e-12)
    # Source text: far from uniform bytes (log 256 = 5.5 nats), far from constant.
    assert 2.5 < text.unigram_entropy < 4


def test_unigram_entropy_needs_no_setup_by_hand(text):
    assert data.LibraryText(**TEXT).unigram_entropy == text.unigram_entropy


@pytest.mark.parametrize(("name", "options"), [("Digits", {}), ("LibraryText", TEXT)])
def test_same_seed_same_batches_other_seed_other_batches(name, options):
    def two_epochs(seed):
        module = getattr(data, name)(**options, seed=seed)
        module.setup()
        loader = module.train_dataloader()
        return [torch.cat([y for _, y in loader]) for _ in range(2)]

    first, again, other = two_epochs(0), two_epochs(0), two_epochs(1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])


def test_batches_do_not_depend_on_the_global_seed():
    module = data.Digits()
    module.setup()
    torch.manual_seed(1)
    first = next(iter(module.train_dataloader()))[1]
    torch.manual_seed(2)
    assert torch.equal(first, next(iter(module.train_dataloader()))[1])


def test_too_little_text_is_an_error_that_says_what_to_write():
    with pytest.raises(ValueError, match="larger max_bytes"):
        data.LibraryText(max_bytes=2_000).setup()


def test_too_large_a_batch_is_an_error_that_says_what_to_write(digits):
    module = data.Digits(batch_size=2000)
    module.setup()
    with pytest.raises(ValueError, match="at most 1078"):
        module.train_dataloader()


def test_digits_net_shapes():
    net = models.DigitsNet(width=24, classes=7)
    x = torch.rand(5, 1, 8, 8)
    features = net.eval().features(x)
    assert features.shape == (5, 24)
    assert isinstance(net.head, torch.nn.Linear)
    assert torch.equal(net(x), net.head(features))
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.modules())


def test_digits_net_learns_the_digits(digits):
    # Five epochs, about a second; 0.99 was measured, so 0.95 leaves room for another platform.
    torch.manual_seed(0)
    net = models.DigitsNet()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    loader = digits.train_dataloader()
    for _ in range(5):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
    x, y = digits.splits["test"].tensors
    with torch.no_grad():
        accuracy = (net.eval()(x).argmax(1) == y).float().mean()
    assert accuracy > 0.95


def test_tiny_decoder_does_not_see_the_future():
    torch.manual_seed(0)
    net = models.TinyDecoder(width=32, depth=2, heads=4, context=16)
    tokens = torch.randint(0, 256, (2, 16))
    hidden = net(tokens)
    assert hidden.shape == (2, 16, 32)
    assert net.lm_head.weight.shape == (256, 32)
    assert net.lm_head.bias is None
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 256
    other = net(changed)
    torch.testing.assert_close(other[:, :9], hidden[:, :9], rtol=0, atol=1e-6)
    # and everything from the changed byte on does see it
    assert ((other - hidden)[:, 9:].abs().amax(-1) > 1e-6).all()
    # a shorter window is the beginning of a longer one
    torch.testing.assert_close(net(tokens[:, :5]), hidden[:, :5], rtol=1e-5, atol=1e-5)


def test_tiny_decoder_errors_say_what_to_write():
    with pytest.raises(ValueError, match="context=9"):
        models.TinyDecoder(width=8, depth=1, heads=2, context=8)(torch.zeros(1, 9).long())
    with pytest.raises(ValueError, match="multiple of heads"):
        models.TinyDecoder(width=10, heads=4)
