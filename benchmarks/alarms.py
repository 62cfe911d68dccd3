# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""False and missed alarms of all monitors, on trainings that are known to be healthy or sick.

    python benchmarks/alarms.py
    python benchmarks/alarms.py --only digits_adamw_0.05 policy_collapse_early

Small trainings from fixed seeds, watched by every monitor that speaks, with its defaults, and
judged by the report when they are over. What is due is what was done to the training: each sick one
names the alarm that must come, those that are right too, and the step at which it fell ill; an
alarm that is neither, or comes before that step, is false. In healthy trainings every alarm is
false. The delay is counted in steps; the report's own sentences come at the end. Exits with 1 if
any alarm was false or missed. Takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import (
    AttentionEntropyMonitor,
    DriftMonitor,
    EntropyMonitor,
    GradientRmsMonitor,
    LogitHealthMonitor,
)
from lightning_losses.dashboard.report.verdict import verdict
from lightning_losses.dashboard.runs.find import find_runs
from lightning_losses.dashboard.runs.run import Run

#: What monitors and report say, and what it is called here; anything else is called by its text.
ALARMS = {
    "policy collapse": r"policy entropy has collapsed",
    "policy explosion": r"policy entropy has exploded",
    "few classes": r"mean prediction uses",
    "overconfidence": r"EntropyMonitor: at .*nll_gap is",
    "not finite": r"rows had an entropy of NaN|rows had logits of NaN",
    "softmax collapse": r"rounding left one class",
    "logit growth": r"on its way to reach",
    "attention collapse": r"the attention entropy of",
    "gradients near eps": r"gradients of .* within .* times eps",
    "drift": r"PSI of the confidences",
    "spike": r"spiked",
    "died": r"The training died|Training ended",
}
#: Sentences of the report that are alarms; the others tell what was measured.
OF_REPORT = ("spike", "died")
OVER = ("overconfidence",)


# -- what is trained -------------------------------------------------------------------------------


class Classifier(LossMixin, L.LightningModule):
    """A network, a loss by name and an optimizer with its schedule."""

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        loss: str | list[str] = "ce",
        schedule: Callable[[Any], Any] | None = None,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.optimizer, self.schedule = net, optimizer, schedule
        self.loss, self.temperature, self.factor = build_objective(loss), 1.0, factor

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        named = {"target": F.one_hot(y, 10).float() if "bce" in self.loss.terms else y.flatten()}
        if isinstance(self.net, nn.Sequential):  # what monitors of `curves.py` read
            head = self.net[-1]
            named |= {"features": self.net[:-1](x), "head_weight": head.weight}
            logits = head(named["features"])
        else:
            logits = self.net(x)
        return self.factor * self.compute_loss(logits=logits / self.temperature, **named)

    validation_step = test_step = training_step

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.net.parameters())
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]


