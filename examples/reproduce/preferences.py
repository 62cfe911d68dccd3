# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a policy learn what is preferred, and which token the preference is about?

python examples/reproduce/preferences.py

A prompt is four different digits below 8; a transformer of two blocks first learns by cross-entropy
to answer with them in any order: the reference. It answers each of 512 prompts twice, and that
answer is preferred whose second token is the larger: the other tokens do not matter, and nobody
says so. DPO and SparsePO then train a copy on these pairs. SparsePO weighs tokens by masks: of
ones, for the second token alone (which nobody knows in earnest), or learned, a linear layer with a
ReLU on what the reference holds at that token, for reward and divergence alike, with and without a
price of 0.01 on its sum.

On 512 new prompts: `reward` is the rank of the second token among the prompt's digits, from 0 to 1,
0 if it is none of them; `orders` the share of answers that are still an order of them; divergence
from the reference in nats an answer, at the second token and at the others, where nothing was asked
for; `on the second` the share of the mask that is there, 0.25 if it is spread evenly.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from networks import Decoder
from study import Claim, Options, Scores, loss_config, options, write
from torch import Tensor, nn

from lightning_losses import Objective, build_objective

DIGITS, LENGTH, PROMPTS, TESTED, SECOND = 8, 4, 512, 512, 1
LEARNED, PRICED = "sparse_po, learned", "sparse_po, learned, priced"
ONES, KNOWN = "sparse_po, ones", "sparse_po, second alone"
REFERENCE, METHODS = "reference", ("dpo", ONES, KNOWN, LEARNED, PRICED)
REWARD, VALID, THERE, ELSEWHERE = "reward", "orders", "nats at the second", "nats elsewhere"
SHARE, PAIRS = "on the second", "pairs told apart"
DPO, SPARSE = "2305.18290", "2410.05102"


def asked(prompts: Tensor) -> Tensor:
    """(B, 4) -> (B, 5): and the token that asks for the answer."""
    return nn.functional.pad(prompts, (0, 1), value=DIGITS)


def all_prompts(seed: int) -> Tensor:
    """(1680, 4): four different digits, in an order of the seed."""
    prompts = torch.tensor(list(permutations(range(DIGITS), LENGTH)))
    return prompts[torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed))]


def logits_of(policy: Decoder, text: Tensor) -> Tensor:
    """(B, 9) -> (B, 4, 8) of the answer's tokens."""
    return policy(text[:, :-1])[:, LENGTH:, :DIGITS]


@torch.no_grad()
def answer(policy: Decoder, prompts: Tensor, draw: torch.Generator) -> Tensor:
    """(B, 4) -> (B, 9): prompt, question, answer, token by token."""
    text = asked(prompts)
    for _ in range(LENGTH):
        p = policy(text)[:, -1, :DIGITS].softmax(1)
        text = torch.cat([text, torch.multinomial(p, 1, generator=draw)], 1)
    return text


def reward_of(text: Tensor) -> Tensor:
    """Rank of the second token among the prompt's digits, from 0 to 1; 0 for another token."""
    prompts, token = text[:, :LENGTH], text[:, LENGTH + 1 + SECOND, None]
    rank = (prompts < token).sum(1) / (LENGTH - 1)
    return torch.where((prompts == token).any(1), rank, 0)


def reference(prompts: Tensor, seed: int, steps: int) -> Decoder:
    """Answers with the prompt's digits in any order."""
    policy = Decoder(DIGITS + 1, 2 * LENGTH, seed=seed)
    objective, adam = build_objective("ce"), torch.optim.Adam(policy.parameters(), lr=4e-3)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        now = prompts[torch.randint(len(prompts), (128,), generator=draw)]
        order = torch.rand(now.shape, generator=draw).argsort(1)
        text = torch.cat([asked(now), now.gather(1, order)], 1)
        logits = logits_of(policy, text).flatten(0, 1)
        adam.zero_grad()
        objective(logits=logits, target=text[:, LENGTH + 1 :].flatten()).total.backward()
        adam.step()
    return policy.eval()


class Mask(nn.Module):
    """How much each token counts, from what the reference holds there: (B, 9) -> (B, 4)."""

    def __init__(self, policy: Decoder, width: int = 32) -> None:
        super().__init__()
        self.held = [policy]  # in a list: no submodule, and not trained
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.ones_(self.out.bias)  # begins as ones

    def forward(self, text: Tensor) -> Tensor:
        policy = self.held[0]
        with torch.no_grad():
            tokens = text[:, :-1]
            h = policy.blocks(policy.token(tokens) + policy.place[: tokens.shape[1]])
        out: Tensor = self.out(self.norm(h[:, LENGTH:]))[..., 0].relu()
        return out


def objective_of(method: str) -> Objective:
    """DPO, or SparsePO with or without a price."""
    if method == "dpo":
        return build_objective("dpo")
    return build_objective(loss_config("sparse_po", l1=0.01 if method == PRICED else 0.0))


