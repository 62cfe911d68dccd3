# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a model that is to be right once in N samples profit from DCO?

python examples/reproduce/coverage.py

Chen et al., arXiv 2502.07154: cross-entropy makes a model surer than is good for pass@N, the chance
that one of N samples is right; DCO trains for that chance, and each N is best at its own N. Here a
prompt is four different digits below 8, and right is every order of them whose first is below its
last: 12 answers. A transformer of two blocks learns from 400 prompts with one right answer each,
over and over, and is asked 256 others. pass@N is exact, 1 - (1 - p)^N with p the probability of the
12 together: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from networks import Decoder
from omegaconf import DictConfig
from study import Claim, Options, Scores, loss_config, options, write
from torch import Tensor

from lightning_losses import build_objective

DIGITS, LENGTH, TRAIN, TEST = 8, 4, 400, 256
METHODS = {"ce": 1, "dco, N = 4": 4, "dco, N = 16": 16, "dco, N = 64": 64}
TRIED = (1, 4, 16, 64)
DRAWN = (1, 2, 4, 8, 16, 32, 64)
SURE, PAPER = "own p of training answers", "2502.07154"


def config(samples: int) -> DictConfig:
    """Cross-entropy, or DCO for so many samples."""
    return loss_config("ce") if samples == 1 else loss_config("dco", samples=samples)


def column(samples: int) -> str:
    """The name of pass@samples in the table."""
    return f"pass@{samples}"


def right_answers(prompts: Tensor) -> Tensor:
    """(B, 4) different digits -> (B, 12, 4), every order whose first is below its last."""
    orders = prompts[:, torch.tensor(list(permutations(range(LENGTH))))]
    return torch.stack([each[each[:, 0] < each[:, -1]] for each in orders])


def text_of(prompts: Tensor, answers: Tensor) -> Tensor:
    """(B, 4) and (B, 4) -> (B, 9): prompt, the token that asks, answer."""
    return torch.cat([torch.nn.functional.pad(prompts, (0, 1), value=DIGITS), answers], 1)


def log_prob(net: Decoder, prompts: Tensor, answers: Tensor) -> Tensor:
    """Of whole answers (B,), in nats."""
    logits = net(text_of(prompts, answers)[:, :-1])[:, LENGTH:]
    return logits.log_softmax(-1).gather(-1, answers[..., None]).sum((1, 2))


@torch.no_grad()
def pass_at(net: Decoder, prompts: Tensor) -> dict[int, float]:
    """Mean over prompts of the chance that one of N samples is right."""
    right = right_answers(prompts)
    many = prompts[:, None].expand_as(right).flatten(0, 1)
    p = log_prob(net, many, right.flatten(0, 1)).view(len(prompts), -1).double().exp().sum(1)
    return {n: float((1 - (1 - p.clamp(max=1)) ** n).mean()) for n in DRAWN}


def run(samples: int, seed: int, ran: Options) -> tuple[dict[int, float], float]:
    """Pass@N of new prompts, and the mean probability of the answers that were learned."""
    draw = torch.Generator().manual_seed(seed)
    prompts = torch.tensor(list(permutations(range(DIGITS), LENGTH)))
    prompts = prompts[torch.randperm(len(prompts), generator=draw)][: TRAIN + TEST]
    train, test = prompts[:TRAIN], prompts[TRAIN:]
    right = right_answers(train)
    chosen = torch.randint(right.shape[1], (TRAIN,), generator=draw)
    answers = right[torch.arange(TRAIN), chosen]
    net = Decoder(DIGITS + 1, 2 * LENGTH, seed=seed)
    objective = build_objective(config(samples))
    adam = torch.optim.Adam(net.parameters(), lr=ran.lr)
    for _ in range(ran.epochs):
        for rows in torch.randperm(TRAIN, generator=draw).split(100):
            logits = net(text_of(train[rows], answers[rows])[:, :-1])[:, LENGTH:]
            record = objective(
                logits=logits.flatten(0, 1),
                target=answers[rows].flatten(),
                sequence_id=rows.repeat_interleave(LENGTH),
            )
            adam.zero_grad()
            record.total.backward()
            adam.step()
    with torch.no_grad():
        sure = float(log_prob(net, train, answers).exp().mean())
    return pass_at(net, test), sure


def main(argv: Sequence[str] | None = None) -> None:
    from report import lines

    ran = options("coverage", seeds=5, epochs=100, argv=argv, lr=2e-3)
    scores: Scores = {}
    curves: list[dict[str, Any]] = []
    for method, samples in METHODS.items():
        found = scores[method] = {c: [] for c in (*map(column, TRIED), SURE)}
        for seed in range(ran.seeds):
            passed, sure = run(samples, seed, ran)
            for n in TRIED:
                found[column(n)].append(passed[n])
            found[SURE].append(sure)
            curves += [
                {"method": method, "samples": n, "pass@N": value} for n, value in passed.items()
            ]
    names = list(METHODS)
    claimed = [
        Claim(f"{name} has a higher {column(n)} than ce ({PAPER})", name, "ce", column(n))
        for name in names[1:]
        for n in TRIED[1:]
    ]
    claimed += [
        Claim(f"ce has a higher pass@1 than {name} ({PAPER})", "ce", name, column(1))
        for name in names[1:]
    ]
    claimed += [
        Claim(f"at N = {n}, {own} is better than {other} ({PAPER})", own, other, column(n))
        for own, n in list(METHODS.items())[1:]
        for other in names[1:]
        if other != own
    ]
    claimed += [
        Claim(f"ce is surer of its training answers than {name} ({PAPER})", "ce", name, SURE)
        for name in names[1:]
    ]
    title = {
        "text": "One of N samples is right",
        "subtitle": f"new prompts, 12 of 4096 answers are right, mean of {ran.seeds} seeds",
    }
    chart = lines(curves, "samples", "pass@N", title, 0, log="x")
    write("coverage", scores, claimed, chart, ran, "Adam at {lr:g}, batches of 100")


if __name__ == "__main__":
    main()
