# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of `gpu_hour.py` that measure kernels: the table of docs/kernels.md, and tiles.

Times are medians of CUDA events, forward and backward together; memory is the peak beyond inputs,
the two gradients included. The floor is measured in the same run: the three matrix products that a
dense, exact loss cannot avoid, each in its own shape, by the library.
"""

from __future__ import annotations

import functools
import gc
import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import linear_ce_methods as losses
import torch
from gpu_part import Machine, Row, Work
from torch import Tensor

from lightning_losses import Objective, Term
from lightning_losses.kernels.triton import row_ops, tiles
from lightning_losses.losses import CrossEntropy, LogsumexpPenalty

Shape = tuple[int, int, int]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

#: (rows, hidden units, classes); the first is measured whole before the others begin.
SHAPES: tuple[Shape, ...] = (
    (8192, 4096, 128256),
    (8192, 2304, 256000),
    (4096, 4096, 128256),
    (16384, 1024, 50304),
)
TINY: tuple[Shape, ...] = ((5, 32, 40),)
MODES = ("triton", "triton_keep", "triton_lean")
SHARE = 0.4  # of rows, scattered over the batch, without a target
#: Without a GPU once is enough: the numbers mean nothing.
REPEAT = "GPU_HOUR_DRY" not in os.environ
#: Losses of one variant are of one function, up to bfloat16.
AGREE = 0.02


class Variant(NamedTuple):
    """What is computed; `ours` makes the loss of a kernel, `others` the same by other hands."""

    ours: Callable[[str, int | None], Loss]
    others: dict[str, Loss]
    ignored: float = 0.0
    told: bool = False  # how many rows count


def variants(machine: Machine) -> dict[str, Variant]:
    ce = partial(losses.ours, {"ce": CrossEntropy()})
    by_others: dict[str, Loss] = {"F.cross_entropy(F.linear)": losses.naive, **losses.by_torch()}
    by_others |= {} if machine.dry else losses.peers()  # theirs are not ours to interpret
    backend = machine.choose("inductor", "eager")
    compiled = {"the same, compiled": torch.compile(losses.naive, backend=backend, dynamic=False)}

    def plain(kernel: str, most: int | None) -> Loss:
        return ce(kernel, (), most)

    def five(kernel: str, most: int | None) -> Loss:
        return losses.ours(losses.composed(), kernel, losses.MONITORS, most)

    return {
        "cross-entropy": Variant(plain, by_others | compiled),
        "40 % ignored": Variant(plain, by_others, SHARE),
        "40 % ignored, max_valid": Variant(plain, {}, SHARE, True),
        "five terms, monitors on": Variant(five, {"by hand on logits": losses.composed_naive}),
        "all options": Variant(lambda kernel, _: options(kernel), {"by hand on logits": by_hand}),
    }


CAP, SCALE, SMOOTHING, PENALTY = 30.0, 0.9, 0.1, 1e-4


def of_rows(hidden: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    """Some bias and some temperatures: what they are does not matter, that they are used does."""
    return head.detach()[:, 0].float(), hidden.detach()[:, 0].float().sigmoid() + 0.5


def options(kernel: str) -> Loss:
    """Bias, scale, soft-cap, a temperature a row, label smoothing, z-loss."""
    terms: dict[str, Any] = {"ce": CrossEntropy(label_smoothing=SMOOTHING)}
    objective = Objective(terms | {"z": Term(LogsumexpPenalty(), PENALTY)}, kernel=kernel)

    def loss(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        bias, temperature = of_rows(hidden, head)
        named = {"hidden": hidden, "head_weight": head, "head_bias": bias, "target": target}
        return objective(
            **named, temperature=temperature, softcap=CAP, logit_scale=SCALE
        ).total  # fmt: skip

    return loss


def by_hand(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    bias, temperature = of_rows(hidden, head)
    z = (torch.nn.functional.linear(hidden, head) + bias) * SCALE
    z = CAP * torch.tanh(z / CAP) / temperature[:, None]
    ce = torch.nn.functional.cross_entropy(z, target, label_smoothing=SMOOTHING)
    return ce + PENALTY * torch.logsumexp(z, dim=1).square().mean()


def table(machine: Machine) -> list[Work]:
    """Part "table": rows in the order of worth."""
    shapes = machine.choose(SHAPES, TINY)
    rows: list[Work] = []
    known = dict(machine.known)
    for shape in shapes:
        rows.append((f"{shape} floor", partial(floor, machine, shape)))
        for name, variant in variants(machine).items():
            title = f"{shape}: {name}: "
            first = name == "cross-entropy"  # the others need not say it all without a GPU
            for kernel in MODES if first else machine.choose(MODES, MODES[2:]):
                work = partial(ours, machine, shape, name, kernel)
                rows.append(
                    (f"{title}ours, {kernel}", partial(kept, known, f"{title}ours, {kernel}", work))
                )
            for other, loss in variant.others.items():
                work = partial(timed, machine, shape, variant, loss)
                rows.append((title + other, partial(kept, known, title + other, work)))
            rows.append((f"{title}agreement", partial(agreement, known, title)))
        for kernel in ("triton_lean", "chunked"):
            loss = variants(machine)["cross-entropy"].ours(kernel, None)
            key = f"{shape}: forward only: ours, {kernel}"
            rows.append((key, partial(timed, machine, shape, Variant(None, {}), loss, False)))  # type: ignore[arg-type]
    return rows


def kept(known: dict[str, Row], key: str, work: Callable[[], Row]) -> Row:
    """The row, also remembered for `agreement`; of others, that they do not fit is an answer."""
    try:
        known[key] = work()
    except torch.OutOfMemoryError as error:
        if "ours" in key:
            raise
        known[key] = {"does not fit": str(error)[:160]}
    return known[key]


def agreement(known: dict[str, Row], title: str) -> Row:
    """Whether all methods of a variant computed the same loss and gradients, up to bfloat16."""
    worst: Row = {}
    for what in ("loss", "hidden_grad", "head_grad"):
        values = {
            key: row[what]
            for key, row in known.items()
            if key[: len(title)] == title and what in row
        }
        if values:
            middle = sorted(values.values())[len(values) // 2]
            off = {key: abs(x - middle) / max(abs(middle), 1e-30) for key, x in values.items()}
            key = max(off, key=off.__getitem__)
            worst[what] = off[key]
            if not off[key] <= AGREE:
                worst["failed"] = (
                    f"{what} of {key[len(title) :]} is {values[key]:.6g}, others {middle:.6g}"
                )
    return worst


def inputs(machine: Machine, shape: Shape, ignored: float) -> tuple[Tensor, Tensor, Tensor]:
    """hidden, head, target."""
    return drawn(machine.device, machine.dtype, shape, ignored)


@functools.lru_cache(maxsize=1)
def drawn(
    device: str, dtype: torch.dtype, shape: Shape, ignored: float
) -> tuple[Tensor, Tensor, Tensor]:
    n, d, v = shape
    g = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(n, d, device=device, generator=g).to(dtype)
    head = torch.randn(v, d, device=device, generator=g).mul_(d**-0.5).to(dtype)
    target = torch.randint(v, (n,), device=device, generator=g)
    fifth = torch.arange(n, device=device) * 2 % 5  # exactly that share, scattered
    return hidden, head, torch.where(fifth < round(5 * ignored), -100, target)


def told(variant: Variant, data: tuple[Tensor, ...]) -> int | None:
    return int((data[2] >= 0).sum()) if variant.told else None


def step(loss: Loss, hidden: Tensor, head: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Forward and backward: the loss and its gradients."""
    hidden, head = hidden.detach().requires_grad_(), head.detach().requires_grad_()
    total = loss(hidden, head, target)
    total.backward()
    assert hidden.grad is not None
    assert head.grad is not None
    return total.detach(), hidden.grad, head.grad


