# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`lightning-losses list | show KEY | names | doctor | check | report RUN | push PROJECT`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DESCRIPTION = "The catalogue of lightning-losses, its kernels on this machine, and its reports."


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lightning-losses", description=DESCRIPTION)
    parser.add_argument("--version", action="store_true", help="the version, and nothing else")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="every key, by group and family, with needs and scope")
    show = commands.add_parser("show", help="one key: needs, scope, paper, defaults, kernel")
    show.add_argument("key", help="a name from `list`, or GROUP/NAME")
    commands.add_parser("names", help="the named tensors of compute_loss: name, shape, meaning")
    commands.add_parser("doctor", help="versions, device, kernel, and what is wrong here")
    kernels = commands.add_parser("check", help="every kernel against the reference, here")
    kernels.add_argument("--device", help="cuda where there is one, else cpu")
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
    if options.command is None and not options.version:
        parser.error(f"say what: {', '.join(commands.choices)}")
    try:
        status = run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; Python would complain at its own flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, ImportError) as error:
        print(f"lightning-losses: {error}", file=sys.stderr)
        return 2
    except ArithmeticError as error:  # a kernel that computes wrong
        print(f"lightning-losses: {error}", file=sys.stderr)
        return 1
    return status


def run(options: argparse.Namespace) -> int:
    """Run one command; the exit status. Each imports its own: few need torch, which is slow."""
    if options.version:
        print(installed_version())
    elif options.command == "doctor":
        from lightning_losses.doctor import examine

        return examine()
    elif options.command == "report":
        from lightning_losses.dashboard.report.write import write_report

        print(write_report(options.runs, options.out, options.pictures, progress=True))
    elif options.command == "push":
        from lightning_losses.dashboard.wandb_ui.push import push

        print("\n".join(push(options.project, options.charts)))
    elif options.command == "check":
        import torch

        from lightning_losses.kernel_check import check

        for line in check(options.device or ("cuda" if torch.cuda.is_available() else "cpu")):
            print(line, flush=True)
    else:
        from lightning_losses import describe

        if options.command == "list":
            print(describe.listing())
        elif options.command == "show":
            print(describe.details(options.key))
        else:
            print(describe.vocabulary())
    return 0


def installed_version() -> str:
    """The version that was installed."""
    try:
        return version("lightning-losses")
    except PackageNotFoundError:
        return "not installed; run from its source folder"


if __name__ == "__main__":
    raise SystemExit(main())
