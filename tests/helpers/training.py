# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`train_twice`: train without and with callbacks from one seed, and compare bit for bit."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


@dataclass
class Run:
    """One training: the trainer after it, and what was logged after each batch."""

    trainer: Trainer
    module: LightningModule
    logged: list[dict[str, float]]
    random: tuple[Any, ...]


class Logbook(Callback):
    """Copies what is logged after each batch."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        values = trainer.callback_metrics | trainer.progress_bar_metrics
        self.logged.append({name: float(value) for name, value in values.items()})


def train(
    module_factory: Callable[[], LightningModule],
    callbacks: Sequence[Callback] = (),
    ckpt_path: str | Path | None = None,
    **trainer_options: Any,
) -> Run:
    """Train a new module from seed 0, or from a checkpoint."""
    L.seed_everything(0, verbose=False)
    module, logbook = module_factory(), Logbook()
    options: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
    }
    trainer = Trainer(callbacks=[*callbacks, logbook], **options | trainer_options)
    trainer.fit(module, ckpt_path=ckpt_path)
    state = (torch.get_rng_state(), random.getstate(), np.random.get_state())
    module = trainer.lightning_module  # not the compiled wrapper
    return Run(trainer, module, logbook.logged, state)


def train_twice(
    module_factory: Callable[[], LightningModule],
    callbacks: Sequence[Callback],
    own: str = "step_radius/",
    **trainer_options: Any,
) -> Run:
    """Train without and with the callbacks, require equality to the last bit, return the second.

    Compared are parameters, buffers, attributes of every submodule (metric states, counters,
    lists), all that is logged but for keys that start with ``own``, and the global random states.
    """
    plain = train(module_factory, **trainer_options)
    watched = train(module_factory, callbacks, **trainer_options)
    require_equal("module", portrait(plain.module), portrait(watched.module))
    theirs = [{k: v for k, v in step.items() if not k.startswith(own)} for step in watched.logged]
    require_equal("logged", plain.logged, theirs)
    require_equal("random", plain.random, watched.random)
    return watched


def portrait(module: LightningModule) -> dict[str, Any]:
    """Every value that belongs to the module, by name, but for what counts this process's rows."""
    values: dict[str, Any] = {}
    for name, part in module.named_modules():
        for key, value in part.__dict__.items():
            if key not in ("_loss_record", "_trainer", "_modules", "_fabric", "_training_rows"):
                values[f"{name}.{key}"] = value
    return values


def require_equal(where: str, a: Any, b: Any) -> None:
    """Equal to the last bit, NaN to NaN; objects that are no values are not looked into."""
    assert type(a) is type(b), f"{where}: {type(a)} and {type(b)}"
    if isinstance(a, Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype
        assert same, f"{where}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
        assert np.array_equal(_bits(a), _bits(b)), f"{where} differs"
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b), f"{where} differs"
    elif isinstance(a, torch.Generator):
        require_equal(where, a.get_state(), b.get_state())
    elif isinstance(a, dict):
        assert list(a) == list(b), f"{where}: {list(a)} and {list(b)}"
        for key in a:
            require_equal(f"{where}.{key}", a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), f"{where}: {len(a)} and {len(b)} items"
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            require_equal(f"{where}[{i}]", x, y)
    elif isinstance(a, (bool, int, float, str, type(None))):
        assert a == b or (a != a and b != b), f"{where}: {a} and {b}"


def _bits(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def require_config_is_the_class(key: str, kind: type) -> None:
    """conf/callbacks/KEY.yaml makes the class, and holds each of its arguments with its default."""
    with initialize_config_module("lightning_losses.conf", version_base="1.3"):
        node = compose(overrides=[f"+callbacks=[{key}]"]).callbacks[key]
    assert isinstance(instantiate(node), kind)
    parameters = inspect.signature(kind).parameters.values()
    assert {p.name: p.default for p in parameters} == {
        name: value for name, value in node.items() if name != "_target_"
    }
