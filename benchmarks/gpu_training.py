# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of `gpu_hour.py` that train: a step that waits for nothing, and what a step costs."""

from __future__ import annotations

import gzip
import shutil
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import gpu_speed
import lightning as L
import torch
from gpu_part import Machine, Row, Work
from monitor_overhead import CONTROLLERS, EVERY, configs, often
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective

TERMS = ["ce", "entropy_bonus"]
WARM = 5  # steps that compile, allocate, take their first measurements


class Language(LossMixin, L.LightningModule):
    """A causal decoder; sizes of GPT-2 medium's width on a GPU, next to nothing without one."""

    def __init__(self, machine: Machine, by_hand: bool = False) -> None:
        super().__init__()
        width, depth, classes, self.length = machine.choose((1024, 6, 50304, 1024), (32, 1, 64, 8))
        self.batch, self.by_hand = machine.choose(8, 2), by_hand
        self.token = nn.Embedding(classes, width)
        self.place = nn.Parameter(torch.zeros(self.length, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.lm_head = nn.Linear(width, classes, bias=False)
        self.loss = build_objective(TERMS)

    def training_step(self, batch: Any, _: int) -> Tensor:
        hidden = self.token(batch[0]) + self.place
        for block in self.blocks:
            hidden = block(hidden)
        if not self.by_hand:
            weight = self.lm_head.weight
            return self.compute_loss(hidden=hidden, head_weight=weight, target=batch[0], shift=1)
        logits = self.lm_head(hidden[:, :-1]).flatten(0, 1)
        log_p = torch.log_softmax(logits.float(), 1)
        entropy = -(log_p.exp() * log_p).sum(1).mean()
        total = F.nll_loss(log_p, batch[0][:, 1:].flatten()) - 0.01 * entropy
        self.log("train/loss", total)
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=self.device.type == "cuda")

    def train_dataloader(self) -> DataLoader[Any]:
        tokens = torch.randint(self.token.num_embeddings, (64 * self.batch, self.length))
        return DataLoader(TensorDataset(tokens), self.batch, pin_memory=torch.cuda.is_available())


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        heads = self.query_key_value(self.norm(x)).view(b, t, 3, -1, min(64, width))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(b, t, width))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class Strict(L.Callback):
    """Stands first: from here on torch says when a step asks the device for an answer."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= WARM:
            torch.cuda.set_sync_debug_mode("warn")


class Lenient(L.Callback):
    """Stands last: between steps a host may wait."""

    def on_train_batch_end(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


class Clock(L.Callback):
    """The device's milliseconds from the end of one step to the end of the next; stands last."""

    def __init__(self) -> None:
        self.ends: list[Any] = []

    def on_train_batch_end(self, *_: Any) -> None:
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        self.ends.append(end)

    def steps(self) -> list[float]:
        """Of each step but the first."""
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in zip(self.ends, self.ends[1:], strict=False)]


class Profile(L.Callback):
    """What the device does in one step; stands first, and `stop` last."""

    def __init__(self, at: int) -> None:
        self.at, self.began = at, 0.0
        self.profiler: Any = None
        self.found: Row = {}

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.at and self.profiler is None:
            torch.cuda.synchronize()
            self.profiler = torch.profiler.profile()
            self.profiler.start()
            self.began = time.perf_counter()

    def stop(self) -> None:
        if self.profiler is not None and not self.found:
            torch.cuda.synchronize()
            wall = 1000 * (time.perf_counter() - self.began)
            self.profiler.stop()
            self.found = {"profiled_wall_ms": wall} | busiest(self.profiler)


class Stop(L.Callback):
    """Stands last."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def on_train_batch_end(self, *_: Any) -> None:
        self.profile.stop()


def busiest(profile: Any) -> Row:
    """Milliseconds of the device's kernels, all together and of the longest."""
    kernels = [
        (event.self_device_time_total / 1000, event.count, event.key)
        for event in profile.key_averages()
        if event.device_type != torch.autograd.DeviceType.CPU
        and "#" not in event.key  # a range around kernels, such as Optimizer.step#AdamW.step
    ]
    top = [f"{ms:.3f} ms, {count} x {name[:90]}" for ms, count, name in sorted(kernels)[:-13:-1]]
    return {"device_ms": sum(ms for ms, _, _ in kernels), "top": top}


def fit(machine: Machine, module: Language, callbacks: list[L.Callback], steps: int) -> None:
    """Train for some steps."""
    trainer = L.Trainer(
        max_steps=steps,
        accelerator=machine.choose("gpu", "cpu"),
        devices=1,
        precision=machine.choose("bf16-mixed", "32-true"),
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module)


def monitors(machine: Machine) -> dict[str, Any]:
    """conf/callbacks without those that act; a step that acts may well ask first."""
    known = {name: config for name, config in configs().items() if name not in CONTROLLERS}
    if machine.dry:
        known = {name: known[name] for name in ("entropy", "logit_health")}
    return known


def step(machine: Machine) -> list[Work]:
    """Part "step"."""
    seen = monitors(machine)
    quiet = [name for name in seen if name not in ASKING]
    rows: list[Work] = [
        ("no stall: plain", partial(no_stall, machine, [], [])),
        ("no stall: most monitors", partial(no_stall, machine, quiet, [seen[n] for n in quiet])),
    ]
    for kernel in gpu_speed.MODES:
        rows.append((f"graph: {kernel}", partial(graph, machine, kernel)))
    for kernel in gpu_speed.MODES:
        rows.append((f"timeline: {kernel}", partial(timeline, machine, kernel)))
    for name, config in seen.items():
        rows.append((f"no stall: {name}", partial(no_stall, machine, [name], [config])))
    return rows


