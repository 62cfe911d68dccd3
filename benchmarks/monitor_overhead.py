# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What each monitor costs a training step at its default cadence: each at most 1.03, all 1.15.

    python benchmarks/monitor_overhead.py
    python benchmarks/monitor_overhead.py --only entropy step_radius

A monitor works on few steps, and a shared machine is noisier than it is costly: one run may be a
tenth slower than the next. So measured steps are compared with the others of the same run, in
processor seconds on one thread, the fifth part that took least (others only add) of the best of
several rounds: with e the cadence that conf/callbacks gives, d a measured step and o another one,

    ratio = ((e - 1) o + d) / (e o)

Controllers, and validation epochs, are compared with a run without.
To see enough measured steps the run measures every fifth; a monitor that has no cadence and looks
at every step does so too here, and its ratio is d / o. A table each for a CNN and a decoder.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any, NamedTuple

import lightning as L
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.config.catalogue import keys

EVERY = 5
CONTROLLERS = ("elastic_memory", "entropy_target", "perp_grad", "step_radius_controller")
EVERY_STEP = ("sample_value",)  # monitors
WARM = 10  # steps that compile, allocate, replay: paid once a run


class Clock(L.Callback):
    """Processor seconds from the start of a batch to the end of the last callback; stands last."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.epochs: list[float] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        self.steps.append(time.process_time() - module.began)

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        self.epochs.append(time.process_time() - module.began)


class Began(L.Callback):
    """Stands first, so that the other callbacks are within the time."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        module.began = time.process_time()

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        module.began = time.process_time()


