# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of `lightning-losses report` on a run of 200,000 steps.

python benchmarks/report_speed.py                 prints one line
python benchmarks/report_speed.py --keep FOLDER   also keeps the run and its report there

The run is made here: a CSV of about 30 MB as CSVLogger writes it, with a spike of one step. The
command runs in a process of its own, so that what is measured is what a user waits for.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EVERY_STEP = ("train/loss", "train/loss/ce", "train/loss/opl", "train/weight/opl", "acc", "lr")
MONITORS = (
    *(f"entropy/{name}" for name in ("mean", "p10", "p50", "p90", "ratio", "marginal", "rows")),
    *("step_radius/r", "step_radius/r_p99"),
    *("logit_health/logsumexp_mean", "logit_health/max_logit"),
)


def write_run(folder: Path, steps: int) -> Path:
    """A `metrics.csv`: losses at every step, monitors at every tenth, validation once an epoch."""
    generator = np.random.default_rng(0)
    at = np.arange(steps)
    fall = 2.3 * np.exp(-at / (steps / 5)) + 0.2
    columns = {
        name: fall * (1 + 0.05 * generator.standard_normal(steps)) for name in EVERY_STEP + MONITORS
    }
    columns["train/loss"][int(0.6173 * steps)] = 40.0
    columns["step_radius/r"][:] = 0.1 * columns["step_radius/r"]
    path = folder / "metrics.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.write(",".join(["epoch", "step", *columns, "val/loss"]) + "\n")
        for step in range(steps):
            cells = [str(columns[name][step]) for name in EVERY_STEP]
            cells += [f"{columns[name][step]}" if step % 10 == 0 else "" for name in MONITORS]
            file.write(f"{step * 100 // steps},{step},{','.join(cells)},\n")
            if (step + 1) % (steps // 100) == 0:
                blank = "," * (len(columns) + 1)
                file.write(f"{step * 100 // steps},{step}{blank}{fall[step] + 0.1}\n")
    return path


def cpu_seconds() -> float:
    """Of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--keep", type=Path, help="folder for the run and its report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        size = write_run(folder, options.steps).stat().st_size
        command = [sys.executable, "-m", "lightning_losses", "report", str(folder)]
        times, cpu = [], []
        for _ in range(3):
            before, used = time.perf_counter(), cpu_seconds()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - before)
            cpu.append(cpu_seconds() - used)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        html = (folder / "report" / "report.html").stat().st_size
    seconds = f"{min(times):.2f} s (best of 3), {min(cpu):.2f} s of CPU time"
    print(
        f"{options.steps:,} steps, {size / 1e6:.0f} MB of CSV: {seconds}, {memory:.0f} MB at most"
    )
    print(f"the report has {html / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