def seconds(call: Callable[[], Any], repeats: int = 12, most: float = 1.5) -> float:
    """The median of timed calls after one that is not, within about `most` seconds."""
    times: list[float] = []
    for i in range(1 + (repeats if REPEAT else 1)):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if i >= 1:
            times.append(start.elapsed_time(end) / 1000)
        if len(times) >= 3 and sum(times) > most:
            break
    return sorted(times)[len(times) // 2]


def floor(machine: Machine, shape: Shape) -> Row:
    """The three products of the shape, and a pass over the logits."""
    n, d, v = shape
    hidden, head, _ = inputs(machine, shape, 0.0)
    logits = hidden @ head.t()
    parts = {
        "logits": lambda: torch.mm(hidden, head.t(), out=logits),
        "hidden": lambda: logits @ head,
        "head": lambda: logits.t() @ hidden,
    }
    took = {f"{name}_ms": 1000 * seconds(call) for name, call in parts.items()}
    other = torch.empty_like(logits)
    copy = 1000 * seconds(lambda: other.copy_(logits))
    ms = sum(took.values())
    return {"ms": ms, **took, "copy_ms": copy, "tflops": 6e-9 * n * d * v / ms, "shape": shape}


def ours(machine: Machine, shape: Shape, name: str, kernel: str) -> Row:
    variant = variants(machine)[name]
    most = told(variant, inputs(machine, shape, variant.ignored))
    return timed(machine, shape, variant, variant.ours(kernel, most))


def timed(machine: Machine, shape: Shape, variant: Variant, loss: Loss, both: bool = True) -> Row:
    """One row of the table."""
    data = inputs(machine, shape, variant.ignored)
    gc.collect()
    torch.cuda.empty_cache()
    found: Row = {}
    if both:
        total, hidden, head = step(loss, *data)  # compiles
        found = {"loss": float(total), "hidden_grad": norm(hidden), "head_grad": norm(head)}
        del total, hidden, head

    def call() -> None:
        if both:
            step(loss, *data)
        else:
            with torch.no_grad():
                loss(*data)

    if REPEAT:
        call()
        torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    ms = 1000 * seconds(call)
    n, d, v = int((data[2] >= 0).sum()), *shape[1:]
    work = (6 if both else 2) * 1e-9 * n * d * v  # of the rows that count, once each
    return {"ms": ms, "peak_mb": peak, "tflops": work / ms, **found}


def norm(x: Tensor) -> float:
    """By slices: a copy of a head's gradient in float32 may not fit."""
    return float(sum(float(part.float().square().sum()) for part in x.split(4096))) ** 0.5


def sweep(machine: Machine) -> list[Work]:
    """Part "sweep": each candidate timed, then the best written."""
    rows: list[Work] = []
    known = dict(machine.known)
    for what, candidate in candidates(machine):
        key = name_of(what, candidate)
        rows.append((key, partial(kept, known, key, partial(trial, machine, what, candidate))))
    return [*rows, ("best", partial(best, machine, known))]


def name_of(what: str, candidate: tuple[int, ...]) -> str:
    return f"{what} {'/'.join(map(str, candidate))}"


def candidates(machine: Machine) -> list[tuple[str, tuple[int, ...]]]:
    """What ships comes first of each kind. Tiles that need more than 228 KiB are left out."""
    blocks = [(4096, 8), (2048, 4), (2048, 8), (8192, 8), (8192, 16), (4096, 16), (1024, 4)]
    arch = "sm_80" if machine.dry else tiles.architecture(torch.device("cuda"))
    shipped = tuple(tiles.backward_tile(arch, False, 2, arch in tiles.COPY_ENGINE))
    squares = [(128, 256, 64, 8, 3), (128, 128, 64, 8, 4), (128, 128, 64, 8, 3),
               (128, 128, 64, 4, 4), (128, 256, 64, 8, 4), (256, 128, 64, 8, 3),
               (128, 256, 32, 8, 4), (64, 256, 64, 4, 4), (128, 128, 128, 8, 2)]  # fmt: skip
    if machine.dry:
        blocks, squares = blocks[:2], [(16, 16, 32, 4, 2)]
    return [*(("row pass", x) for x in blocks),
            *(("lean backward", x) for x in dict.fromkeys([shipped, *squares]))]  # fmt: skip


class Set:
    """A module's attribute for the length of a block."""

    def __init__(self, module: Any, name: str, value: Any) -> None:
        self.module, self.name, self.value = module, name, value

    def __enter__(self) -> None:
        self.old = getattr(self.module, self.name)
        setattr(self.module, self.name, self.value)

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.old)


