# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`benchmarks/gpu_hour.py`: every line runs without a GPU, and what breaks costs one result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HOUR = ROOT / "benchmarks" / "gpu_hour.py"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return __import__(name)


@pytest.mark.slow
def test_every_part_runs_dry_within_two_minutes(tmp_path: Path) -> None:
    """Nothing fails, and every part has results; on a machine that others use too, not all."""
    command = [sys.executable, str(HOUR), "--dry", "--budget", "120", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "gpu_hour_dry.json").read_text())["parts"]
    hour = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("left out")]
    left = {line.removeprefix("left out of ") for line in hour}
    assert len(parts) >= 4, done.stdout
    if "tests" not in left:
        assert sum("passed" in row for row in parts["tests"].values()) >= 19, done.stdout
    for name in ("device", "check", "tests", "table", "sweep", "step", "training", "sanitizer"):
        assert parts.get(name) or name in left, done.stdout


#: Stands for gpu_part.py: what its rows do is in their names, how often they did it in a file.
STUB = """
import json, os, sys, time
print("@@ready {}", flush=True)
for line in sys.stdin:
    word = json.loads(line)
    for key in ROWS.get(word["part"], []):
        if key in word["skip"]:
            continue
        print("@@begin", json.dumps({"key": key}), flush=True)
        with open("tried", "a") as file:
            file.write(key + "\\n")
        if key == "crashes":
            print("Segmentation fault", flush=True)
            os.kill(os.getpid(), 11)
        if key == "hangs":
            time.sleep(60)
        row = {"failed": "wrong"} if key == "fails" else {"ms": 1.0}
        print("@@row", json.dumps({"key": key, "row": row}), flush=True)
        if key == "poisons":
            os._exit(3)
    print("@@end {}", flush=True)
"""


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[str]], *arguments: str
) -> tuple[int, dict[str, Any], list[str]]:
    """Status, rows by part, and what was tried, in order."""
    hour = load("gpu_hour", monkeypatch)
    stub = folder / "stub.py"
    stub.write_text(f"ROWS = {rows!r}\n{STUB}")
    (folder / "tried").unlink(missing_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(hour, "PROGRAM", (sys.executable, "-u", str(stub)))
    monkeypatch.setattr(hour, "PARTS", tuple(hour.Part(name, 1, 1.5, "") for name in rows))
    monkeypatch.setattr(hour, "RESULTS", folder / "kept")
    monkeypatch.setattr(hour, "device_name", lambda dry: "A Device, 80GB")
    command = ["gpu_hour.py", "--out", str(folder), *(arguments or ("--budget", "60"))]
    monkeypatch.setattr(sys, "argv", command)
    status = hour.main()
    parts = json.loads((folder / "gpu_hour_a_device_80gb.json").read_text())["parts"]
    tried = folder / "tried"
    return status, parts, tried.read_text().split() if tried.exists() else []


@pytest.mark.parametrize("together", [False, True])  # one process a part, or one for all
def test_a_crash_or_a_hang_costs_one_result(
    together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"one": ["a", "crashes", "b"], "two": ["hangs", "c"], "three": ["fails", "poisons", "d"]}
    extra = ["--dry"] if together else []
    status, parts, tried = run(tmp_path, monkeypatch, rows, "--budget", "60", *extra)
    assert status == 1
    assert {key for part in parts.values() for key in part} == {x for r in rows.values() for x in r}
    failed = {key for part in parts.values() for key, row in part.items() if "failed" in row}
    assert failed == {"crashes", "hangs", "fails"}
    assert "Segmentation fault" in parts["one"]["crashes"]["failed"]
    assert "no sign of life" in parts["two"]["hangs"]["failed"]
    assert len(tried) == len(set(tried)) == 8  # nothing twice


def test_a_second_call_does_what_is_missing_or_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"one": ["a", "fails"], "two": ["b"]}
    assert run(tmp_path, monkeypatch, rows)[2] == ["a", "fails", "b"]
    more = {"one": ["a", "fails"], "two": ["b", "c"]}
    status, parts, tried = run(tmp_path, monkeypatch, more)
    assert (status, tried) == (1, ["fails", "c"])
    assert set(parts["two"]) == {"b", "c"}
    _, _, tried = run(tmp_path, monkeypatch, more, "--again", "two", "--only", "two")
    assert tried == ["b", "c"]
    # Results of an earlier call may lie where the repository keeps them, and not in --out.
    (tmp_path / "kept").mkdir()
    name = "gpu_hour_a_device_80gb.json"
    (tmp_path / name).rename(tmp_path / "kept" / name)
    assert run(tmp_path, monkeypatch, more)[2] == ["fails"]


