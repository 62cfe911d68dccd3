# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What keeps the entropy of a policy that learns to sort digits from rewards alone?

python examples/reproduce/policy_sorting.py

A transformer of two blocks, from scratch, is shown four digits below 8 and writes four; the reward
is the share that stands where sorting would put it. An epoch draws 8 answers to each of 32 prompts,
and makes two passes over them in two steps each, so that three of four steps are off-policy.

In entropy_collapse one row of 64, or three, made no difference. Here clip_cov and kl_cov may act on
20 % of the 512 rows of a step: for clip_cov that is all rows within its bounds of the covariance, 1
and 5. kl_cov has the authors' coefficient 1 and clips no ratio; its rival is unclipped, the same
with coefficient 0. entropy_target and aepo are to hold 0.5 nats; the coefficient of entropy_target
moves by 0.005 up to 0.2, and aepo draws 64 more answers at temperature 1.2, or 32 at 0.8.

The second table: the law R = b - a e^H (2505.22617), fitted to the first half of each run, and what
it says of the second. Where it is not applicable, its ceiling is the reward at half time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from entropy_collapse import above_rivals
from networks import Decoder
from omegaconf import DictConfig, open_dict
from study import Claim, Options, Scores, loss_config, options, write
from torch import Tensor

from lightning_losses import build_objective
from lightning_losses.callbacks.controllers.entropy_target import Coefficient
from lightning_losses.config.build import compose_losses
from lightning_losses.losses.policy.advantage import grpo_advantage
from lightning_losses.metrics.training_curve.entropy_law import entropy_law
from lightning_losses.sampling import EntropyGate, draw

DIGITS, LENGTH, PROMPTS, GROUP, PASSES, PARTS, TESTED = 8, 4, 32, 8, 2, 2, 512
TARGET, BONUS = 0.5, 0.01  # nats; the weight in entropy_bonus.yaml
METHODS = (
    *("grpo", "unclipped", "entropy_bonus", "clip_cov, 20 %", "kl_cov, 20 %"),
    *("steer", "aepo", "entropy_target"),
)
REWARD, GREEDY, ENTROPY = "reward", "reward, greedy", "entropy, nats"
HALF, CEILING, FIT = "reward at half time", "ceiling", "R2"
OFF, HALF_OFF = "ceiling off by", "half time off by"
COV = "2505.22617"
PAPERS = {
    "entropy_bonus": "1701.06548",
    "steer": "2510.10150",
    "aepo": "2510.08141",
    "entropy_target": "2505.22312",
}


def config(method: str) -> DictConfig:
    """What the method's objective is made of."""
    name, _, share = method.partition(", ")
    if name in ("entropy_bonus", "entropy_target"):
        return compose_losses(["grpo", "entropy_bonus"])
    if name == "aepo":
        return compose_losses(["grpo", "aepo"])
    if name == "steer":
        steered = loss_config("grpo")
        with open_dict(steered):
            steered.grpo.row_weighting = {"_target_": "lightning_losses.weighting.Steer"}
        return steered
    changes: dict[str, Any] = {"ratio": 0.2} if share else {}
    if name in ("kl_cov", "unclipped"):
        return loss_config("kl_cov", coefficient=float(name == "kl_cov"), **changes)
    return loss_config(name, **changes)


def every_prompt() -> Tensor:
    """(4096, 5): all strings, then the token that asks for the answer."""
    strings = torch.cartesian_prod(*[torch.arange(DIGITS)] * LENGTH)
    return torch.nn.functional.pad(strings, (0, 1), value=DIGITS)


def reward_of(asked: Tensor, answers: Tensor) -> Tensor:
    """Share of places that are right (B,)."""
    return (answers == asked[:, :LENGTH].sort(1).values).float().mean(1)


