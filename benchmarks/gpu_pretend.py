# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Stands for CUDA on a CPU, so that `gpu_hour.py --dry` runs the lines that a GPU will run.

Only what those lines call: a clock for events, nothing for the rest. Memory is always 0, a graph is
run once while it is captured, and the tools are scripts that do what they are told.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

SMI = "#!/bin/sh\necho 'Pretended, 0.0, 1, 2, 3, 4, 5'\n"
SANITIZER = """#!/bin/sh
while [ "$1" != "{python}" ]; do shift; done
"$@" && echo '========= ERROR SUMMARY: 0 errors'
"""


class Event:
    """A moment of the host's clock."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return 1000 * max(other.at - self.at, 1e-9)


class Stream:
    def wait_stream(self, other: Stream) -> None: ...


class Graph:
    def replay(self) -> None: ...


@contextlib.contextmanager
def block(*_: Any, **__: Any) -> Iterator[None]:
    """`torch.cuda.stream` and `torch.cuda.graph`."""
    yield


def install(folder: Path) -> None:
    """Replace what the parts use of `torch.cuda`, and put two tools on the path."""
    properties = SimpleNamespace(
        name="pretended", multi_processor_count=4, total_memory=2**34, L2_cache_size=2**20
    )
    for name, stand_in in {
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": Graph,
        "stream": block,
        "graph": block,
        "current_stream": Stream,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 0,
        "reset_peak_memory_stats": lambda *_: None,
        "set_sync_debug_mode": lambda mode: None,
        "get_device_properties": lambda *_: properties,
        "get_device_capability": lambda *_: (9, 0),
    }.items():
        setattr(torch.cuda, name, stand_in)
    tools = folder / "pretended-tools"
    tools.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "nvidia-smi": SMI,
        "compute-sanitizer": SANITIZER.format(python=sys.executable),
    }.items():
        fresh = tools / f"{name}.{os.getpid()}"  # parts that start together write the same file
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(tools / name)
    os.environ["PATH"] = os.pathsep.join([str(tools), os.environ.get("PATH", "")])
