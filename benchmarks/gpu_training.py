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
    """Stands first: from here on a step that asks the device for an answer is an error."""

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= WARM:
            torch.cuda.set_sync_debug_mode("error")


class Lenient(L.Callback):
    """Stands last: between steps a host may wait."""

    def on_train_batch_end(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


class Clock(L.Callback):
    """Seconds of the steps after the first few, with a wait for the device before and after."""

    def __init__(self, last: int) -> None:
        self.last, self.began, self.seconds = last, 0.0, 0.0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step in (WARM, self.last):
            torch.cuda.synchronize()
            self.seconds = time.perf_counter() - self.began
            self.began = time.perf_counter()


def fit(machine: Machine, module: Language, callbacks: list[L.Callback], steps: int) -> None:
    """Train for some steps."""
    warnings.filterwarnings("ignore")
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
    rows: list[Work] = [
        ("no stall: plain", partial(no_stall, machine, [])),
        ("no stall: all monitors", partial(no_stall, machine, list(seen.values()))),
    ]
    for kernel in gpu_speed.MODES:
        rows.append((f"graph: {kernel}", partial(graph, machine, kernel)))
    for kernel in gpu_speed.MODES:
        rows.append((f"timeline: {kernel}", partial(timeline, machine, kernel)))
    for name, config in seen.items():
        rows.append((f"no stall: {name}", partial(no_stall, machine, [config])))
    return rows


def no_stall(machine: Machine, chosen: list[Any]) -> Row:
    """Measured steps and others with `set_sync_debug_mode("error")`."""
    steps = WARM + machine.choose(2 * EVERY + 1, 1)
    torch.manual_seed(0)
    callbacks = [Strict(), *(often(config) for config in chosen), Lenient()]
    try:
        fit(machine, Language(machine), callbacks, steps)
    except RuntimeError as error:
        ours = [
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
            if "lightning_losses" in frame.filename
        ]
        return {"failed": f"{error}"[:200], "at": " < ".join(reversed(ours[-5:]))}
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"steps": steps - WARM, "monitors": len(chosen)}


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
    events = profile.key_averages()
    busy = [(e.self_device_time_total / 1000, e.count, e.key) for e in events]
    busy = sorted((x for x in busy if x[0] > 0), reverse=True)
    trace = machine.out / f"gpu_trace_{kernel}.json"
    profile.export_chrome_trace(str(trace))
    with trace.open("rb") as plain, gzip.open(f"{trace}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    trace.unlink()
    device_ms = sum(ms for ms, _, _ in busy)
    top = [f"{ms:.3f} ms, {count} x {name[:90]}" for ms, count, name in busy[:10]]
    return {"device_ms": device_ms, "profiled_wall_ms": wall_ms, "top": top}


def training(machine: Machine) -> list[Work]:
    """Part "training"."""
    known = dict(machine.known)
    rows: list[Work] = [
        ("by hand", partial(cost, machine, known, "by hand", None)),
        ("ours", partial(cost, machine, known, "ours", [])),
    ]
    seen = monitors(machine)
    rows.append(("all monitors", partial(cost, machine, known, "all", list(seen.values()))))
    for name, config in seen.items():
        rows.append((name, partial(cost, machine, known, name, [config])))
    return rows


def cost(machine: Machine, known: dict[str, Row], name: str, chosen: list[Any] | None) -> Row:
    """Milliseconds and peak memory of a step; monitors measure every fifth.

    `ratio` is to a step of ours without monitors, at the cadence that conf/callbacks gives a
    monitor: it measures EVERY / cadence as often there.
    """
    torch.manual_seed(0)
    steps = WARM + machine.choose(8 * EVERY, EVERY)
    clock = Clock(steps)
    callbacks = [*(often(config) for config in chosen or []), clock]
    torch.cuda.reset_peak_memory_stats()
    fit(machine, Language(machine, by_hand=chosen is None), callbacks, steps)
    ms = 1000 * clock.seconds / (steps - WARM)
    found: Row = {"ms": ms, "peak_mb": torch.cuda.max_memory_allocated() / 2**20}
    plain = known.setdefault("ours", found)["ms"] if name != "by hand" else ms
    if chosen:
        cadences = {config.get("every_n_steps", 1) for config in chosen}
        cadence = cadences.pop() if len(cadences) == 1 else EVERY
        share = EVERY / cadence if cadence > 1 else 1.0
        found |= {"cadence": cadence, "ratio": 1 + share * (ms - plain) / plain}
    return found