class Bandit(LossMixin, L.LightningModule):
    """A table of 32 prompts with 53 answers each, rewards drawn once, and policy gradients.

    Args:
        lr: of Adam.
        bonus: weight of the entropy bonus.
        start: spread of the first logits; 0 is a policy that begins with log 53 = 3.97 nats.
    """

    PROMPTS, ANSWERS = 32, 53

    def __init__(self, lr: float, bonus: float, start: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        self.policy = nn.Embedding(self.PROMPTS, self.ANSWERS)
        nn.init.normal_(self.policy.weight, std=start)
        self.register_buffer("reward", torch.rand(self.PROMPTS, self.ANSWERS))
        self.loss = build_objective(["ppo_clip", "entropy_bonus"])
        dict(self.loss.named_terms())["entropy_bonus"].scale = bonus / 0.01  # the key's own weight

    def training_step(self, batch: Any, _: int) -> Tensor:
        prompt = batch[0]
        logits = self.policy(prompt)
        with torch.no_grad():
            log_prob = logits.log_softmax(1)
            answer = torch.multinomial(log_prob.exp(), 1)[:, 0]
            reward = self.reward[prompt, answer]
            self.log("train/reward", reward.mean())
            advantage = reward - (log_prob.exp() * self.reward[prompt]).sum(1)
            old = log_prob.gather(1, answer[:, None])[:, 0]
        return self.compute_loss(
            logits=logits, target=answer, old_log_prob=old, advantage=advantage / reward.std()
        )

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Decoder(nn.Module):
    """One causal block over bytes: (B, T) int64 to logits (B T, 128)."""

    def __init__(self, width: int = 32, heads: int = 2, context: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.token, self.place = nn.Embedding(128, width), nn.Embedding(context, width)
        self.norm, self.norm_mlp, self.last = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, 128)

    def forward(self, tokens: Tensor) -> Tensor:
        b, t = tokens.shape
        x = self.token(tokens) + self.place.weight[:t]
        qkv = self.qkv(self.norm(x)).view(b, t, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(b, t, -1))
        logits: Tensor = self.head(self.last(x + self.mlp(self.norm_mlp(x))))
        return logits.flatten(0, 1)


def mlp(width: int = 64) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 10),
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


# -- what it is trained on -------------------------------------------------------------------------


@dataclass
class Data:
    """Rows of training, validation and test."""

    train: TensorDataset
    val: TensorDataset | None = None
    test: TensorDataset | None = None
    batch: int = 64

    def loader(self, name: str) -> DataLoader[Any] | None:
        rows = getattr(self, name)
        if rows is None:
            return None
        generator = torch.Generator().manual_seed(0)
        train = name == "train"
        return DataLoader(rows, self.batch, shuffle=train, drop_last=train, generator=generator)


def digits(
    rows: int = 1100, wrong: float = 0.0, noise: float = 0.0, few: Sequence[int] = range(10)
) -> Data:
    """Scikit-learn's digits: so many to train on, a part of the labels drawn anew, noisy tests."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    g = torch.Generator().manual_seed(0)
    x, y = torch.from_numpy(images / 16).float().view(-1, 1, 8, 8), torch.from_numpy(labels).long()
    order = torch.randperm(len(y), generator=g)
    x, y = x[order], y[order]
    train, val, test = slice(0, rows), slice(1100, 1450), slice(1450, None)
    drawn = torch.randint(10, (rows,), generator=g)
    seen = torch.where(torch.rand(rows, generator=g) < wrong, drawn, y[train])
    shifted = x[test] + noise * torch.randn(x[test].shape, generator=g)
    return Data(
        TensorDataset(x[train], seen),
        TensorDataset(x[val], y[val]),
        TensorDataset(shifted, y[test]),
    )


def text() -> Data:
    """The source of this package's own interpreter library, in windows of 32 bytes."""
    source = b"".join(
        Path(module.__file__ or "").read_bytes() for module in (argparse, logging, re)
    )
    stream = torch.frombuffer(bytearray(source), dtype=torch.uint8).long() % 128
    windows = stream[: len(stream) // 33 * 33].view(-1, 33)
    windows = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))]
    pairs = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    val, test = slice(-400, -200), slice(-200, None)
    return Data(
        TensorDataset(pairs[0][:-400], pairs[1][:-400].clone()),
        TensorDataset(pairs[0][val], pairs[1][val]),
        TensorDataset(pairs[0][test], pairs[1][test]),
        batch=16,
    )


def prompts() -> Data:
    return Data(TensorDataset(torch.arange(Bandit.PROMPTS).repeat(40)), batch=128)


# -- what is done to it ----------------------------------------------------------------------------


class From(L.Callback):
    """From a step on, ``act`` on the module before each batch; for ``steps`` of them."""

    def __init__(self, step: int, act: Callable[..., None], steps: float = math.inf) -> None:
        self.step, self.act, self.steps = step, act, steps

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.step <= trainer.global_step < self.step + self.steps:
            self.act(pl_module, batch)