@torch.no_grad()
def answer(
    policy: Decoder, asked: Tensor, generator: torch.Generator, temperature: float = 1.0
) -> dict[str, Tensor]:
    """Answers (B, LENGTH), log p of their tokens at temperature 1, and the mean entropy in nats."""
    text, logs, entropies = asked, [], []
    for _ in range(LENGTH):
        logits = policy(text)[:, -1, :DIGITS]
        drawn = draw(logits / temperature, generator, logits)
        entropies.append(torch.special.entr(logits.softmax(1)).sum(1))
        logs.append(drawn.full_log_prob)
        text = torch.cat([text, drawn.token[:, None]], 1)
    return {"text": text, "log_prob": torch.stack(logs, 1), "entropy": torch.stack(entropies, 1)}


@torch.no_grad()
def greedy_reward(policy: Decoder) -> float:
    """Of the answers of the likeliest tokens to some prompts, the same ones always."""
    prompts = every_prompt()
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(1000))
    text = asked = prompts[order[:TESTED]]
    for _ in range(LENGTH):
        text = torch.cat([text, policy(text)[:, -1:, :DIGITS].argmax(-1)], 1)
    return float(reward_of(asked, text[:, LENGTH + 1 :]).mean())


def run(method: str, seed: int, ran: Options) -> tuple[list[dict[str, float]], float]:
    """Reward and entropy of the answers of each epoch, and the greedy reward after the last."""
    policy = Decoder(DIGITS + 1, 2 * LENGTH, seed=seed)
    objective = build_objective(config(method))
    bonus = dict(objective.named_terms()).get("entropy_bonus")
    adam = torch.optim.Adam(policy.parameters(), lr=ran.lr)
    target = Coefficient(TARGET, delta=5e-3, initial=0.0, low=0.0, high=0.2)
    gate = EntropyGate(TARGET, samples=64)
    generator = torch.Generator().manual_seed(seed)
    prompts, history, step = every_prompt(), [], 0
    for _ in range(ran.epochs):
        asked = prompts[torch.randint(len(prompts), (PROMPTS,), generator=generator)]
        batch = rollout(policy, asked, generator)
        history.append({REWARD: float(batch["share"].mean())})
        history[-1][ENTROPY] = float(batch["entropy"].mean())
        if method == "aepo":
            temperature, samples = gate.choose(history[-1][ENTROPY])
            more = rollout(policy, asked[: samples // GROUP], generator, temperature)
            # Rewarded for being better than the others of their prompt; else left alone.
            more |= {"reward": more["advantage"], "advantage": more["reward"]}
            more["prompt"] += PROMPTS
            batch = {name: torch.cat([batch[name], more[name]]) for name in batch}
        groups = batch["prompt"].unique()
        for _ in range(PASSES):
            for part in groups[torch.randperm(len(groups), generator=generator)].chunk(PARTS):
                if bonus is not None and method == "entropy_target":
                    bonus.scale = target.applied / BONUS
                rows = torch.isin(batch["prompt"], part).nonzero()[:, 0]
                objective.set_step(step)
                record = objective(**named(policy, batch, rows))
                adam.zero_grad()
                record.total.backward()
                adam.step()
                if record.stats.entropy is not None:
                    target.update(float(record.stats.entropy.mean()))
                step += 1
    return history, greedy_reward(policy)


def rollout(
    policy: Decoder, asked: Tensor, generator: torch.Generator, temperature: float = 1.0
) -> dict[str, Tensor]:
    """GROUP answers to each prompt, how right they are, and their advantages."""
    prompt = torch.arange(len(asked)).repeat_interleave(GROUP)
    found = answer(policy, asked[prompt], generator, temperature)
    share = reward_of(asked[prompt], found["text"][:, LENGTH + 1 :])
    advantage = grpo_advantage(share, prompt)
    # `reward` is what aepo reads: none for answers drawn as usual.
    more = {"prompt": prompt, "share": share, "advantage": advantage}
    return found | more | {"reward": torch.zeros_like(share)}


def named(policy: Decoder, batch: dict[str, Tensor], rows: Tensor) -> dict[str, Any]:
    """The named tensors of a step on some of the answers, a row a token."""
    text = batch["text"][rows]

    def spread(name: str) -> Tensor:
        return batch[name][rows, None].expand(-1, LENGTH).flatten()

    return {
        "logits": policy(text[:, :-1])[:, LENGTH:, :DIGITS].flatten(0, 1),
        "target": text[:, LENGTH + 1 :].flatten(),
        "old_log_prob": batch["log_prob"][rows].flatten(),
        "advantage": spread("advantage"),
        "reward": spread("reward"),
        "sequence_id": rows.repeat_interleave(LENGTH),
    }


def mean_of(history: Sequence[dict[str, float]], column: str) -> float:
    """Over the last tenth of these epochs."""
    return fmean(now[column] for now in history[-max(len(history) // 10, 1) :])


def forecast(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """What the law says after the first half, and how far off it is at the end."""
    half = history[: max(len(history) // 2, 1)]
    law = entropy_law([now[ENTROPY] for now in half], [now[REWARD] for now in half])
    now, end = mean_of(half, REWARD), mean_of(history, REWARD)
    ceiling = now if law.problem else law.ceiling
    return {
        FIT: 0.0 if law.problem else law.r2,
        HALF: now,
        CEILING: ceiling,
        HALF_OFF: abs(now - end),
        OFF: abs(ceiling - end),
    }


def main(argv: Sequence[str] | None = None) -> None:
    import altair as alt
    from report import lines

    ran = options("policy_sorting", seeds=5, epochs=40, argv=argv, lr=4e-3)
    scores: Scores = {method: {c: [] for c in (REWARD, GREEDY, ENTROPY)} for method in METHODS}
    laws: Scores = {}
    curves: list[dict[str, Any]] = []
    for method in METHODS:
        for seed in range(ran.seeds):
            history, greedy = run(method, seed, ran)
            for column in (REWARD, ENTROPY):
                scores[method][column].append(mean_of(history, column))
            scores[method][GREEDY].append(greedy)
            for column, value in forecast(history).items():
                laws.setdefault(law_of(method), {}).setdefault(column, []).append(value)
            curves += [
                {"method": method, "epoch": epoch} | now
                for epoch, now in enumerate(smooth(history))
            ]
    claimed = [
        Claim(f"{m}: half of the entropy is gone, log 8 at the start ({COV})", m, 1.04, ENTROPY, -1)
        for m in METHODS[:2]
    ]
    claimed += above_rivals(
        METHODS[2:],
        PAPERS,
        ("ends with more entropy than", ENTROPY),
        ("earns more reward than", REWARD),
        ("has better likeliest answers than", GREEDY),
    )
    claimed += [
        Claim(
            f"{m}: the law's ceiling is nearer to the end than the reward at half time ({COV})",
            law_of(m),
            law_of(m),
            OFF,
            -1,
            baseline_column=HALF_OFF,
        )
        for m in METHODS[:2]
    ]
    title = {
        "text": "A transformer learns to sort four digits from rewards",
        "subtitle": f"mean of {ran.seeds} seeds and of 3 epochs",
    }
    small = {"fontSize": 14, "fontWeight": "normal"}
    panels = [
        lines(curves, "epoch", y, {"text": words, **small}, 0, 330, 270)
        for y, words in ((ENTROPY, "Entropy"), (REWARD, "Reward"))
    ]
    chart = alt.hconcat(*panels, title=title, spacing=30)
    setting = "Adam at {lr:g}, 4 steps an epoch on 512 rows each; the last tenth of the epochs"
    write("policy_sorting", scores, claimed, chart, ran, setting, more=laws)


def law_of(method: str) -> str:
    """The method's name in the table of the law."""
    return f"{method}, law"


def smooth(history: Sequence[dict[str, float]], window: int = 3) -> list[dict[str, float]]:
    """Means of so many epochs up to each."""
    return [
        {name: fmean(now[name] for now in history[max(0, i - window + 1) : i + 1]) for name in one}
        for i, one in enumerate(history)
    ]


if __name__ == "__main__":
    main()
