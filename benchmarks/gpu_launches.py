# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every line between `compute_loss` and a Triton launch, as a GPU would see it, without one.

    python benchmarks/gpu_launches.py sm_90              record every launch of every mode
    python benchmarks/gpu_launches.py sm_90 --compile    and compile each, as it is launched

Launches are recorded instead of made, in two ways. "host": small tensors on the CPU, of which the
code is told that they lie on the device; with autograd, every option, and by torch.compile. "cuda":
fake CUDA tensors of a model's size, which hold nothing, in the forward pass. That needs a torch
built for CUDA: one without refuses to index such a tensor, and ends the process at the first node
of a graph ("not linked with support for cuda devices"). No build gets such tensors through a
backward pass without a driver: autograd's engine asks for a device's context. That is what "host"
is for.

Ends with status 1 if a build has a fault that `aot.py` knows, or a launch that was due is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

if os.environ.pop("TRITON_INTERPRET", None):
    sys.exit("benchmarks/gpu_launches.py records what would be compiled; unset TRITON_INTERPRET.")

import torch
import triton
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.tools.tensor_descriptor import TensorDescriptor

from lightning_losses import Objective, softmax_stats
from lightning_losses.kernels import dispatch
from lightning_losses.kernels.triton import fast_keep, lean, tiles
from lightning_losses.losses import CrossEntropy, EntropyBonus, LogsumexpPenalty
from lightning_losses.softmax import STATISTICS

CAPABILITY = {"sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}
#: Every statistic that needs no class weights, of which there are none here.
WANT = [name for name in STATISTICS if name != "weighted_log_prob"]
MODES = ("triton", "triton_keep", "triton_lean")
KINDS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.int64: "i64",
         torch.int32: "i32", torch.uint8: "u8"}  # fmt: skip
#: What a step of any mode needs at least; by the names of the kernels.
DUE = {
    "triton": {"row_statistics", "row_gradient"},
    "triton_keep": {"row_statistics", "row_gradient"},
    "triton_lean": {"span_statistics", "merge_spans", "target_logits", "slab_gradient"},
}
#: Kernel, types of its arguments as `aot.py` writes them or constants, warps, stages.
Launch = tuple[Any, dict[str, Any], int, int]


class Recorder:
    """Stands for `JITFunction.run`: keeps what a kernel would be launched with."""

    def __init__(self) -> None:
        self.launches: dict[str, Launch] = {}

    def run(self, kernel: Any, *_: Any, grid: Any, warmup: bool, **arguments: Any) -> None:
        warps, stages = arguments.pop("num_warps", 4), arguments.pop("num_stages", 3)
        arguments.pop("enable_fp_fusion")
        if set(arguments) != set(kernel.arg_names):
            odd = set(arguments) ^ set(kernel.arg_names)
            raise TypeError(f"{kernel.fn.__name__} is launched with other arguments: {sorted(odd)}")
        if not (isinstance(grid, tuple) and all(isinstance(x, int) and x > 0 for x in grid)):
            raise ValueError(f"{kernel.fn.__name__} is launched on a grid of {grid}")
        constant = {p.name for p in kernel.params if p.is_constexpr}
        typed = {k: v if k in constant else typing(k, v) for k, v in arguments.items()}
        name = f"{kernel.fn.__name__} {typed} {warps} {stages}"
        self.launches[name] = (kernel, typed, warps, stages)

    def kernels(self) -> set[str]:
        return {kernel.fn.__name__ for kernel, *_ in self.launches.values()}


def typing(name: str, value: Any) -> Any:
    """The type that Triton gives an argument, or the value itself where it is compiled in."""
    if isinstance(value, Tensor):
        return f"*{KINDS[value.dtype]}"
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{KINDS[value.base.dtype]}{list(value.block_shape)}>"
    if isinstance(value, bool) or value is None or value == 1:
        return value
    if isinstance(value, int):
        if not -(2**31) <= value < 2**31:
            raise OverflowError(f"{name} is {value}: it would be a 64-bit argument")
        return "i32"
    if isinstance(value, float):
        return "fp32"
    raise TypeError(f"{name} is a {type(value).__name__}")


