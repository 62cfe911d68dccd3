# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`lightning-losses list | show KEY | names | check | report RUN | push ENTITY/PROJECT`."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from lightning_losses.config.build import build_objective
from lightning_losses.config.catalogue import GROUPS, find, keys, summary, target_class, yaml_text
from lightning_losses.dashboard.report.write import write_report
from lightning_losses.dashboard.wandb_ui.push import push
from lightning_losses.kernel_check import check
from lightning_losses.named_tensors import NAMED_TENSORS, describe
from lightning_losses.softmax import STATISTICS, describe_kernel
from lightning_losses.term import Term


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lightning-losses", description=__doc__)
    parser.add_argument("--version", action="version", version=version("lightning-losses"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every key, by group and family, with needs and scope")
    show = commands.add_parser("show", help="one key: needs, scope, paper, defaults, kernel")
    show.add_argument("key", help="a name from `list`, or GROUP/NAME")
    commands.add_parser("names", help="the named tensors of compute_loss: name, shape, meaning")
    kernels = commands.add_parser("check", help="every kernel against the reference, here")
    kernels.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    report = commands.add_parser("report", help="a run, or several compared, as one HTML file")
    report.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run's folder, a Hydra multirun's, an offline W&B run, or entity/project/run_id",
    )
    report.add_argument("--out", type=Path, help="folder to write to; report/ in the run's if not")
    report.add_argument("--pictures", action="store_true", help="also a PNG of every chart")
    view = commands.add_parser("push", help="a W&B workspace view and report, new or updated")
    view.add_argument("project", metavar="ENTITY/PROJECT", help="of Weights & Biases")
    view.add_argument("--charts", action="store_true", help="also make custom chart presets")
    options = parser.parse_args(argv)
    try:
        if options.command == "list":
            print(listing())
        elif options.command == "show":
            print(details(options.key))
        elif options.command == "names":
            print(vocabulary())
        elif options.command == "check":
            for line in check(options.device):
                print(line, flush=True)
        elif options.command == "push":
            print("\n".join(push(options.project, options.charts)))
        else:
            print(write_report(options.runs, options.out, options.pictures, progress=True))
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; Python would complain at its own flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, ImportError) as error:
        print(f"lightning-losses: {error}", file=sys.stderr)
        return 2
    except ArithmeticError as error:  # a kernel that computes wrong
        print(f"lightning-losses: {error}", file=sys.stderr)
        return 1
    return 0


def listing() -> str:
    """A line for every key: name, scope, needs, and the YAML's first comment."""
    lines: list[str] = []
    rows = [(_family(key), key) for key in keys("loss")]
    for family in sorted({family for family, _ in rows}):
        lines.append(f"\nloss ({family})")
        for _, key in sorted(row for row in rows if row[0] == family):
            term = _term(key)
            scope = getattr(term.loss, "scope", "rows")
            lines.append(f"  {key:22} {scope:11} {_needs(term):34} {summary('loss', key)}")
    for group in GROUPS[1:]:
        lines.append(f"\n{group}")
        lines += [f"  {key:22} {summary(group, key)}" for key in keys(group)]
    return "\n".join(lines).strip()


def details(key: str) -> str:
    """Everything about one key. Raises ValueError if there is none of that name."""
    group, name = find(key)
    lines = [f"{group}/{name}: {summary(group, name)}", ""]
    cls = target_class(group, name)
    if cls is not None:
        lines += [inspect.getdoc(cls) or "", ""]
    if group == "loss":
        term = _term(name)
        lines.append("needs:")
        lines += [f"  {describe(tensor)}" for tensor in sorted(term.required)]
        lines.append(f"scope: {getattr(term.loss, 'scope', 'rows')}")
        for what, part in (
            ("target transform", term.target_transform),
            ("row weighting", term.row_weighting),
        ):
            if part is not None:
                about = textwrap.indent(inspect.getdoc(type(part)) or "", "  ")
                lines.append(f"{what}: {type(part).__name__}\n{about}")
        if term.statistics:
            lines.append(f"kernel: {describe_kernel()}")
        elif "logits" in term.required:
            lines.append("kernel: none; it needs whole rows of logits")
        lines.append("")
    lines += [f"defaults (conf/{group}/{name}.yaml):", "", yaml_text(group, name).rstrip()]
    return "\n".join(lines)


def vocabulary() -> str:
    """A line for every named tensor; names of the user's own work as well."""
    width = max(len(word.shape) for word in NAMED_TENSORS.values())
    lines = [f"{name:18} {w.shape:{width}} {w.meaning}" for name, w in NAMED_TENSORS.items()]
    end = "Any other name reaches the loss whose forward has a parameter of it, as it was passed."
    return "\n".join([*lines, "", end])


def _term(key: str) -> Term:
    ((_, term),) = build_objective(key).named_terms()
    return term


def _needs(term: Term) -> str:
    """Statistics together, as they come from one pass; then the rest."""
    names = [name for name in STATISTICS if name in term.required]
    return " ".join(names + sorted(term.required - set(names)))


def _family(key: str) -> str:
    """The family of a loss: the sub-package of its class; presets share their idea's."""
    loss: nn.Module = _term(key).loss
    parts = type(loss).__module__.split(".")
    return parts[2] if parts[1] == "losses" else parts[1]


if __name__ == "__main__":
    raise SystemExit(main())
