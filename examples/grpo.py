# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Group-relative policy optimization on a task whose answers can be checked.

The prompt is a text of four digits, such as "3142"; the response is four digits, and the reward is
the share of them that stands where sorting the prompt would put it. Each prompt gets a group of
responses, whose advantage is how far their reward lies above the group's. Every batch of responses
is used for two updates, so the second one is off-policy and is clipped. The policy's entropy is
watched, for a policy that has none left stops learning.

python examples/grpo.py
python examples/grpo.py --loss dapo      or ppo_clip, cispo, kl_cov, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning as L
import torch
from small_run import arguments, train
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import EntropyLaw, EntropyMonitor, LogitHealthMonitor

DIGITS, LENGTH, PROMPTS, GROUP, UPDATES = 10, 4, 32, 16, 2


class Policy(LossMixin, L.LightningModule):
    """Reads prompt, place and what was written so far; gives logits of the next digit."""

    def __init__(self, loss: str = "grpo", lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        read = LENGTH * DIGITS + LENGTH * (DIGITS + 1) + LENGTH
        self.net = nn.Sequential(nn.Linear(read, 256), nn.GELU(), nn.Linear(256, DIGITS))
        self.loss, self.lr = build_objective(loss), lr
        self.rollout: dict[str, Tensor] = {}

    def logits(self, prompt: Tensor, written: Tensor) -> Tensor:
        """(B, LENGTH) prompts and responses -> logits (B, LENGTH, DIGITS), place by place."""
        blank = torch.full_like(written, DIGITS)
        before = torch.ones(LENGTH, LENGTH, dtype=torch.bool, device=written.device).tril(-1)
        seen = torch.where(before, written[:, None], blank[:, None])  # (B, place, LENGTH)
        parts = [
            nn.functional.one_hot(prompt, DIGITS).flatten(1)[:, None].expand(-1, LENGTH, -1),
            nn.functional.one_hot(seen, DIGITS + 1).flatten(2),
            torch.eye(LENGTH, dtype=torch.long, device=written.device).expand(len(prompt), -1, -1),
        ]
        logits: Tensor = self.net(torch.cat(parts, -1).float())
        return logits

    @torch.no_grad()
    def respond(self, prompt: Tensor) -> dict[str, Tensor]:
        """Responses of the policy as it is now, their rewards and advantages."""
        prompt = prompt.repeat_interleave(GROUP, 0)
        written = torch.zeros_like(prompt)
        for place in range(LENGTH):
            chances = self.logits(prompt, written)[:, place].softmax(-1)
            written[:, place] = torch.multinomial(chances, 1)[:, 0]
        log_prob = self.logits(prompt, written).log_softmax(-1)
        reward = (written == prompt.sort(1).values).float().mean(1)
        groups = reward.view(-1, GROUP)
        advantage = (groups - groups.mean(1, True)) / (groups.std(1, keepdim=True) + 1e-4)
        return {
            "prompt": prompt,
            "written": written,
            "reward": reward,
            "old_log_prob": log_prob.gather(-1, written[..., None])[..., 0],
            "advantage": advantage.view(-1, 1).expand(-1, LENGTH),  # one for all of a response
            "sequence_id": torch.arange(len(prompt)).view(-1, 1).expand(-1, LENGTH),
        }

    def training_step(self, prompt: Tensor, batch_idx: int) -> Tensor:
        if batch_idx % UPDATES == 0:
            self.rollout = self.respond(prompt)
        now = self.rollout
        self.log("train/reward", now["reward"].mean())
        return self.compute_loss(
            logits=self.logits(now["prompt"], now["written"]),
            target=now["written"],
            **{name: now[name] for name in ("old_log_prob", "advantage", "sequence_id")},
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


class Prompts(IterableDataset[Tensor]):
    """Batches of prompts (PROMPTS, LENGTH), made from text."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[Tensor]:
        g = torch.Generator().manual_seed(self.seed)
        while True:
            numbers = torch.randint(DIGITS**LENGTH, (PROMPTS,), generator=g).tolist()
            text = [f"{number:0{LENGTH}d}" for number in numbers]
            yield torch.tensor([[int(character) for character in one] for one in text])


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    parser = arguments("grpo", 1200, __doc__)
    parser.add_argument("--loss", default="grpo")
    args = parser.parse_args(words)
    L.seed_everything(args.seed, verbose=False)
    policy = Policy(args.loss)
    test = next(iter(Prompts(args.seed + 1)))
    before = float(policy.respond(test)["reward"].mean())
    monitors = [EntropyMonitor("policy"), EntropyLaw("train/reward"), LogitHealthMonitor()]
    loader = DataLoader(Prompts(args.seed), batch_size=None)
    logged = train(policy, loader, None, monitors, args.steps, args.out)
    logged |= {"before": before, "after": float(policy.respond(test)["reward"].mean())}
    print(f"reward of new prompts: {before:.2f} before, {logged['after']:.2f} after")
    return logged


if __name__ == "__main__":
    main()