def rate(factor: float) -> Callable[..., None]:
    """Multiplies the learning rate; undone a step later by `rate` of its inverse."""

    def act(module: Any, batch: Any) -> None:
        for group in module.optimizers(use_pl_optimizer=False).param_groups:
            group["lr"] *= factor

    return act


def grow(factor: float, *parts: str) -> Callable[..., None]:
    """Multiplies weights: a decay of the wrong sign."""

    @torch.no_grad()
    def act(module: Any, batch: Any) -> None:
        for part in parts:
            module.net.get_parameter(part).mul_(factor)

    return act


def spoil(module: Any, batch: Any) -> None:
    """A value that is no number among the inputs."""
    batch[0].view(-1)[0] = torch.nan


def cold(module: Any, batch: Any) -> None:
    """Divides logits by a temperature that leaves rounding one class."""
    module.temperature = 0.02


def one_class(module: Any, batch: Any) -> None:
    """Makes the head prefer one class, faster than the weights can make up for it."""
    module.net.get_parameter("5.bias").data[0] += 5.0


def no_bonus(module: Any, batch: Any) -> None:
    """Leaves a policy without what kept its entropy up, and makes it learn faster."""
    dict(module.loss.named_terms())["entropy_bonus"].scale = 0.0
    for group in module.optimizers(use_pl_optimizer=False).param_groups:
        group["lr"] = 0.1


# -- the trainings ---------------------------------------------------------------------------------


@dataclass
class Case:
    """A training and the alarms that are due in it."""

    module: Callable[[], L.LightningModule]
    data: Callable[[], Data] = digits
    due: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    """Right, but not asked for."""
    since: int = 0
    """The step at which it falls ill."""
    done: tuple[Any, ...] = ()
    """What is done to it: the arguments of `From`, one after the other."""
    steps: int = 600


def adam(lr: float, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, **options)


def sgd(lr: float, **options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, **options)


def cosine(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)


def cycle(optimizer: Any) -> Any:
    top = optimizer.param_groups[0]["lr"]
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, top, total_steps=601)


HEALTHY = {
    "digits_adamw_0.001": Case(lambda: Classifier(mlp(), adam(1e-3))),
    "digits_adamw_0.01": Case(lambda: Classifier(mlp(), adam(1e-2))),
    "digits_adamw_0.02": Case(lambda: Classifier(mlp(128), adam(2e-2))),
    "digits_adamw_0.05": Case(lambda: Classifier(mlp(), adam(5e-2))),
    "digits_sgd_0.1": Case(lambda: Classifier(mlp(), sgd(0.1))),
    "digits_momentum_cosine": Case(
        lambda: Classifier(mlp(), sgd(0.1, momentum=0.9), schedule=cosine)
    ),
    "digits_cnn_onecycle": Case(lambda: Classifier(cnn(), adam(1e-2), schedule=cycle)),
    "digits_rmsprop": Case(lambda: Classifier(cnn(), lambda p: torch.optim.RMSprop(p, lr=1e-3))),
    "digits_label_smoothing": Case(lambda: Classifier(mlp(), adam(3e-3), "label_smoothing")),
    "digits_bce": Case(lambda: Classifier(mlp(), adam(3e-3), "bce")),
    "text_adamw_0.001": Case(lambda: Classifier(Decoder(), adam(1e-3)), text),
    "text_adamw_cosine": Case(lambda: Classifier(Decoder(), adam(5e-3), schedule=cosine), text),
    "text_sgd": Case(lambda: Classifier(Decoder(), sgd(0.3, momentum=0.9)), text),
    "policy_bonus": Case(lambda: Bandit(0.01, 0.1), prompts),
    "policy_bonus_faster": Case(lambda: Bandit(0.03, 0.5), prompts),
    "policy_pretrained": Case(lambda: Bandit(0.01, 0.15, start=2.0), prompts),
}