@contextlib.contextmanager
def pretended(arch: str, recorder: Recorder) -> Iterator[None]:
    """Code is told of a device of this architecture; launches go to the recorder."""
    about = SimpleNamespace(multi_processor_count=132, total_memory=80 * 2**30)
    pairs = [
        (torch.cuda, "get_device_capability", lambda *_: CAPABILITY[arch]),
        (torch.cuda, "get_device_properties", lambda *_: about),
        (torch.cuda, "_exchange_device", lambda *_: 0),
        (torch.cuda, "_maybe_exchange_device", lambda *_: 0),
        (triton.runtime.jit.JITFunction, "run", lambda k, *a, **kw: recorder.run(k, *a, **kw)),
        (dispatch, "unavailable", lambda problem: None),
        (tiles, "architecture", lambda device: arch),
        (tiles, "processors", lambda device: about.multi_processor_count),
        (tiles, "MIN_CHUNK_ROWS", tiles.MIN_CHUNK_ROWS),
    ]
    old = [(module, name, getattr(module, name)) for module, name, _ in pairs]
    for module, name, value in pairs:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in old:
            setattr(module, name, value)


@contextlib.contextmanager
def bodies() -> Iterator[None]:
    """Under fake tensors an op's shapes are asked for, not its body; here the body is wanted."""
    names = [(module, name) for module in (fast_keep, lean) for name in vars(module)]
    ops = [
        (module, name, getattr(module, name))
        for module, name in names
        if isinstance(getattr(module, name), torch.library.CustomOpDef)
    ]
    for module, name, op in ops:
        setattr(module, name, op._init_fn)
    try:
        yield
    finally:
        for module, name, op in ops:
            setattr(module, name, op)


def host(recorder: Recorder) -> Iterator[str]:
    """Steps on CPU tensors, for which the device's tiles are chosen; a line each."""
    for kernel in MODES:
        for dtype in (torch.bfloat16, torch.float32):
            for extra in (False, True):
                yield from host_step(recorder, kernel, dtype, extra, depth=64)
    yield from host_step(recorder, "triton_lean", torch.float16, True, depth=33)  # is padded
    yield from host_logits(recorder)
    if tiles.architecture(torch.device("cuda")) == "sm_90":  # the same graph everywhere
        yield from host_compiled(recorder)


