# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of `gpu_hour.py` that say whether the kernels are right, and on what."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_part import Machine, Row, Work, row, spread, workers

from lightning_losses import Objective, kernel_check
from lightning_losses.losses import CrossEntropy, EntropyBonus

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "triton", "lightning", "torchmetrics", "transformers", "hydra-core",
            "liger-kernel", "cut-cross-entropy", "pytest", "hypothesis")  # fmt: skip
#: Of the files that hold tests for a GPU; collecting the others would take longer than these tests.
MARK = "pytest.mark.gpu"
QUERY = ("name", "temperature.gpu", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw",
         "power.limit")  # fmt: skip


def device(machine: Machine) -> list[Work]:
    """Part "device"."""
    return [
        ("versions", versions),
        ("clocks before", clocks),
        ("memory", partial(memory, machine)),
        ("products", partial(products, machine)),
        ("clocks after", clocks),
    ]


def versions() -> Row:
    found: Row = {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    about = torch.cuda.get_device_properties(0)
    major, minor = torch.cuda.get_device_capability(0)
    return found | {
        "device": about.name,
        "capability": f"{major}.{minor}",
        "processors": about.multi_processor_count,
        "memory_gib": about.total_memory / 2**30,
        "cpus": os.cpu_count(),
    }


def clocks() -> Row:
    """As the device is found; nothing is set."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    return dict(zip(QUERY, (x.strip() for x in said.splitlines()[0].split(",")), strict=True))


def memory(machine: Machine) -> Row:
    """Bytes read and written a second by a copy that no cache holds."""
    from gpu_speed import seconds

    count = machine.choose(2**31, 2**16)
    source = torch.randn(count // 4, device=machine.device)
    target = torch.empty_like(source)
    took = seconds(lambda: target.copy_(source))
    return {"copy_tb_s": 2 * 4 * source.numel() / took / 1e12}


def products(machine: Machine) -> Row:
    """The rate of a large product of random matrices; zeros would run faster."""
    from gpu_speed import seconds

    n = machine.choose(8192, 64)
    a, b = (torch.randn(n, n, device=machine.device).to(machine.dtype) for _ in range(2))
    return {"mm_tflops": 2 * n**3 / seconds(lambda: a @ b) / 1e12, "n": n}


def check(machine: Machine) -> list[Work]:
    """Part "check": what `lightning-losses check` does, a process for every few cases."""
    if machine.dry:  # the interpreter takes 0.1 s a program
        kernel_check.OPTIONS["rows"] = (9, 5, 1)
    kernels = ("triton", "triton_keep", "triton_lean", "chunked")
    return [(kernel, partial(checked, machine, kernel)) for kernel in kernels]


def checked(machine: Machine, kernel: str) -> Row:
    parts = machine.choose(workers(), 12)
    shares = [(machine.device, kernel, i, parts) for i in range(machine.choose(parts, 2))]
    found = spread(share_of_cases, shares, len(shares))
    wrong = [line for lines, _ in found for line in lines if "WRONG" in line]
    lines = [line for lines, _ in found for line in lines[1:]]
    errors = [why for _, why in found if why]
    if wrong or errors:
        return {"failed": "; ".join(wrong or errors)[:1500], "count": len(wrong)}
    return {"cases": sum(int(line.split()[1]) for line in lines if " cases, worst" in line),
            "worst": max((worst_of(line) for line in lines), default=0.0)}  # fmt: skip


def worst_of(line: str) -> float:
    """Of a line of `check`, the largest error as a share of what is allowed."""
    _, _, tail = line.partition("worst error ")
    return float(tail.split()[0]) if tail else 0.0


def share_of_cases(share: tuple[str, str, int, int]) -> tuple[list[str], str]:
    """Lines of `check` for every so-manieth case, and what went wrong."""
    where, kernel, i, parts = share
    every = kernel_check.cases()
    kernel_check.cases = lambda: every[i::parts]
    lines: list[str] = []
    try:
        for line in kernel_check.check(where, (kernel,)):
            lines.append(line)
    except Exception as error:
        return lines, f"{type(error).__name__}: {error}"
    return lines, ""


class Reporter:
    """Tells the result of every test when it is there, and leaves out those that passed before."""

    def __init__(self, known: Mapping[str, Row]) -> None:
        self.skip = {key for key, found in known.items() if "failed" not in found}
        self.outcomes: dict[str, int] = {}

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        again = [item for item in items if short_name(item.nodeid) in self.skip]
        if again:
            config.hook.pytest_deselected(items=again)
            items[:] = [item for item in items if item not in again]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.outcomes[report.outcome] = self.outcomes.get(report.outcome, 0) + 1
        if report.outcome == "failed":
            why = str(report.longrepr).strip().splitlines()[-12:]
            row(short_name(report.nodeid), {"failed": " | ".join(why)[-1000:]})
        else:
            row(short_name(report.nodeid), {report.outcome: round(report.duration, 2)})


def short_name(nodeid: str) -> str:
    return nodeid.split("/")[-1]


def tests(machine: Machine) -> list[Work]:
    """Part "tests": `pytest -m gpu`, then the interpreter's tests on the device."""
    marked = [path for path in sorted(ROOT.glob("tests/**/test_*.py")) if MARK in path.read_text()]
    work = [("pytest -m gpu", partial(pytest_run, machine, ["-m", "gpu"], marked))]
    if not machine.dry:  # CI runs them by themselves
        path = ROOT / "tests/kernels/test_triton.py"
        work.append((path.name, partial(pytest_run, machine, [], [path])))
    return work


def pytest_run(machine: Machine, chosen: list[str], paths: list[Path]) -> Row:
    """In this process, so that results arrive one by one; with others beside it if xdist is there.

    The tests compile, which is most of their time, so four or more at once are faster.
    """
    arguments = [*map(str, paths), *chosen, "-q", "--rootdir", str(ROOT), "-p", "no:cacheprovider"]
    arguments.append("--capture=no")  # results are read from this output
    if importlib.util.find_spec("xdist") and not machine.dry:
        arguments += ["-n", str(min(8, workers()))]
    reporter = Reporter(machine.known)
    began = time.time()
    status = int(pytest.main(arguments, plugins=[reporter]))
    found: Row = {"seconds": time.time() - began, **reporter.outcomes}
    if status not in (0, 5):  # 5: none was left
        count = reporter.outcomes.get("failed", 0)  # a second call tries those again
        found["failed"] = f"{count} failed; pytest ended with {status}"
    return found


def sanitizer(machine: Machine) -> list[Work]:
    """Part "sanitizer": bad accesses and races of the smallest cases that use every kernel."""
    plan = (("memcheck", "triton"), ("memcheck", "triton_lean"), ("racecheck", "triton"),
            ("racecheck", "triton_lean"))[: machine.choose(4, 1)]  # fmt: skip
    return [
        (f"{tool} {kernel}", partial(sanitized, machine, tool, kernel)) for tool, kernel in plan
    ]


def sanitized(machine: Machine, tool: str, kernel: str) -> Row:
    """One program under compute-sanitizer, without CUDA's caching allocator, which hides errors."""
    command = ["compute-sanitizer", "--tool", tool]
    command += [sys.executable, str(Path(__file__).resolve()), kernel, machine.device]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    began = time.time()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=150, check=False, env=environment
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "=====" in line]
    summary = next((line for line in reversed(said) if "SUMMARY" in line), "no summary")
    found: Row = {"seconds": time.time() - began, "said": summary.strip("= ")}
    if done.returncode or (": 0 " not in summary and "(0 errors" not in summary):
        end = said[:12] or (done.stdout + done.stderr).splitlines()[-6:]
        found["failed"] = " | ".join(end)[:1000]
    return found


def small_case(kernel: str, device: str) -> None:
    """Forward and backward with ragged sizes, every option and an ignored row; and from logits."""
    torch.manual_seed(0)
    n, d, v = (150, 80, 333) if device == "cuda" else (3, 20, 33)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    hidden, head = (torch.randn(k, d, device=device).to(dtype).requires_grad_() for k in (n, v))
    target = torch.randint(v, (n,), device=device)
    target[1] = -100
    terms = {"ce": CrossEntropy(label_smoothing=0.1), "entropy": EntropyBonus()}
    named = {"hidden": hidden, "head_weight": head, "target": target, "softcap": 5.0}
    bias = torch.randn(v, device=device, requires_grad=True)
    Objective(terms, kernel=kernel)(**named, head_bias=bias).total.backward()
    if kernel == "triton":
        logits = torch.randn(n, v, device=device).to(dtype).requires_grad_()
        Objective(terms, kernel=kernel)(logits=logits, target=target).total.backward()
    print(f"{kernel}: gradient {float(head.grad.float().norm()):.4g}")  # type: ignore[union-attr]


if __name__ == "__main__":
    small_case(*sys.argv[1:3])