SICK = {
    "policy_collapse_early": Case(
        lambda: Bandit(0.5, 0.0), prompts, ("policy collapse",)
    ),
    "policy_collapse_slow": Case(lambda: Bandit(0.03, 0.0), prompts, ("policy collapse",)),
    "policy_collapse_late": Case(
        lambda: Bandit(0.01, 0.1), prompts, ("policy collapse",), since=300, done=(300, no_bonus, 1)
    ),
    "policy_explosion_early": Case(
        lambda: Bandit(0.3, 3.0, start=4.0), prompts, ("policy explosion",)
    ),
    "digits_spike": Case(
        lambda: Classifier(mlp(), adam(3e-3)), due=("spike",), since=300,
        done=(300, rate(100), 1, 301, rate(0.01), 1),
    ),
    "text_spike": Case(
        lambda: Classifier(Decoder(), adam(1e-3)), text, ("spike",), since=400,
        done=(400, rate(300), 1, 401, rate(1 / 300), 1),
    ),
    "digits_logit_growth": Case(
        lambda: Classifier(mlp(), adam(1e-3)), due=("logit growth",),
        also=("softmax collapse", *OVER), since=200,
        done=(200, grow(1.01, "5.weight", "5.bias"), math.inf),
    ),
    "digits_softmax_collapse": Case(
        lambda: Classifier(mlp(), adam(1e-3)), due=("softmax collapse",),
        also=("logit growth", "spike", *OVER), since=300, done=(300, cold, 1),
    ),
    "digits_wrong_labels": Case(
        lambda: Classifier(mlp(512), adam(3e-3)), lambda: digits(rows=500, wrong=0.4), OVER,
    ),
    "digits_few_rows": Case(
        lambda: Classifier(mlp(256), adam(1e-3)), lambda: digits(rows=64, wrong=0.2), OVER,
    ),
    "digits_one_class": Case(
        lambda: Classifier(mlp(), sgd(0.1)), due=("few classes",),
        also=("logit growth", "softmax collapse", "spike", *OVER), since=200,
        done=(200, one_class, math.inf),
    ),
    "digits_nan_input": Case(
        lambda: Classifier(mlp(), adam(1e-3)), due=("died",), also=("not finite",), since=250,
        done=(250, spoil, 1),
    ),
    "text_diverged": Case(
        lambda: Classifier(Decoder(), sgd(1e9)), text, ("died",),
        also=("not finite", "softmax collapse", "few classes", *OVER),
    ),
    "text_attention_collapse": Case(
        lambda: Classifier(Decoder(), adam(1e-3)), text, ("attention collapse",), since=450,
        done=(450, grow(1.05, "qkv.weight"), 100), also=("spike",),
    ),
    "text_attention_early": Case(
        lambda: Classifier(Decoder(), adam(1e-3)), text, ("attention collapse",), since=0,
        done=(0, grow(1.05, "qkv.weight"), 100), also=("spike",),
    ),
    "digits_eps": Case(
        lambda: Classifier(mlp(), adam(1e-3), factor=1e-8), due=("gradients near eps",),
    ),
    "digits_noisy_test": Case(
        lambda: Classifier(mlp(), adam(3e-3)), lambda: digits(noise=0.5), ("drift",), since=600,
    ),
}  # fmt: skip


# -- what is heard ---------------------------------------------------------------------------------


@contextmanager
def listening(trainer: L.Trainer) -> Iterator[list[tuple[int, str]]]:
    """Steps and texts of all warnings of callbacks."""
    heard: list[tuple[int, str]] = []

    def hear(message: Any, *_: Any, **__: Any) -> None:
        if re.match(r"[A-Z]\w+(Monitor|Law):", str(message)):
            heard.append((trainer.global_step, str(message)))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = hear
        yield heard


def name_of(text: str) -> str:
    """What an alarm is called here."""
    return next((name for name, words in ALARMS.items() if re.search(words, text)), text[:60])


