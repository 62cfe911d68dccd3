# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The records in a `run-*.wandb` file: what an offline Weights & Biases run leaves on disk.

The file is a LevelDB log: a header of 7 bytes, then blocks of 32 KiB (counted from the start of the
file) with chunks of checksum, length, kind and data; a record is one whole chunk or several. The
checksum is zlib's CRC-32 over kind and data. A record is a protobuf message that wandb defines.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

HEADER = struct.Struct("<4sHB")
CHUNK = struct.Struct("<IHB")  # CRC-32, length, kind
BLOCK = 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class WandbFile(NamedTuple):
    """What was in a file up to its end or its first damage."""

    name: str  # the run's display name, else its id
    config: dict[str, Any]
    history: list[dict[str, Any]]  # a row a `log` call; nested names joined by dots
    summary: dict[str, Any]
    alerts: list[tuple[str, str]]  # title and text
    metrics: list[dict[str, Any]]  # `define_metric`: name or glob, step metric, summary
    exited: bool
    notes: list[str]
    exit_code: int = 0  # of the process, where it exited
    about: dict[str, str] = {}  # Python, system, git commit, hardware
    run_id: str = ""


def read_wandb_file(path: Path) -> WandbFile:
    """Read every record that is whole; a file cut off by a crash gives what came before.

    Raises:
        ValueError: the file is not one of Weights & Biases (told by its header).
        ImportError: wandb is not installed.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    payloads, notes = read_payloads(Path(path).read_bytes(), Path(path).name)
    name, run_id, exited, exit_code = "", "", False, 0
    about: dict[str, str] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    alerts: list[tuple[str, str]] = []
    metrics: list[dict[str, Any]] = []
    for payload in payloads:
        record = Record()
        try:
            record.ParseFromString(payload)
        except Exception as error:  # protobuf's DecodeError has no public home
            notes.append(f"a record could not be decoded ({type(error).__name__})")
            continue
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id = record.run.run_id or run_id
            name = record.run.display_name or run_id or name
            config |= pairs(record.run.config.update)
        elif kind == "config":
            config |= pairs(record.config.update)
        elif kind == "history":
            row = pairs(record.history.item)
            if record.history.HasField("step"):
                row.setdefault("_step", record.history.step.num)
            history.append(row)
        elif kind == "summary":
            summary |= pairs(record.summary.update)
        elif kind == "alert":
            alerts.append((record.alert.title, record.alert.text))
        elif kind == "metric":
            one = record.metric
            kinds = [field.name for field, on in one.summary.ListFields() if on]
            metrics.append(
                {
                    "name": one.name or one.glob_name,
                    "step_metric": one.step_metric,
                    "summary": kinds,
                    "hidden": one.options.hidden,
                }
            )
        elif kind == "environment":
            about |= environment(record.environment)
        elif kind == "exit":
            exited, exit_code = True, int(record.exit.exit_code)
    if not exited:
        notes.append("no exit was recorded: the run crashed, was killed, or is still going")
    return WandbFile(
        name, config, history, summary, alerts, metrics, exited, notes, exit_code, about, run_id
    )


def environment(record: Any) -> dict[str, str]:
    """Where a run was, without names of machines, people and folders; blank parts left out."""
    gpus = [f"{gpu.name}" for gpu in getattr(record, "gpu_nvidia", [])]
    facts = {
        "Python": str(record.python),
        "system": str(record.os),
        "git commit": str(record.git.commit)[:12],
        "CPU": f"{record.cpu.model} ({record.cpu_count} cores)" if record.cpu.model else "",
        "GPU": f"{len(gpus)} x {gpus[0]}" if gpus else "",
    }
    return {name: fact for name, fact in facts.items() if fact}


def pairs(items: Any) -> dict[str, Any]:
    """Name and value of protobuf items; values are JSON, where NaN is allowed."""
    found = {}
    for item in items:
        try:
            found[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
        except (ValueError, RecursionError):
            continue  # a value cut short, or nested without end, is a value not logged
    return found


def read_payloads(data: bytes, name: str) -> tuple[list[bytes], list[str]]:
    """The bytes of each whole record, and in words what stopped the reading early.

    Raises:
        ValueError: no Weights & Biases header.
    """
    if len(data) < HEADER.size or HEADER.unpack_from(data)[:2] != (b":W&B", 0xBEE1):
        raise ValueError(
            f"{name} is not a Weights & Biases run file (its first bytes are {data[:4]!r}, not "
            "b':W&B'); pass the run-*.wandb file or its folder."
        )
    payloads: list[bytes] = []
    parts: list[bytes] = []
    at = HEADER.size
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < CHUNK.size:  # too small for a chunk: padding
            at += left
            continue
        if at + CHUNK.size > len(data):
            break
        checksum, length, kind = CHUNK.unpack_from(data, at)
        body = data[at + CHUNK.size : at + CHUNK.size + length]
        if len(body) < length:
            break
        if (
            kind not in (WHOLE, FIRST, MIDDLE, LAST)
            or zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum
        ):
            return payloads, [
                f"{name} is damaged at byte {at:,} of {len(data):,}; the rest was not read"
            ]
        at += CHUNK.size + length
        if kind in (WHOLE, FIRST):
            parts = []
        parts.append(body)
        if kind in (WHOLE, LAST):
            payloads.append(b"".join(parts))
            parts = []
    if at < len(data) or parts:
        return payloads, [f"{name} ends in the middle of a record, which was left out"]
    return payloads, []