def test_what_the_budget_does_not_reach_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"one": ["hangs", "a"], "two": ["b"]}
    monkeypatch.setattr(load("gpu_hour", monkeypatch), "LEAST", 0.5)
    _, parts, _ = run(tmp_path, monkeypatch, rows, "--budget", "1")
    said = capsys.readouterr().out
    assert "left out of" in said
    assert "A second call does what was left out" in said
    assert not parts.get("two")


def test_a_process_that_cannot_import_is_one_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = load("gpu_hour", monkeypatch)
    monkeypatch.setattr(hour, "START", 20.0)
    monkeypatch.setitem(globals(), "STUB", "raise ImportError('no torch here')")
    status, parts, _ = run(tmp_path, monkeypatch, {"one": ["a"]})
    assert status == 1
    assert "no torch here" in parts["one"]["start"]["failed"]
    monkeypatch.undo()


def test_wheels_are_unpacked_once_and_only_where_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = load("gpu_wheels", monkeypatch)
    monkeypatch.setattr(wheels, "FOLDER", tmp_path)
    monkeypatch.setattr(wheels.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "before")
    for name, module in (("cut_cross_entropy", "absent_module"), ("omegaconf", "omegaconf")):
        monkeypatch.setitem(wheels.PEERS if "cut" in name else wheels.NEEDED,
                            name.replace("_", "-"), module)  # fmt: skip
        with zipfile.ZipFile(tmp_path / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{module}/__init__.py", "VALUE = 3\n")
            archive.writestr(f"{module}/data.txt", "read by path")
    for _ in range(2):
        wheels.use()
    paths = os.environ["PYTHONPATH"].split(os.pathsep)
    unpacked = {Path(path) for path in paths if "gpu-wheels" in path}
    assert len(unpacked) == 1  # omegaconf is installed here
    assert next(iter(unpacked)).joinpath("absent_module", "data.txt").read_text() == "read by path"
    assert paths[-1] == "before"
    assert str(ROOT / "src") in sys.path


ROWS = {
    "(8, 4, 16) floor": {"ms": 2.0, "tflops": 600.0},
    "(8, 4, 16): cross-entropy: ours, triton": {"ms": 2.5, "tflops": 480.0, "peak_mb": 10.0},
    "(8, 4, 16): cross-entropy: by hand": {"does not fit": "CUDA out of memory"},
    "(8, 4, 16): cross-entropy: ours, triton_lean": {"failed": "illegal access"},
}


def test_the_page_shows_what_the_results_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load("gpu_table", monkeypatch)
    assert table.render(tmp_path) == table.NOTHING
    content = {
        "device": "A Device",
        "parts": {
            "device": {
                "versions": {"torch": "2.11", "triton": "3.6"},
                "products": {"mm_tflops": 790.4},
                "memory": {"copy_tb_s": 4.26},
            },
            "table": ROWS,
        },
    }
    (tmp_path / "gpu_hour_a_device.json").write_text(json.dumps(content))
    said = table.render(tmp_path)
    assert "**A Device**, torch 2.11, triton 3.6; 790 TFLOP/s" in said
    assert "| cross-entropy | ours, triton | 2.50 | 480 | 0.80 | 10 |" in said
    assert "| cross-entropy | by hand | out of memory |" in said
    assert "Failed or not measured: table: (8, 4, 16): cross-entropy: ours, triton_lean." in said
    page = table.replaced(f"before\n{table.BEGIN}\nold\n{table.END}\nafter", "new")
    assert page == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter"


def test_the_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    table = load("gpu_table", monkeypatch)
    page = table.PAGE.read_text()
    assert page == table.replaced(page, table.render()), "python benchmarks/gpu_table.py --write"