class Task(LossMixin, L.LightningModule):
    began = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.loss = build_objective(["ce", "entropy_bonus"])

    def validation_step(self, batch: Any, index: int) -> Tensor:
        return self.training_step(batch, index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Convolutional(Task):
    """32 x 32 colour images, 10 classes, batches of 64."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)):
            layers += [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(64, 10)

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y, index = batch
        features = self.body(x)
        return self.compute_loss(
            logits=self.head(features),
            target=y,
            features=features,
            sample_index=index,
            group_id=index % 4,
        )

    @staticmethod
    def data() -> DataLoader[Any]:
        x, y = torch.randn(512, 3, 32, 32), torch.randint(10, (512,))
        return DataLoader(TensorDataset(x, y, torch.arange(512)), 64)


class Decoder(Task):
    """Two causal blocks of width 128, 1,024 tokens, batches of 8 windows of 128."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(1024, 128)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.lm_head = nn.Linear(128, 1024, bias=False)

    def training_step(self, batch: Any, _: int) -> Tensor:
        tokens, index = batch
        hidden = self.token(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.compute_loss(
            hidden=hidden,
            head_weight=self.lm_head.weight,
            target=tokens,
            shift=1,
            sample_index=index,
            group_id=index % 4,
        )

    @staticmethod
    def data() -> DataLoader[Any]:
        tokens = torch.randint(1024, (64, 128))
        return DataLoader(TensorDataset(tokens, torch.arange(tokens.numel()).view(64, 128)), 8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_mlp = nn.LayerNorm(128), nn.LayerNorm(128)
        self.query_key_value, self.mix = nn.Linear(128, 384), nn.Linear(128, 128)
        self.mlp = nn.Sequential(nn.Linear(128, 512), nn.GELU(), nn.Linear(512, 128))

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.query_key_value(self.norm(x)).view(b, t, 3, 4, 32).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(b, t, 128))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


def train(task: type[Any], callbacks: list[L.Callback], steps: int) -> Clock:
    """One run of ``steps`` steps with a validation epoch every 32."""
    torch.manual_seed(0)
    clock, data = Clock(), task.data()
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        callbacks=[Began(), *callbacks, clock],
        check_val_every_n_epoch=4,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task(), data, data)
    return clock


class Seconds(NamedTuple):
    """The least that steps and validation epochs took."""

    due: float
    other: float
    epoch: float

    @staticmethod
    def of(clock: Clock) -> Seconds:
        """Steps of one run; every fifth is measured."""
        after = list(enumerate(clock.steps))[WARM:]
        due, other = ([s for i, s in after if (i % EVERY == 0) == k] for k in (True, False))
        return Seconds(*(sorted(times)[len(times) // 5] for times in (due, other, clock.epochs)))

    def least(self, other: Seconds) -> Seconds:
        """Of two rounds."""
        return Seconds(*map(min, self, other))


def cost(found: Seconds, plain: Seconds, cadence: int, name: str) -> float:
    """The ratio of the docstring."""
    if name in EVERY_STEP:
        return found.due / found.other
    if cadence == 1:
        return min(found.due, found.other) / min(plain.due, plain.other)
    return ((cadence - 1) * found.other + found.due) / (cadence * found.other)


def configs() -> dict[str, DictConfig]:
    """conf/callbacks by name."""
    with initialize_config_module("lightning_losses.conf", version_base="1.3"):
        return {
            name: compose(overrides=[f"+callbacks={name}"]).callbacks[name]
            for name in keys("callbacks")
            if name not in ("elastic_memory", "wandb")  # acts after training; only speaks
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found = {n: c for n, c in configs().items() if options.only is None or n in options.only}
    stepwise = {n: c for n, c in found.items() if c.get("every_n_steps", 1) > 1}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.steps} steps")
    for task in (Convolutional, Decoder):
        print(f"\n{task.__doc__}\n{'monitor':31} {'every':>5} {'ratio':>7} {'validation':>11}")
        added = 0.0
        plain = Seconds.of(train(task, [], options.steps))
        for name, config in sorted(found.items(), key=lambda item: item[0] in CONTROLLERS):
            seen = Seconds.of(train(task, [watched(name, config)], options.steps))
            for _ in range(options.rounds - 1):
                plain = plain.least(Seconds.of(train(task, [], options.steps)))
                seen = seen.least(Seconds.of(train(task, [watched(name, config)], options.steps)))
            cadence = config.get("every_n_steps", 1)
            ratio = cost(seen, plain, cadence, name)
            added += ratio - 1 if name in stepwise or name in EVERY_STEP else 0
            title = f"{name} (acts)" if name in CONTROLLERS else name
            # The others only look at epochs.
            steps = name in stepwise or name in CONTROLLERS or name in EVERY_STEP
            shown = f"{cadence:>5} {ratio:7.3f}" if steps else f"{'':13}"
            print(f"{title:31} {shown} {seen.epoch / plain.epoch:11.3f}")
        print(f"{'all that look at steps, summed':31} {'':5} {1 + added:7.3f}")


def watched(name: str, config: DictConfig) -> L.Callback:
    """The callback, at work in every fifth step, so that the others can be compared with it."""
    return seldom(often(config)) if name in EVERY_STEP else often(config)


def often(config: DictConfig) -> L.Callback:
    """The callback, measuring every fifth step if it has a cadence at all."""
    config = OmegaConf.create(OmegaConf.to_container(config))
    if config.get("every_n_steps", 1) > 1:
        config.every_n_steps = EVERY
    if "reward" in config:
        config.reward = "train/loss"
    callback: L.Callback = instantiate(config)
    return callback


def seldom(callback: L.Callback) -> L.Callback:
    """A callback that looks at every step, made blind to four of five."""
    start, end = callback.on_train_batch_start, callback.on_train_batch_end
    step = 0

    def due_start(trainer: L.Trainer, *rest: Any) -> None:
        nonlocal step
        step = trainer.global_step
        if step % EVERY == 0:
            start(trainer, *rest)

    def due_end(trainer: L.Trainer, *rest: Any) -> None:
        if step % EVERY == 0:
            end(trainer, *rest)

    callback.on_train_batch_start = due_start  # type: ignore[method-assign]
    callback.on_train_batch_end = due_end  # type: ignore[method-assign]
    return callback


if __name__ == "__main__":
    main()