#: Monitors that ask in a measured step: for a table of heads, for numbers that a fit on the host
#: needs, and whether the optimizer moved.
ASKING = {"attention_entropy", "entropy_law", "step_radius"}


def no_stall(machine: Machine, names: list[str], chosen: list[Any]) -> Row:
    """Measured steps and others; where in them the host waits for the device, and how often."""
    measured = 2
    steps = WARM + machine.choose(measured * EVERY + 1, 1)
    torch.manual_seed(0)
    callbacks = [Strict(), *(often(config) for config in chosen), Lenient()]
    found: dict[str, int] = {}

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        if "called a synchronizing" in str(message):
            place = caller()
            found[place] = found.get(place, 0) + 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        try:
            fit(machine, Language(machine), callbacks, steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    row: Row = {"steps": steps - WARM, "monitors": len(chosen), "stalls": sum(found.values())}
    places = [f"{count} x {place}" for place, count in found.items()]
    if places:
        row["at" if ASKING.issuperset(names) else "failed"] = "; ".join(places)[:1500]
    return row


def caller() -> str:
    """Who is running: the innermost function, and those of ours that called it."""
    frames = [f for f in traceback.extract_stack()[:-2] if not f.filename.endswith("warnings.py")]
    ours = [f for f in frames if "lightning_losses" in f.filename]
    names = (
        f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in [frames[-1], *ours[:-5:-1]]
    )
    return " < ".join(dict.fromkeys(names))


def problem(machine: Machine, kernel: str, shape: Any) -> Callable[[], tuple[Tensor, ...]]:
    """A step of an objective with two terms on the same tensors every time."""
    data = gpu_speed.inputs(machine, shape, 0.0)
    objective = build_objective(TERMS, kernel=kernel)

    def loss(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
        return objective(hidden=hidden, head_weight=head, target=target).total

    return lambda: gpu_speed.step(loss, *data)


def graph(machine: Machine, kernel: str) -> Row:
    """Forward and backward captured and replayed: the same bits as without, and how much faster."""
    call = problem(machine, kernel, machine.choose((1024, 1024, 50304), (4, 32, 40)))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            eager = call()
    torch.cuda.current_stream().wait_stream(stream)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        captured = call()
    recorded.replay()
    torch.cuda.synchronize()
    same = all(torch.equal(a, b) for a, b in zip(captured, eager, strict=True))
    eager_ms, graph_ms = (1000 * gpu_speed.seconds(x, 12, 0.5) for x in (call, recorded.replay))
    found: Row = {"same bits": same, "eager_ms": eager_ms, "graph_ms": graph_ms}
    return found if same else found | {"failed": "a replay gives other bits than the step"}


def timeline(machine: Machine, kernel: str) -> Row:
    """Where the time of a step goes, by torch's profiler; the trace lies beside the results."""
    call = problem(machine, kernel, machine.choose(gpu_speed.SHAPES[0], gpu_speed.TINY[0]))
    call()
    torch.cuda.synchronize()
    began = time.perf_counter()
    with torch.profiler.profile() as profile:  # of everything there is: host, and device if any
        call()
        torch.cuda.synchronize()
    wall_ms = 1000 * (time.perf_counter() - began)
    trace = machine.out / f"gpu_trace_{kernel}.json"
    profile.export_chrome_trace(str(trace))
    with trace.open("rb") as plain, gzip.open(f"{trace}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    trace.unlink()
    return {"profiled_wall_ms": wall_ms} | busiest(profile)


def training(machine: Machine) -> list[Work]:
    """Part "training"."""
    rows: list[Work] = [
        ("by hand", partial(cost, machine, None)),
        ("ours", partial(cost, machine, [])),
    ]
    seen = monitors(machine)
    rows.append(("all monitors", partial(cost, machine, list(seen.values()))))
    for name in PROFILED:
        if name in seen:
            rows.append((f"a measured step: {name}", partial(profiled, machine, seen[name])))
    for name, config in seen.items():
        rows.append((name, partial(cost, machine, [config])))
    return rows


#: Monitors that run the model or its backward pass again.
PROFILED = ("step_radius", "term_balance", "entropy")


def profiled(machine: Machine, config: Any) -> Row:
    """What a measured step does that another one does not: see `ours` of the timeline."""
    profile = Profile(2 * EVERY)
    callbacks = [profile, often(config), Stop(profile)]
    fit(machine, Language(machine), callbacks, 2 * EVERY + 1)
    return profile.found


def cost(machine: Machine, chosen: list[Any] | None) -> Row:
    """Milliseconds and peak memory of a step; monitors measure every fifth.

    `measured_ms` is what a measurement adds to the other steps of the same run: the host's share of
    two runs differs by more than most monitors cost. `ratio` is what it makes of the step time at
    the cadence that conf/callbacks gives the monitor. Those without one work at epoch ends.
    """
    torch.manual_seed(0)
    steps = WARM + machine.choose(8 * EVERY, EVERY)
    clock = Clock()
    callbacks = [*(often(config) for config in chosen or []), clock]
    torch.cuda.reset_peak_memory_stats()
    fit(machine, Language(machine, by_hand=chosen is None), callbacks, steps)
    times = clock.steps()[WARM - 1 :]
    groups = [times[i : i + EVERY] for i in range(0, len(times), EVERY)]
    plain = median([ms for group in groups for ms in group[1:]])
    found: Row = {"ms": plain, "peak_mb": torch.cuda.max_memory_allocated() / 2**20}
    if chosen:
        added = median([sum(group) - len(group) * plain for group in groups])
        cadences = {config.get("every_n_steps", 1) for config in chosen}
        cadence = cadences.pop() if len(cadences) == 1 else EVERY
        found["measured_ms"] = added
        if cadence > 1:
            found |= {"cadence": cadence, "ratio": 1 + added / (cadence * plain)}
    return found
