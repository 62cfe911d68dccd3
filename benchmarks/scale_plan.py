# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the loss of a large language model holds and sends on each rank of a mesh. Arithmetic only.

    python benchmarks/scale_plan.py [--write]

Data x context x tensor ranks: rows are over the first two, classes over the last. Time of a
collective is that of a ring, bytes that pass one link over its bandwidth and a latency a hop; the
bandwidths are arguments, and nothing here was run on such a machine. How many numbers a row travels
with is counted in the code that sends them. ``--write`` puts the tables into docs/scale.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from lightning_losses.kernels.partial import partial_statistics
from lightning_losses.kernels.problem import MAX_AND_SUM, STATISTICS

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- scale_plan -->", "<!-- /scale_plan -->"
MIB = 2**20

#: What an objective reads, and what goes between tensor ranks for it.
OBJECTIVES = {
    "for cross-entropy": ("log_prob",),
    "for z-loss and entropy too": ("log_prob", "logsumexp", "entropy"),
    "all there are": STATISTICS,
}


class Plan(NamedTuple):
    """A head of V classes and D features, T tokens a step, and the ranks of each kind."""

    classes: int = 128_256
    width: int = 8192
    tokens: int = 2**20
    data: int = 16
    context: int = 4
    tensor: int = 8
    tensor_bandwidth: float = 400e9
    """Bytes a second between tensor ranks, one way."""
    data_bandwidth: float = 40e9
    """Bytes a second between the others."""
    latency: float = 10e-6
    """Seconds a hop."""

    @property
    def rows(self) -> int:
        """Tokens of a rank; tensor ranks have the same ones."""
        return self.tokens // (self.data * self.context)

    @property
    def held(self) -> int:
        """Classes of a rank, the most of any."""
        return -(-self.classes // self.tensor)


def numbers_a_row(want: tuple[str, ...]) -> int:
    """Columns that a rank sends of each row, as the kernel packs them."""
    z, weight = torch.zeros(1, 2), torch.ones(2)
    part = partial_statistics(z, torch.zeros(1, dtype=torch.long), weight, frozenset(want))
    return sum(field is not None for field in part)


def tensors(plan: Plan) -> Iterator[tuple[str, str, int]]:
    """What is on a rank during the loss: its name, its shape, bytes."""
    n, d, v = plan.rows, plan.width, plan.held
    others = plan.data * plan.context
    yield "hidden states, bf16", f"({n}, {d})", 2 * n * d
    yield "slice of the head, bf16, whole for the call", f"({v}, {d})", 2 * v * d
    yield "its shard between calls (FSDP2), bf16", f"({-(-v // others)}, {d})", 2 * v * d // others
    k = len(STATISTICS) + len(MAX_AND_SUM)
    yield "statistics, float32, the most there are", f"({n}, {k})", 4 * n * k
    yield "gradient of the hidden states, float32 until summed", f"({n}, {d})", 4 * n * d
    yield "gradient of the slice, float32 until reduced", f"({v}, {d})", 4 * v * d
    yield "*not held:* logits of the slice, bf16", f"({n}, {v})", 2 * n * v
    whole = plan.classes
    yield "*not held:* logits of all classes, float32", f"({n}, {whole})", 4 * n * whole


def collectives(plan: Plan) -> Iterator[tuple[str, str, int, float]]:
    """What a rank sends in a step: what for, between whom, bytes, seconds."""
    n, d, v, t = plan.rows, plan.width, plan.held, plan.tensor
    others = plan.data * plan.context

    def ring(ranks: int, total: int, rounds: int, fast: bool) -> tuple[int, float]:
        """A gather, or scatter, of `total` bytes takes one round, a sum to all takes two."""
        hops = rounds * (ranks - 1)
        sent = hops * -(-total // ranks)
        width = plan.tensor_bandwidth if fast else plan.data_bandwidth
        return sent, sent / width + hops * plan.latency

    for name, want in OBJECTIVES.items():
        k = numbers_a_row(want)
        what = f"statistics {name}, {k} numbers a row, gather"
        yield what, "tensor", *ring(t, 4 * n * k * t, 1, True)
    yield "gradient of hidden states, float32, sum", "tensor", *ring(t, 4 * n * d, 2, True)
    yield "counts and values, 3 float64, sum", "data, context", *ring(others, 24, 2, False)
    yield (
        "the head's slice, bf16, gather (FSDP2)",
        "data, context",
        *ring(others, 2 * v * d, 1, False),
    )
    yield (
        "its gradient, float32, scatter (FSDP2)",
        "data, context",
        *ring(others, 4 * v * d, 1, False),
    )
    yield (
        "*instead of the first:* logits, bf16, gather",
        "tensor",
        *ring(t, 2 * n * plan.classes, 1, True),
    )


def render(plans: list[Plan]) -> str:
    """The tables, as Markdown."""
    lines = []
    for plan in plans:
        lines += [
            f"### {plan.classes:,} classes of {plan.width:,} features, {plan.tokens:,} tokens",
            "",
            f"{plan.data} data x {plan.context} context x {plan.tensor} tensor ranks: "
            f"{plan.rows:,} rows and {plan.held:,} classes a rank.",
            "",
            "| on each rank | shape | MiB |",
            "|---|---|---:|",
            *(f"| {what} | {shape} | {size / MIB:,.1f} |" for what, shape, size in tensors(plan)),
            "",
            f"A ring at {plan.tensor_bandwidth / 1e9:.0f} GB/s between tensor ranks, "
            f"{plan.data_bandwidth / 1e9:.0f} GB/s between the others, "
            f"{plan.latency * 1e6:.0f} us a hop:",
            "",
            "| sent by each rank in a step | between | MiB | ms |",
            "|---|---|---:|---:|",
            *(
                f"| {what} | {who} | {size / MIB:,.4f} | {seconds * 1e3:,.2f} |"
                for what, who, size, seconds in collectives(plan)
            ),
            "",
        ]
    return "\n".join(lines)


def replaced(page: str, tables: str) -> str:
    """The page with these tables between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{tables}{END}{rest.split(END)[1]}"


def default_plans() -> list[Plan]:
    """Those of the page: a 70B model, with the vocabulary of Llama 3 and with twice as many."""
    return [Plan(), Plan(classes=262_144)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = Plan()
    for name, value in defaults._asdict().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value))
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    options = vars(parser.parse_args())
    write = options.pop("write")
    given = {name: value for name, value in options.items() if value is not None}
    tables = render([Plan(**given)] if given else default_plans())
    if write:
        PAGE.write_text(replaced(PAGE.read_text(), tables))
    else:
        print(tables)


if __name__ == "__main__":
    main()