def candidate_step(machine: Machine, what: str) -> Callable[[], Any]:
    """A step that spends its time, or a known share of it, in what is tried."""
    ce = {"ce": CrossEntropy()}
    n, d, v = machine.choose((8192, 4096, 128256), (4, 32, 40))
    if what == "lean backward":
        loss = losses.ours(ce, "triton_lean")
        data = inputs(machine, (n, d, v), 0.0)
        return lambda: step(loss, *data)
    objective = Objective({"ce": CrossEntropy()}, kernel="triton")
    # As many rows as take the device longer than the host takes to launch them.
    logits = torch.randn(n, v, device=machine.device).to(machine.dtype).requires_grad_()
    target = torch.randint(v, (n,), device=machine.device)
    return lambda: torch.autograd.grad(objective(logits=logits, target=target).total, logits)


def tried(what: str, candidate: tuple[int, ...]) -> Set:
    """A block in which the kernels take the candidate instead of what ships."""
    if what == "row pass":
        return Set(row_ops, "block_size", lambda *_: candidate)
    return Set(tiles, "backward_tile", lambda *_: tiles.Tile(*candidate))


def trial(machine: Machine, what: str, candidate: tuple[int, ...]) -> Row:
    """What does not fit the device is an answer here, not a failure."""
    try:
        with tried(what, candidate):
            return {"ms": 1000 * seconds(candidate_step(machine, what), 8, 0.8)}
    except Exception as error:
        if "out of resource" in str(error):
            return {"does not fit": str(error)[:200]}
        raise


def best(machine: Machine, known: dict[str, Row]) -> Row:
    """What `tiles.py` may adopt, beside what ships now, as a file."""
    chosen: Row = {}
    for what in ("row pass", "lean backward"):
        timed = [
            (known.get(name_of(what, c), {}).get("ms"), c)
            for w, c in candidates(machine)
            if w == what
        ]
        measured = [(ms, c) for ms, c in timed if ms is not None]
        if measured:
            ms, candidate = min(measured)
            shipped = {"shipped": timed[0][1], "shipped_ms": timed[0][0]}
            chosen[what] = {"best": candidate, "ms": ms, **shipped}
    content = {"device": torch.cuda.get_device_properties(0).name, "row pass": ["block", "warps"],
               "lean backward": tiles.Tile._fields, "chosen": chosen}  # fmt: skip
    (machine.out / "gpu_tiles.json").write_text(json.dumps(content, indent=1) + "\n")
    return chosen
