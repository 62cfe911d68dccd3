# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of a policy loss with an entropy bonus, from hidden states and a head.

    python benchmarks/policy_memory.py                          the bars
    python benchmarks/policy_memory.py --shape 512 128 8000     a quick look

The bars are 0.25 of the memory and 1.0 of the time of the naive way; it exits with 1 where one of
our methods is outside of them, or gives another number than the naive one.

The same number by every method: PPO's clipped loss of each token's log p, less 0.01 of its
entropy. Naive is a log-softmax of materialised logits, as a trainer without a fused kernel has it.
Liger's fused scaled cross-entropy gives log p and entropy too; it is measured where it is
installed (`pip install --no-deps liger-kernel`). Every method runs in a process of its own, several
rounds in turn, and the best round counts; see linear_ce.py, whose measure this is. A CPU is
assumed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from linear_ce import measure, table
from torch import Tensor

from lightning_losses import build_objective, softmax_stats

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
GROUP, BONUS = "ppo_clip and entropy_bonus, forward and backward", 0.01
MEMORY_BAR, TIME_BAR = 0.25, 1.0


def given(target: Tensor) -> tuple[Tensor, Tensor]:
    """Log p of the old policy and advantage of each token; any numbers will do."""
    generator = torch.Generator().manual_seed(1)
    old = -11 + torch.randn(len(target), generator=generator)
    return old, torch.randn(len(target), generator=generator)


def total(log_prob: Tensor, entropy: Tensor, target: Tensor) -> Tensor:
    """The objective of log p and entropy ``(N,)``."""
    old, advantage = given(target)
    ratio = (log_prob - old).clamp(-20, 20).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
    return loss.mean() - BONUS * entropy.mean()


def naive(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    log_p = F.linear(hidden, head).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1)
    return total(log_p.gather(1, target[:, None])[:, 0], entropy, target)


def one_pass(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """An objective whose rows are independent: values and gradients in one pass."""
    nodes = {"ppo_clip": {"dual_clip": None}, "entropy_bonus": {"weight": BONUS}}
    old, advantage = given(target)
    named = {"old_log_prob": old, "advantage": advantage, "target": target}
    record = build_objective(nodes)(hidden=hidden, head_weight=head, **named)
    return record.total


def two_passes(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    """The statistics themselves, for a loss of one's own, or one whose rows know of one another."""
    stats = softmax_stats(hidden=hidden, head_weight=head, target=target)
    assert stats.log_prob is not None
    assert stats.entropy is not None
    return total(stats.log_prob, stats.entropy, target)


def liger(hidden: Tensor, head: Tensor, target: Tensor) -> Tensor:
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction as Fused

    nll, entropy = Fused.apply(hidden, head, target, return_entropy=True)[:2]
    return total(-nll, entropy, target)


METHODS: dict[str, Loss] = {
    "naive log-softmax": naive,
    "lightning-losses, one pass": one_pass,
    "lightning-losses, two passes": two_passes,
    "Liger fused scaled cross-entropy": liger,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(2048, 512, 32000))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(METHODS[options.child], tuple(options.shape), torch.float32)))
        return
    print(f"$ python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}")
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, "
        f"(N, D, V) = {tuple(options.shape)}, float32, best of {options.rounds}"
    )
    best: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    for _ in range(options.rounds):
        for name in [n for n in METHODS if n not in failed]:
            command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                said = done.stderr.strip() or f"exit status {done.returncode}"
                failed[name] = said.splitlines()[-1]
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            seen = best.setdefault(name, found)
            best[name] = {key: min(value, seen[key]) for key, value in found.items()}
    for name, row in best.items():
        print(json.dumps({"method": name, **row}))
    table(GROUP, best)
    for name, why in failed.items():
        print(f"  {name}: not measured: {why}")
    first = best.get("naive log-softmax")
    if first is None:
        sys.exit("the naive way was not measured, so there is nothing to compare with")
    outside = any(name.startswith("lightning-losses") for name in failed)
    for name in list(best)[1:]:
        memory, wall = (best[name][key] / first[key] for key in ("peak_mb", "wall_s"))
        same = all(math.isclose(best[name][k], first[k], rel_tol=1e-4) for k in ("loss", "grad"))
        within = memory <= MEMORY_BAR and wall <= TIME_BAR and same
        verdict = "within the bars" if within else "outside of the bars"
        if not same:
            verdict += ", and another number"
        print(f"  {name}: {memory:.2f} of the memory, {wall:.2f} of the time: {verdict}")
        outside |= name.startswith("lightning-losses") and not within
    sys.exit(int(outside))


if __name__ == "__main__":
    main()