def trained(
    method: str, frozen: Decoder, texts: Tensor, chosen: Tensor, seed: int, ran: Options
) -> tuple[Decoder, Mask]:
    """A copy of the reference that learned from pairs (P, 2, 9); chosen (P,) is 0 or 1."""
    policy, mask, objective = copy.deepcopy(frozen), Mask(frozen), objective_of(method)
    policy.train()
    # Masks decay in the recipes; the policy does not.
    groups = [
        {"params": policy.parameters(), "weight_decay": 0.0},
        {"params": mask.parameters(), "weight_decay": 0.01},
    ]
    adam = torch.optim.AdamW(groups, lr=ran.lr)
    draw = torch.Generator().manual_seed(seed)
    second = torch.zeros(LENGTH)
    second[SECOND] = 1.0
    step = 0
    for _ in range(ran.epochs):
        for pairs in torch.randperm(len(texts), generator=draw).split(64):
            text = texts[pairs].flatten(0, 1)
            target = text[:, LENGTH + 1 :]
            with torch.no_grad():
                held = logits_of(frozen, text)
            side = torch.arange(2)[None, :] == chosen[pairs, None]
            named: dict[str, Any] = {
                "logits": logits_of(policy, text).flatten(0, 1),
                "target": target.flatten(),
                "pair_id": pairs.repeat_interleave(2 * LENGTH),
                "chosen": side.flatten().repeat_interleave(LENGTH),
            }
            if method == "dpo":
                known = held.log_softmax(-1).gather(-1, target[..., None])
                named["ref_log_prob"] = known.flatten()
            else:
                named["teacher_logits"] = held.flatten(0, 1)
                weights = {ONES: torch.ones(LENGTH), KNOWN: second}.get(method)
                found = mask(text) if weights is None else weights.expand(len(text), -1)
                named["reward_mask"] = found.flatten()
            objective.set_step(step)
            adam.zero_grad()
            objective(**named).total.backward()
            adam.step()
            step += 1
    return policy.eval(), mask


@torch.no_grad()
def judge(policy: Decoder, frozen: Decoder, prompts: Tensor, seed: int) -> dict[str, float]:
    """What the policy's own answers to new prompts are like."""
    text = answer(policy, prompts, torch.Generator().manual_seed(5000 + seed))
    log_p, log_ref = (logits_of(net, text).log_softmax(-1) for net in (policy, frozen))
    nats = (log_p.exp() * (log_p - log_ref)).sum(-1).mean(0)
    same = (text[:, LENGTH + 1 :].sort(1).values == prompts.sort(1).values).all(1)
    return {
        REWARD: float(reward_of(text).mean()),
        VALID: float(same.float().mean()),
        THERE: float(nats[SECOND]),
        ELSEWHERE: float(nats.sum() - nats[SECOND]),
    }


@torch.no_grad()
def share_on_second(method: str, mask: Mask, texts: Tensor) -> float:
    """Of the mask, over the answers that it was trained on."""
    if method in (LEARNED, PRICED):
        weights = mask(texts.flatten(0, 1)).sum(0)
        return float(weights[SECOND] / weights.sum().clamp(min=1e-9))
    return 1.0 if method == KNOWN else 1 / LENGTH


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("preferences", seeds=5, epochs=20, argv=argv, lr=3e-4)
    columns = (REWARD, VALID, THERE, ELSEWHERE, SHARE)
    scores: Scores = {m: {c: [] for c in columns} for m in (REFERENCE, *METHODS)}
    for seed in range(ran.seeds):
        prompts = all_prompts(seed)
        train, test = prompts[:PROMPTS], prompts[PROMPTS : PROMPTS + TESTED]
        frozen = reference(train, seed, 20 * ran.epochs)
        draw = torch.Generator().manual_seed(1000 + seed)
        texts = torch.stack([answer(frozen, train, draw) for _ in range(2)], 1)
        second = texts[:, :, LENGTH + 1 + SECOND]
        texts = texts[second[:, 0] != second[:, 1]]
        chosen = texts[:, :, LENGTH + 1 + SECOND].argmax(1)
        for method in (REFERENCE, *METHODS):
            policy, mask = frozen, Mask(frozen)
            if method != REFERENCE:
                policy, mask = trained(method, frozen, texts, chosen, seed, ran)
            found = judge(policy, frozen, test, seed)
            found[SHARE] = share_on_second(method, mask, texts)
            for column, value in found.items():
                scores[method][column].append(value)
    claimed = [Claim(f"dpo ({DPO}) raises the reward", "dpo", REFERENCE, REWARD)]
    claimed += [
        Claim(f"{m} ({SPARSE}) raises the reward", m, REFERENCE, REWARD) for m in METHODS[1:]
    ]
    claimed += [Claim(f"{m} earns more than dpo", m, "dpo", REWARD) for m in METHODS[1:]]
    claimed += [
        Claim(f"{m} drifts less than dpo where nothing was asked", m, "dpo", ELSEWHERE, -1)
        for m in METHODS[1:]
    ]
    claimed += [
        Claim(f"{m}: the mask finds the token ({SPARSE})", m, 1 / LENGTH, SHARE)
        for m in (LEARNED, PRICED)
    ]
    title = {
        "text": "Preferences about the second token alone",
        "subtitle": f"each of {ran.seeds} seeds a dot, the mean a bar",
    }
    chart = dots(scores, (REWARD, THERE, ELSEWHERE, SHARE), title, width=170)
    setting = "AdamW at {lr:g}, 64 pairs a batch"
    write("preferences", scores, claimed, chart, ran, setting)


if __name__ == "__main__":
    main()
