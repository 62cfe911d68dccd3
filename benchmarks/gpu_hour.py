# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One command for a quarter of an hour on a GPU: first right, then measured; installs nothing.

    python3 benchmarks/gpu_hour.py --budget 560     on the machine with the GPU
    python3 benchmarks/gpu_hour.py --budget 200     again: only what is missing, and what failed
    python3 benchmarks/gpu_hour.py --again table    a part once more, after a change
    python benchmarks/gpu_hour.py --dry             every line, on a CPU, with tiny shapes

Needs a python3 with torch for CUDA, Triton, lightning and pytest. Everything else is found beside
this file: `src/`, and the wheels of `make gpu-wheels` in `.gpu-wheels/`.

Parts run in the order of their worth (`PARTS` below), each in a process of its own, so that a crash
or a hang costs one result and not the rest. Each result is written when it is there, to
`gpu_hour_DEVICE.json` in `--out` (`$OUT`, or else `benchmarks/results/`); a second call reads it
there or in `benchmarks/results/`, and goes on. Seconds that one part leaves go to those after it;
what the budget did not reach is printed at the end. Ends with status 1 if a result is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


class Part(NamedTuple):
    """One row of the plan."""

    name: str
    share: float  # of the budget, in seconds of a budget of 560
    patience: float  # seconds without a word after which a result counts as hanging
    what: str


#: In the order of worth: what a run that is cut off should have.
PARTS = (
    Part("device", 15, 40, "versions, clocks, ceilings of memory and matrix products"),
    Part("check", 80, 80, "every kernel against float64, in every pair of options"),
    Part("tests", 80, 80, "pytest -m gpu"),
    Part("table", 190, 60, "the table of docs/kernels.md: time, memory, TFLOP/s"),
    Part("sweep", 60, 60, "tiles of lean's backward pass, blocks of fast's row pass"),
    Part("step", 45, 45, "no host stall, graph replay, a timeline"),
    Part("training", 50, 50, "a language model's step, and what each monitor adds"),
    Part("sanitizer", 40, 40, "compute-sanitizer on small cases"),
)
#: Seconds that imports may take.
START = 90.0
#: Of what a process does before its first result.
START_KEY = "start"
#: With less than this left there is no point in starting a process.
LEAST = 4.0
#: How a process ends that could not use CUDA any more after a failure it has told.
POISONED = 3


class Results:
    """What is known, as one JSON file that is whole at any moment."""

    def __init__(self, folder: Path, device: str, earlier: list[Path]) -> None:
        slug = re.sub(r"[^a-z0-9]+", "_", device.lower()).strip("_")
        self.path = folder / f"gpu_hour_{slug}.json"
        command = " ".join(["python3", "benchmarks/gpu_hour.py", *sys.argv[1:]])
        self.content: dict[str, Any] = {"device": device, "command": command, "parts": {}}
        for candidate in dict.fromkeys([*(path / self.path.name for path in earlier), self.path]):
            if candidate.exists():
                for part, rows in json.loads(candidate.read_text())["parts"].items():
                    self.content["parts"].setdefault(part, {}).update(rows)

    def part(self, name: str) -> dict[str, Any]:
        """Rows of a part by key."""
        rows: dict[str, Any] = self.content["parts"].setdefault(name, {})
        return rows

    def done(self, name: str) -> list[str]:
        """Keys that need not be tried again."""
        return [key for key, row in self.part(name).items() if "failed" not in row]

    def add(self, part: str, key: str, row: dict[str, Any]) -> None:
        self.part(part)[key] = row
        if key != START_KEY:
            self.part(part).pop(START_KEY, None)
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(".new")
        whole.write_text(json.dumps(self.content, indent=1) + "\n")
        whole.replace(self.path)


#: What a process runs, before the names of its parts.
PROGRAM = (sys.executable, "-u", str(HERE / "gpu_part.py"))


