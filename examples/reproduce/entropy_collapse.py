# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a policy trained on verifiable rewards lose its entropy, and what keeps it?

python examples/reproduce/entropy_collapse.py

Cui et al., arXiv 2505.22617: policy gradients trade entropy for reward until none is left; Clip-Cov
and KL-Cov act on the few actions that drive it. Here a table of 32 prompts with 20 answers each: 4
are right (reward 1), 4 half right (0.5). At the start half right ones are likely, right ones rare.
An epoch samples 8 answers a prompt, takes their group advantages, and makes a step on each quarter
of the prompts, three times over. clip_cov and kl_cov as their YAMLs have them (kl_cov with the
authors' coefficient 1), one row of the 64 of a step, and with 5 %, three rows. KL-Cov clips no
ratio, so its rival is unclipped, the same with coefficient 0. entropy_target holds log 4 nats, what
the right answers alone can have; its bonus moves by 0.001 up to 0.2, for the YAML's limits are made
for runs of thousands of steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from study import Claim, Options, Scores, loss_config, options, write
from torch import Tensor, nn

from lightning_losses import build_objective
from lightning_losses.callbacks.controllers.entropy_target import Coefficient
from lightning_losses.config.build import compose_losses
from lightning_losses.losses.policy.advantage import grpo_advantage

PROMPTS, ANSWERS, RIGHT, HALF, GROUP, PASSES, PARTS = 32, 20, 4, 4, 8, 3, 4
METHODS = (
    *("grpo", "unclipped", "entropy_bonus", "clip_cov", "clip_cov, 5 %", "kl_cov", "kl_cov, 5 %"),
    "entropy_target",
)
REWARD, ENTROPY, KEPT = "mean reward", "entropy, nats", "right answers above 5 %"
HALVED, BONUS = "entropy halved, epoch", 0.01  # the weight in entropy_bonus.yaml
PAPERS = {"entropy_bonus": "1701.06548", "entropy_target": "2505.22312"}
COV = "2505.22617"


def config(method: str) -> DictConfig:
    """What the method's objective is made of."""
    name, _, share = method.partition(", ")
    if name in ("entropy_bonus", "entropy_target"):
        return compose_losses(["grpo", "entropy_bonus"])
    changes: dict[str, Any] = {"ratio": 0.05} if share else {}
    if name in ("kl_cov", "unclipped"):
        return loss_config("kl_cov", coefficient=float(name == "kl_cov"), **changes)
    return loss_config(name, **changes)


def task(seed: int) -> tuple[Tensor, nn.Embedding]:
    """The reward of each answer to each prompt (P, K), and a policy that starts at the half right.

    Which answers are which is random.
    """
    draw = torch.Generator().manual_seed(seed)
    reward, start = torch.zeros(PROMPTS, ANSWERS), torch.zeros(PROMPTS, ANSWERS)
    order = torch.rand(PROMPTS, ANSWERS, generator=draw).argsort(1)
    reward.scatter_(1, order[:, :RIGHT], 1.0)
    reward.scatter_(1, order[:, RIGHT : RIGHT + HALF], 0.5)
    start += (reward == 0.5).float() - (reward == 1).float()
    start += 0.5 * torch.randn(PROMPTS, ANSWERS, generator=draw)
    policy = nn.Embedding(PROMPTS, ANSWERS)
    policy.weight.data.copy_(start)
    return reward, policy


@torch.no_grad()
def measured(policy: nn.Embedding, reward: Tensor) -> dict[str, float]:
    """Exact, over all prompts: no sampling."""
    p = policy.weight.softmax(1)
    return {
        REWARD: float((p * reward).sum(1).mean()),
        ENTROPY: float(torch.special.entr(p).sum(1).mean()),
        KEPT: float(((p > 0.05) & (reward == 1)).sum(1).float().mean()),
    }


def run(method: str, seed: int, ran: Options) -> list[dict[str, float]]:
    """Measurements before each epoch and after the last."""
    reward, policy = task(seed)
    objective = build_objective(config(method))
    bonus = dict(objective.named_terms()).get("entropy_bonus")
    adam = torch.optim.Adam(policy.parameters(), lr=ran.lr)
    target = Coefficient(math.log(RIGHT), delta=1e-3, initial=0.0, low=0.0, high=0.2)
    draw = torch.Generator().manual_seed(seed)
    prompt = torch.arange(PROMPTS).repeat_interleave(GROUP)
    history, step = [measured(policy, reward)], 0
    for _ in range(ran.epochs):
        with torch.no_grad():
            old = policy.weight.log_softmax(1)
            answer = torch.multinomial(old.exp(), GROUP, replacement=True, generator=draw).flatten()
            old_log_prob = old[prompt, answer]
            advantage = grpo_advantage(reward[prompt, answer], prompt)
        for _ in range(PASSES):
            for part in torch.randperm(PROMPTS, generator=draw).chunk(PARTS):
                rows = torch.isin(prompt, part).nonzero()[:, 0]
                if bonus is not None and method == "entropy_target":
                    bonus.scale = target.applied / BONUS
                objective.set_step(step)
                record = objective(
                    logits=policy(prompt[rows]),
                    target=answer[rows],
                    old_log_prob=old_log_prob[rows],
                    advantage=advantage[rows],
                    sequence_id=rows,
                )
                adam.zero_grad()
                record.total.backward()
                adam.step()
                if record.stats.entropy is not None:
                    target.update(float(record.stats.entropy.mean()))
                step += 1
        history.append(measured(policy, reward))
    return history


def main(argv: Sequence[str] | None = None) -> None:
    import altair as alt
    from report import lines

    ran = options("entropy_collapse", seeds=5, epochs=100, argv=argv, lr=0.03)
    scores: Scores = {}
    curves: list[dict[str, Any]] = []
    for method in METHODS:
        found = scores[method] = {c: [] for c in (REWARD, ENTROPY, KEPT, HALVED)}
        for seed in range(ran.seeds):
            history = run(method, seed, ran)
            for column in (REWARD, ENTROPY, KEPT):
                found[column].append(history[-1][column])
            half = history[0][ENTROPY] / 2
            low = (epoch for epoch, now in enumerate(history) if now[ENTROPY] < half)
            found[HALVED].append(float(next(low, ran.epochs)))
            curves += [
                {"method": method, "epoch": epoch} | now for epoch, now in enumerate(history)
            ]
    claimed = [
        Claim(f"grpo: entropy falls below half of log 4 ({COV})", "grpo", 0.693, ENTROPY, -1)
    ]
    claimed += above_rivals(
        METHODS[2:],
        PAPERS,
        ("ends with more entropy than", ENTROPY),
        ("earns more reward than", REWARD),
        ("keeps more right answers than", KEPT),
    )
    title = {
        "text": "A policy on 32 prompts, 4 of 20 answers right",
        "subtitle": f"mean of {ran.seeds} seeds",
    }
    small = {"fontSize": 14, "fontWeight": "normal"}
    panels = [
        lines(curves, "epoch", y, {"text": words, **small}, 0, 250, 250)
        for y, words in ((ENTROPY, "Entropy"), (REWARD, "Reward"), (KEPT, "Right answers kept"))
    ]
    chart = alt.hconcat(*panels, title=title, spacing=30)
    setting = "Adam at {lr:g}, 12 steps an epoch on 64 rows each"
    write("entropy_collapse", scores, claimed, chart, ran, setting)


def above_rivals(
    methods: Sequence[str], papers: Mapping[str, str], *questions: tuple[str, str]
) -> list[Claim]:
    """That each method is above its rival, for words and the column that they are about.

    kl_cov does without the clip, so its rival is the policy gradient without one.
    """
    claims = []
    for words, column in questions:
        for method in methods:
            rival = "unclipped" if method.startswith("kl_cov") else "grpo"
            paper = papers.get(method, COV)
            claims.append(Claim(f"{method} ({paper}) {words} {rival}", method, rival, column))
    return claims


if __name__ == "__main__":
    main()