def leaves(n: int, d: int, v: int, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    return [torch.zeros(k, d, dtype=dtype, device=device).requires_grad_() for k in (n, v)]


def objective(kernel: str) -> Objective:
    terms = {"ce": CrossEntropy(label_smoothing=0.1), "z": LogsumexpPenalty(), "e": EntropyBonus()}
    return Objective(terms, kernel=kernel)


def given(hidden: Tensor, head: Tensor, extra: bool) -> dict[str, Any]:
    """Named tensors; `extra`: with everything that can be done to logits, and ignored rows."""
    n, v = len(hidden), len(head)
    target = torch.zeros(n, dtype=torch.int64, device=hidden.device)
    named: dict[str, Any] = {"hidden": hidden, "head_weight": head, "target": target}
    if extra:
        third = torch.arange(n, device=hidden.device) % 3 == 0
        named["target"] = torch.where(third, -100, target)
        named["head_bias"] = torch.zeros(v, device=hidden.device, requires_grad=True)
        named["temperature"] = torch.ones(n, device=hidden.device)
        named |= {"softcap": 5.0, "logit_scale": 0.7}
    return named


def host_step(
    recorder: Recorder, kernel: str, dtype: torch.dtype, extra: bool, depth: int
) -> Iterator[str]:
    hidden, head = leaves(150, depth, 333, dtype)
    fresh = Recorder()
    with redirected(recorder, fresh):
        objective(kernel)(**given(hidden, head, extra)).total.backward()
        # Each with an upstream gradient of its own.
        found = softmax_stats(**given(hidden, head, extra), kernel=kernel, want=WANT).as_dict()
        sum(x.sum() for name, x in found.items() if x.requires_grad).backward()  # type: ignore[union-attr]
    yield report(f"host {kernel} {dtype} D={depth}{' options' * extra}", fresh, DUE[kernel])


def host_logits(recorder: Recorder) -> Iterator[str]:
    logits = torch.zeros(150, 333, dtype=torch.bfloat16, requires_grad=True)
    fresh = Recorder()
    with redirected(recorder, fresh):
        for target in (torch.zeros(150, dtype=torch.int64), torch.ones(150, 333) / 333):
            objective("triton")(logits=logits, target=target).total.backward()
    yield report("host triton from logits", fresh, DUE["triton"])


def host_compiled(recorder: Recorder) -> Iterator[str]:
    """Traced with fake tensors, whole, and run: the ops' shapes must be those of their bodies.

    From hidden states compiled code takes mode lean, from logits the passes of mode fast.
    """
    hidden, head = leaves(150, 64, 333, torch.bfloat16)
    own, named = objective("triton"), given(hidden, head, extra=True)
    promised = {"max_valid": 100, "normalizer": 100.0}

    def total(**tensors: Any) -> Tensor:
        return own(**tensors, **promised).total

    fresh = Recorder()
    with redirected(recorder, fresh):
        torch.compile(total, backend="aot_eager", fullgraph=True)(**named).backward()
    yield report("host compiled from hidden states", fresh, DUE["triton_lean"])
    logits, fresh = torch.zeros(150, 333, dtype=torch.bfloat16, requires_grad=True), Recorder()
    with redirected(recorder, fresh):
        compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
        compiled(logits=logits, target=named["target"]).backward()
    yield report("host compiled from logits", fresh, DUE["triton"])


def cuda(recorder: Recorder) -> Iterator[str]:
    """Fake CUDA tensors of a model's size, where torch can have any."""
    if torch.version.cuda is None:
        yield "cuda: left out, because this torch is built without CUDA"
        return
    with FakeTensorMode(allow_non_fake_inputs=True), bodies():
        for kernel in MODES:
            fresh = Recorder()
            hidden, head = leaves(8192, 4096, 128256, torch.bfloat16, "cuda")
            with redirected(recorder, fresh):
                named = given(hidden, head, extra=True)
                softmax_stats(**named, kernel=kernel, want=WANT)
            due = DUE[kernel] - {"row_gradient", "slab_gradient"}
            yield report(f"cuda {kernel}, forward", fresh, due)


@contextlib.contextmanager
def redirected(recorder: Recorder, fresh: Recorder) -> Iterator[None]:
    """Launches of a block also by themselves."""
    before, recorder.launches = recorder.launches, fresh.launches
    try:
        yield
    finally:
        recorder.launches = before | fresh.launches


def report(name: str, fresh: Recorder, due: set[str]) -> str:
    missing = due - fresh.kernels()
    if missing:
        raise RuntimeError(f"{name}: {sorted(missing)} not launched, but {sorted(fresh.kernels())}")
    return f"{name}: {len(fresh.launches)} launches"


def compile_all(arch: str, recorder: Recorder, chosen: str) -> int:
    """Build each recorded launch as `aot.py` does; how many have faults."""
    import aot
    from aot_configs import Config

    bad = 0
    for kernel, typed, warps, stages in recorder.launches.values():
        name = kernel.fn.__name__
        if chosen not in name:
            continue
        tma = any(str(x).startswith("tensordesc") for x in typed.values())
        matrix = name in ("span_statistics", "slab_gradient")
        row = aot.compile_config(Config(name, kernel, typed, warps, stages, matrix, tma), arch)
        bad += bool(row["faults"])
        wide = f"{typed.get('BM', '')}x{typed.get('BV', typed.get('BLOCK', ''))}"
        kind = next(x for x in typed.values() if isinstance(x, str))
        print(f"{arch} {name} {kind} {wide}: {row['regs']} registers, {row['stack']} B of stack, "
              f"{row['shared']} B shared  {'; '.join(row['faults'])}", flush=True)  # fmt: skip
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("arch", choices=CAPABILITY)
    parser.add_argument("--compile", nargs="?", const="", metavar="NAME", help="those so named")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*data pointer of FakeTensor.*")
    recorder = Recorder()
    steps: list[Callable[[Recorder], Iterator[str]]] = [host, cuda]
    with pretended(options.arch, recorder):
        for take in steps:
            for line in take(recorder):
                print(line, flush=True)
    described = [x for x in recorder.launches.values() if "tensordesc" in str(x[1])]
    print(f"{options.arch}: {len(recorder.launches)} launches, {len(described)} by descriptor")
    bad = bool(described) != (options.arch in tiles.COPY_ENGINE)
    if options.compile is not None:
        bad |= bool(compile_all(options.arch, recorder, options.compile))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
