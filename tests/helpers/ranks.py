# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a function of a test file in several processes that know of each other, as DDP has them.

A started process imports what it runs by a module's name, and pytest's importlib mode gives test
files none. So the process imports this file, which loads the test file from its path.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import socket
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

IMPORTED_ONCE = ["lightning.pytorch", "lightning_losses.callbacks", "lightning_losses.losses"]


def on_ranks(work: Callable[[int], Any], folder: Path, ranks: int = 2) -> list[Any]:
    """What ``work(rank)`` returns in each of the processes, which share one rendezvous.

    Args:
        work: a function at the top of a test file. What it returns must load with weights_only.
        folder: the results pass through here; the current folder of the processes.
        ranks: how many processes.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = inspect.getfile(work)
    start(_enter, (source, work.__name__, str(folder), ranks, port), ranks)
    return [torch.load(folder / f"{rank}.pt") for rank in range(ranks)]


def start(work: Callable[..., None], args: tuple[Any, ...], ranks: int) -> None:
    """``work(rank, *args)`` in each of the processes, as torch.multiprocessing.spawn does it.

    To import torch and lightning takes a process eight seconds, which is most of what such a test
    does: so one process imports them, and those of all tests are forks of it.
    """
    get_context("forkserver").set_forkserver_preload(IMPORTED_ONCE)
    multiprocessing.start_processes(work, args, ranks, start_method="forkserver")


def _enter(rank: int, source: str, name: str, folder: str, ranks: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(ranks))
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), NODE_RANK="0")
    os.chdir(folder)
    spec = importlib.util.spec_from_file_location(Path(source).stem, source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.save(getattr(module, name)(rank), f"{rank}.pt")