class Outcome(NamedTuple):
    """What a training wrote, and the step at which each alarm was first raised."""

    written: Run
    raised: dict[str, int]


def run(case: Case, seed: int = 0, more: Sequence[L.Callback] = ()) -> Outcome:
    """Train, validate and test, watched by the monitors that speak and by ``more``."""
    torch.manual_seed(seed)
    data, module = case.data(), case.module()
    policy = isinstance(module, Bandit)
    callbacks = [
        *(From(*case.done[i : i + 3]) for i in range(0, len(case.done), 3)),
        EntropyMonitor("policy" if policy else "supervised"),
        LogitHealthMonitor(),
        GradientRmsMonitor(),
        DriftMonitor(),
        *([AttentionEntropyMonitor()] if isinstance(getattr(module, "net", 0), Decoder) else []),
        *more,
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_steps=case.steps,
            accelerator="cpu",
            logger=CSVLogger(folder),
            log_every_n_steps=1,
            callbacks=callbacks,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with listening(trainer) as heard:
            try:
                trainer.fit(module, data.loader("train"), data.loader("val"))
                for again, name in ((trainer.validate, "val"), (trainer.test, "test")):
                    if (loader := data.loader(name)) is not None:
                        again(module, loader, verbose=False)
            except ValueError as error:  # a batch that cannot be meant ends a training on a CPU
                if "NaN" not in str(error):
                    raise
        (one,) = find_runs([folder])
        said = [(trainer.global_step, s.text) for s in verdict(one) if s.tone == "bad"]
    # What a monitor cannot measure it says by `warn_once`, which is no alarm.
    told = {f"{type(c).__name__}: {w}" for c in callbacks for w in getattr(c, "_warned", ())}
    raised: dict[str, int] = {}
    for step, words in heard:
        if words in told:
            continue
        raised.setdefault(name_of(words), step)
    for step, words in said:
        if name_of(words) in OF_REPORT:
            raised.setdefault(name_of(words), step)
    return Outcome(one, raised)


def judged(name: str, case: Case, raised: dict[str, int]) -> tuple[str, int, int]:
    """A line of the table, and how many alarms were missed and false."""
    missed = [alarm for alarm in case.due if alarm not in raised]
    right = {a for a, step in raised.items() if a in (*case.due, *case.also) and step >= case.since}
    false = [f"{alarm} ({step})" for alarm, step in raised.items() if alarm not in right]
    delay = [str(raised[alarm] - case.since) for alarm in case.due if alarm in right]
    told = ", ".join(f"{alarm} ({step})" for alarm, step in raised.items())
    cells = (", ".join(case.due), told, ", ".join(missed), ", ".join(false), ", ".join(delay))
    widths = (20, 46, 12, 12, 0)
    row = " ".join(f"{cell or '-':{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"{name:24} {row}".rstrip(), len(missed), len(false)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 if an alarm was false or missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", help="trainings; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of weights and draws; 0 if not given")
    options = parser.parse_args(argv)
    only = options.only
    cases = HEALTHY | SICK
    unknown = set(only or ()) - set(cases)
    if unknown:
        parser.error(f"no training is called {', '.join(unknown)}; there are {', '.join(cases)}")
    torch.set_num_threads(1)
    for quiet in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(quiet).setLevel(logging.ERROR)
    print(f"torch {torch.__version__}, seed {options.seed}; in brackets: when it was first raised")
    print(judged("training", Case(Bandit.__call__, due=("due",)), {})[0])
    missed = false = 0
    began = time.perf_counter()
    for name in only or cases:
        row, lost, wrong = judged(name, cases[name], run(cases[name], options.seed).raised)
        missed, false = missed + lost, false + wrong
        print(row, flush=True)
    print(f"{len(only or cases)} trainings: {false} false, {missed} missed")
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return int(bool(missed or false))


if __name__ == "__main__":
    sys.exit(main())
