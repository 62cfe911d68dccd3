# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A part of `gpu_hour.py`, in a process of its own; see there.

Imports first, then waits for a line on standard input that says which part, until when, and which
results are there already. Says on standard output, in lines that begin with @@, which result it
begins, what
came out, and what it had no time for. Ends at once where CUDA no longer answers, which after an
illegal access it does in no later call of the same process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]
#: A result to be had: its key, and what makes it.
Work = tuple[str, Callable[[], Row]]
#: Where each part's function is, which has its name and takes a `Machine`.
MODULES = {
    "gpu_correct": ("device", "check", "tests", "sanitizer"),
    "gpu_speed": ("table", "sweep"),
    "gpu_training": ("step", "training"),
}
POISONED = 3


class Machine(NamedTuple):
    """What the parts run on: a GPU, or a CPU that stands for one."""

    dry: bool
    out: Path
    known: Mapping[str, Row] = {}  # results there are already

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def dtype(self) -> Any:
        """bfloat16; float32 where the interpreter would compute it wrong."""
        import torch

        return torch.float32 if self.dry else torch.bfloat16

    def choose(self, real: Any, tiny: Any) -> Any:
        """Sizes and counts: the ones that say something, or the ones that a CPU can do."""
        return tiny if self.dry else real


def say(word: str, **content: Any) -> None:
    print(f"\n@@{word} {json.dumps(content)}", flush=True)  # pytest leaves dots on a line


def row(key: str, content: Row) -> None:
    """Report a result that is no `Work` of its own, such as one test of many."""
    say("row", key=key, row=content)


def spread(call: Callable[[Any], Any], items: list[Any], workers: int) -> list[Any]:
    """`call` of every item, in forked processes; only before this one has touched CUDA.

    Compiling is most of the time of a kernel's first call, and one process compiles one at a time.
    """
    import torch

    if torch.cuda.is_initialized():
        raise RuntimeError("a process that uses CUDA cannot fork others that do")
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=get_context("fork")) as pool:
        return list(pool.map(call, items))


def workers() -> int:
    return max(2, min(12, (os.cpu_count() or 2) - 2))


def work_through(rows: list[Work], skip: list[str], until: float) -> int:
    """Make the results one by one; the exit status."""
    waiting = [(key, work) for key, work in rows if key not in skip]
    longest = 0.0
    for i, (key, work) in enumerate(waiting):
        if time.time() + longest > until:
            say("left", keys=[key for key, _ in waiting[i:]])
            return 0
        say("begin", key=key)
        began = time.time()
        try:
            found = work()
        except Exception as error:
            traceback.print_exc()
            row(key, {"failed": f"{type(error).__name__}: {error}"[:800]})
            if not answers():
                return POISONED if i + 1 < len(waiting) else 0
        else:
            row(key, found)
        longest = max(0.7 * longest, time.time() - began)  # first calls compile
    return 0


def answers() -> bool:
    """Whether CUDA still works in this process; frees what a failure left."""
    import torch

    if not torch.cuda.is_initialized():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return float(torch.ones(4, device="cuda").sum()) == 4.0
    except Exception:
        return False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if options.dry:
        os.environ |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "GPU_HOUR_DRY": "1"}
    import gpu_wheels

    gpu_wheels.use()
    functions = {
        part: getattr(importlib.import_module(module), part)
        for module, parts in MODULES.items()
        for part in parts
        if part in options.parts
    }
    if options.dry:
        import gpu_pretend

        gpu_pretend.install(options.out)
    say("ready")
    for line in sys.stdin:
        word = json.loads(line)
        machine = Machine(options.dry, options.out, word["known"])
        rows = functions[word["part"]](machine)
        if work_through(rows, word["skip"], word["until"]):
            return POISONED
        say("end")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # without what a broken CUDA context does on the way out