class Child:
    """A process that imports, waits for a word, and then works through the rows of a part."""

    def __init__(self, parts: list[str], options: argparse.Namespace) -> None:
        command = [*PROGRAM, *parts, "--out", str(options.out), *(["--dry"] * options.dry)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that its own children end with it
        )
        self.ready = False  # has it imported everything, and waits
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def go(self, part: str, until: float, skip: list[str], known: dict[str, Any]) -> None:
        """Start on the rows of a part."""
        assert self.process.stdin is not None
        word = {"part": part, "until": until, "skip": skip, "known": known}
        with contextlib.suppress(BrokenPipeError):  # it died while importing: its output says why
            self.process.stdin.write(json.dumps(word) + "\n")
            self.process.stdin.flush()

    def kill(self) -> None:
        """End it and all that it started, those it left behind when it ended by itself too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Run:
    """All parts within a budget."""

    def __init__(self, options: argparse.Namespace, results: Results, log: TextIO) -> None:
        self.options, self.results, self.log = options, results, log
        self.end = time.time() + options.budget
        self.left_out: dict[str, list[str]] = {}
        self.failures: list[str] = []

    def everything(self, parts: list[Part]) -> None:
        """One part after the other, each in a process of its own; the next one imports meanwhile.

        Without a GPU one process serves all parts, as long as it lives: nothing can be poisoned,
        and imports would be most of the time.
        """
        names = [part.name for part in parts]
        together = self.options.dry
        ahead: Child | None = Child(names if together else names[:1], self.options)
        try:
            for i, part in enumerate(parts):
                now, ahead = (
                    ahead or Child(names[i:][: None if together else 1], self.options),
                    None,
                )
                left = self.end - time.time()
                if left < LEAST:
                    self.left_out[part.name] = ["everything"]
                    now.kill()
                    continue
                if not self.ready(part, now):
                    now.kill()
                    continue
                if i + 1 < len(parts) and not together:
                    ahead = Child(names[i + 1 : i + 2], self.options)
                left = self.end - time.time()
                # Shares are of a GPU's work; the interpreter spends its time elsewhere.
                share = 1.0 if together else part.share / sum(p.share for p in parts[i:])
                seconds = left * share
                now = self.one(part, now, time.time() + seconds)
                if together and now.process.poll() is None:
                    ahead = now
                else:
                    now.kill()
        finally:
            if ahead is not None:
                ahead.kill()

    def one(self, part: Part, child: Child, until: float) -> Child:
        """A part, with a new process after every crash, until its rows or its time are out."""
        began = time.time()
        self.say(f"\n{part.name}: {part.what} ({until - began:.0f} s)")
        tried = [] if part.name in self.options.again else self.results.done(part.name)
        while not self.follow(part, child, until, tried):
            child.kill()
            if until - time.time() < LEAST:
                self.left_out.setdefault(part.name, []).append("what was to come after a crash")
                break
            child = Child([part.name], self.options)
            if not self.ready(part, child):
                break
        self.say(f"  {time.time() - began:.0f} s")
        return child

    def ready(self, part: Part, child: Child) -> bool:
        """Wait until a process has imported what it needs: no part pays for that with its share."""
        if child.ready:
            return True
        limit = min(self.end, time.time() + START)
        tail: list[str] = []
        while time.time() < limit:
            try:
                line = child.lines.get(timeout=max(0.01, limit - time.time()))
            except queue.Empty:
                break
            if line is None:
                why = f"process ended with {child.process.wait()}: " + " | ".join(tail)
                self.take(part, START_KEY, {"failed": why[-800:]})
                return False
            if line.startswith("@@ready"):
                child.ready = True
                return True
            self.log.write(line)
            tail = [*tail[-4:], line.strip()]
        self.left_out.setdefault(part.name, []).append("everything: imports did not end in time")
        return False

    def follow(self, part: Part, child: Child, until: float, tried: list[str]) -> bool:
        """Take in rows; whether it came to an end: another process would have nothing to do."""
        child.go(part.name, until, tried, self.results.part(part.name))
        key: str | None = None
        spoken = time.time()
        tail: list[str] = []
        while True:
            limit = min(spoken + part.patience, until + 5)
            try:
                line = child.lines.get(timeout=max(0.01, limit - time.time()))
            except queue.Empty:
                late = time.time() >= until + 5
                if late:
                    self.left_out.setdefault(part.name, []).append(key or "everything")
                    self.say(f"  {key or part.name}: stopped, out of time")
                    child.kill()
                    return True
                self.fail(
                    part, key or START_KEY, f"no sign of life for {part.patience:.0f} s", tried
                )
                return key is None
            if line is None:
                code = child.process.wait()
                if code == POISONED and key is None:  # the row before has said what happened
                    return False
                why = f"process ended with {code}: " + " | ".join(tail[-4:])
                self.fail(part, key or START_KEY, why[-800:], tried)
                return key is None  # before any row: another process would end the same way
            if not line.startswith("@@"):
                if line.strip():
                    self.log.write(line)
                    self.log.flush()
                    tail = [*tail[-8:], line.strip()]
                continue
            spoken = time.time()
            word, _, text = line[2:].partition(" ")
            said = json.loads(text)
            if word == "begin":
                key = said["key"]
            elif word == "row":
                tried.append(said["key"])
                if said["key"] == key:  # not one of many that a single piece of work reports
                    key = None
                self.take(part, said["key"], said["row"])
            elif word == "left":
                self.left_out.setdefault(part.name, []).extend(said["keys"])
            elif word == "end":
                return True

    def take(self, part: Part, key: str, row: dict[str, Any]) -> None:
        self.results.add(part.name, key, row)
        if "failed" in row:
            self.failures.append(f"{part.name}: {key}: {row['failed']}")
        self.say(f"  {key}: {short(row)}")

    def fail(self, part: Part, key: str, why: str, tried: list[str]) -> None:
        tried.append(key)
        self.take(part, key, {"failed": why})

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.log.write(text + "\n")
        self.log.flush()


def short(row: dict[str, Any]) -> str:
    """One line of a row."""
    if "failed" in row:
        return f"FAILED {row['failed']}"[:400]
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    return ", ".join(x.replace("\n", " ")[:160] for x in shown)[:400]


def device_name(dry: bool) -> str:
    """What nvidia-smi calls the device, without touching it; its results have that name."""
    if dry:
        return "dry"
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.check_output(query, text=True, timeout=20).splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown device"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--budget", type=float, default=560.0, help="seconds; default 560")
    parser.add_argument("--dry", action="store_true", help="on a CPU, tiny, by the interpreter")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--again", nargs="+", choices=names, default=[], metavar="PART")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    if options.out is None:
        scratch = tempfile.mkdtemp(prefix="gpu-hour-") if options.dry else RESULTS
        options.out = Path(os.environ.get("OUT") or scratch)
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    results = Results(options.out, device_name(options.dry), [] if options.dry else [RESULTS])
    parts = [part for part in PARTS if part.name in options.only]
    began = time.time()
    with (options.out / "gpu_hour.log").open("a") as log:
        run = Run(options, results, log)
        run.say(f"{results.content['device']}: {options.budget:.0f} s; results in {results.path}")
        run.everything(parts)
        summary(run, time.time() - began)
    return 1 if run.failures else 0


def summary(run: Run, seconds: float) -> None:
    """The end of the output: what failed, what was left out, what a second call would do."""
    rows = {name: len(run.results.done(name)) for name in run.results.content["parts"]}
    run.say(f"\n{seconds:.0f} s. Results: " + ", ".join(f"{k} {n}" for k, n in rows.items()))
    for failure in run.failures:
        run.say(f"FAILED {failure}"[:300])
    for name, keys in run.left_out.items():
        run.say(f"left out of {name}: {len(keys)}: {'; '.join(keys)}"[:600])
    if run.failures or run.left_out:
        run.say("A second call does what was left out, and tries again what failed.")
    elif not run.options.dry:
        run.say("Nothing is left. --again PART measures a part once more.")


if __name__ == "__main__":
    sys.exit(main())
