# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles every shipped Triton configuration for four GPUs, without one, and prints what it costs.

    python benchmarks/aot.py [--only sm_90] [--kernel lean] [--json PATH]

Ends with status 1 if any build spills to the stack, needs more shared memory than the device has,
or lacks the matrix instruction it was written for. The compiler checks none of these.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if os.environ.pop("TRITON_INTERPRET", None):
    sys.exit("benchmarks/aot.py compiles; unset TRITON_INTERPRET.")

import triton
from lightning_losses.kernels.choose import GROUP, TARGETS, Tile, backward_tile, forward_tile
from lightning_losses.kernels.lean_backward import slab_gradient
from lightning_losses.kernels.lean_forward import merge_spans, span_statistics, target_logits
from lightning_losses.kernels.lean_forward_op import MERGE_ROWS, TARGET_DEPTH, TARGET_ROWS
from lightning_losses.kernels.triton_rows import row_gradient, row_statistics
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

GPU = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}
MMA = {
    "sm_80": r"mma\.sync",
    "sm_90": r"wgmma\.mma_async",
    "sm_100": r"tcgen05\.mma",
    "gfx942": r"v_mfma",
}
STATISTICS = ("log_prob", "entropy", "mean", "collision", "confidence", "prediction")
WANTS = {"lse": (), "ce": ("log_prob",), "+entropy": ("log_prob", "entropy"), "all": STATISTICS}
#: Which coefficients a row has: cross-entropy; with entropy; everything.
COEFFICIENTS = {"ce": "ad", "+entropy": "abd", "all": "abcdef"}


class Config(NamedTuple):
    """One build: pointer types, integers and floats in the order of the kernel, None if absent."""

    name: str
    kernel: Any
    arguments: dict[str, Any]
    warps: int
    stages: int
    matrix: bool  # must hold matrix instructions


def row_configs() -> Iterator[Config]:
    for kind in ("bf16", "fp32"):
        lane = 8 if kind == "bf16" else 4
        for want in ("ce", "+entropy", "all"):
            for dressed in (False, True):
                yield Config(
                    f"row_statistics {kind} {want}{' dressed' if dressed else ''}",
                    row_statistics,
                    {
                        **_common(kind, dressed),
                        "target_ptr": "*i64",
                        "soft_ptr": None,
                        "soft_stride": "i32",
                        "logsumexp_ptr": "*fp32",
                        **_outputs(WANTS[want]),
                        "LIFT": dressed,
                        "BLOCK": 4096,
                        "LANE": lane,
                    },
                    8,
                    2,
                    False,
                )
                yield Config(
                    f"row_gradient {kind} {want}{' dressed' if dressed else ''}",
                    row_gradient,
                    {
                        **_common(kind, dressed),
                        "out_ptr": f"*{kind}",
                        "out_stride": "i32",
                        "target_ptr": "*i64",
                        "soft_ptr": None,
                        "soft_stride": "i32",
                        "logsumexp_ptr": "*fp32",
                        "prediction_ptr": "*i64" if want == "all" else None,
                        **_coefficients(want),
                        "LIFT": dressed,
                        "BLOCK": 4096,
                    },
                    8,
                    2,
                    False,
                )


def lean_configs(arch: str) -> Iterator[Config]:
    for kind, itemsize in (("bf16", 2), ("fp32", 4)):
        exact = "ieee" if kind == "bf16" or arch == "gfx942" else "tf32x3"
        for dressed in (False, True):
            bare = {k: v for k, v in _common(kind, dressed).items() if k[0] != "z"}
            operands = bare | {
                **{f"{x}_ptr": f"*{kind}" for x in "hw"},
                **{f"{x}_stride": "i32" for x in "hw"},
                **{f"{x}_step": 1 for x in "hw"},
                "live_ptr": "*i32",
                "N": "i32",
                "D": "i32",
                "GROUP": GROUP,
                "EVEN": True,
                "PRECISION": exact,
            }
            tail = f"{kind}{' dressed' if dressed else ''}"
            for want, names in WANTS.items():
                tile = forward_tile(arch, dressed or want == "all", itemsize)
                if want != "ce":  # the target's logit has its own kernel
                    partial = _partials(names)
                    forward = operands | partial | {"span": "i32", "spans": "i32"}
                    yield from _lean(f"lean forward {tail} {want}", span_statistics, forward, tile)
            tile = backward_tile(arch, dressed, itemsize)
            for want in COEFFICIENTS:
                gradient = (
                    operands
                    | _coefficients(want)
                    | {
                        "out_ptr": f"*{kind}",
                        "out_stride": "i32",
                        "target_ptr": "*i64",
                        "logsumexp_ptr": "*fp32",
                        "prediction_ptr": "*i64" if want == "all" else None,
                        "first": "i32",
                        "width": "i32",
                    }
                )
                yield from _lean(f"lean backward {tail} {want}", slab_gradient, gradient, tile)
            target = operands | {"target_ptr": "*i64", "out_ptr": "*fp32"}
            sizes = {"ROWS": TARGET_ROWS, "BD": TARGET_DEPTH}
            yield Config(f"lean target {tail}", target_logits, target | sizes, 4, 3, False)
    merge = {**_partials(STATISTICS), **_outputs(STATISTICS), "z_target_ptr": "*fp32",
             "valid_ptr": "*u8", "logsumexp_ptr": "*fp32", "N": "i32", "V": "i32",
             "spans": "i32", "ROWS": MERGE_ROWS}  # fmt: skip
    yield Config("lean merge all", merge_spans, merge, 4, 3, False)


def _lean(name: str, kernel: Any, arguments: dict[str, Any], tile: Tile) -> Iterator[Config]:
    sizes = {"BM": tile.rows, "BV": tile.classes, "BD": tile.depth}
    size = f"{tile.rows}x{tile.classes}x{tile.depth}/{tile.warps}/{tile.stages}"
    config = Config(f"{name} {size}", kernel, arguments | sizes, tile.warps, tile.stages, True)
    yield config
    if name.endswith("bf16 all"):
        odd = config.arguments | {"EVEN": False}
        yield config._replace(name=f"{name} ragged D {size}", arguments=odd)


def _partials(names: tuple[str, ...]) -> dict[str, Any]:
    wanted = {"m": True, "s": True, "t": "entropy" in names, "q": "collision" in names,
              "total": "mean" in names, "best": "prediction" in names}  # fmt: skip
    kinds = {"best": "*i32"}
    return {f"{k}_ptr": kinds.get(k, "*fp32") if on else None for k, on in wanted.items()}


def _common(kind: str, dressed: bool) -> dict[str, Any]:
    """Logits and what finishes them; dressed means bias, temperature, scale and soft-cap."""
    return {
        "z_ptr": f"*{kind}",
        "z_stride": "i32",
        "bias_ptr": "*fp32" if dressed else None,
        "temperature_ptr": "*fp32" if dressed else None,
        "valid_ptr": "*u8",
        "V": "i32",
        "scale": "fp32" if dressed else None,
        "softcap": "fp32" if dressed else None,
    }


def _outputs(want: tuple[str, ...]) -> dict[str, Any]:
    kinds = {name: "*i64" if name == "prediction" else "*fp32" for name in STATISTICS}
    return {f"{name}_ptr": kinds[name] if name in want else None for name in STATISTICS}


def _coefficients(want: str) -> dict[str, Any]:
    return {f"{k}_ptr": "*fp32" if k in COEFFICIENTS[want] else None for k in "abcdef"}


def compile_config(config: Config, arch: str) -> dict[str, Any]:
    """Registers, stack, shared memory, instruction counts and faults of one build."""
    names = config.kernel.arg_names
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    for name in names:
        value = config.arguments[name]
        if isinstance(value, str) and (value[0] == "*" or value in ("i32", "fp32")):
            signature[name] = value
        else:
            signature[name] = "constexpr"
            constants[name] = value
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if signature[name][0] == "*" or signature[name] == "i32"
    }
    source = ASTSource(fn=config.kernel, signature=signature, constexprs=constants, attrs=aligned)
    built = triton.compile(
        source,
        target=GPU[arch],
        options={"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True},
    )
    row: dict[str, Any] = {"arch": arch, "name": config.name, "shared": built.metadata.shared}
    row |= _amd(built.asm["amdgcn"]) if arch == "gfx942" else _nvidia(built.asm["cubin"])
    text = built.asm["amdgcn"] if arch == "gfx942" else built.asm["ptx"]
    row["mma"] = len(re.findall(MMA[arch], text))
    row["atomics"] = len(re.findall(r"\batom\.|\bred\.|global_atomic", text))
    row["faults"] = [
        fault
        for fault, found in (
            (f"{row['stack']} B of stack", row["stack"] > 0),
            (f"shared memory over {SHARED_LIMIT[arch]}", row["shared"] > SHARED_LIMIT[arch]),
            (f"no {MMA[arch]}", config.matrix and not row["mma"]),
            ("atomics: not deterministic", row["atomics"] > 0),
        )
        if found
    ]
    return row


def _nvidia(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _run(tool, "--dump-resource-usage", file.name)
        sass = _run(tool, "--dump-sass", file.name)
    count = len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", sass, re.MULTILINE))
    registers, stack = (
        max(int(x) for x in re.findall(rf"{key}:(\d+)", usage)) for key in ("REG", "STACK")
    )
    return {"regs": registers, "stack": stack, "instructions": count}


def _amd(text: str) -> dict[str, int]:
    def number(key: str) -> int:
        return max(int(x) for x in re.findall(rf"\.{key}:\s*(\d+)", text))

    count = len(re.findall(r"^\t(?:v|s|ds|global|buffer|flat)_\w+", text, re.MULTILINE))
    stack = max(number("private_segment_fixed_size"), number("vgpr_spill_count"))
    return {"regs": number("vgpr_count"), "stack": stack, "instructions": count}


def _run(tool: Path, *arguments: str) -> str:
    return subprocess.run(
        [str(tool), *arguments], capture_output=True, text=True, check=True
    ).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=TARGETS, help="one architecture")
    parser.add_argument("--kernel", default="", help="only names that start so; several with ;")
    parser.add_argument("--json", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    rows = []
    print(f"triton {triton.__version__}")
    print(f"{'arch':7}{'regs':>5}{'stack':>6}{'shared':>8}{'instr':>7}{'mma':>5}  configuration")
    for arch in [arguments.only] if arguments.only else TARGETS:
        for config in (*row_configs(), *lean_configs(arch)):
            if not config.name.startswith(tuple(arguments.kernel.split(";"))):
                continue
            row = compile_config(config, arch)
            rows.append(row)
            print(
                f"{arch:7}{row['regs']:5}{row['stack']:6}{row['shared']:8}"
                f"{row['instructions']:7}{row['mma']:5}  {row['name']}  {'; '.join(row['faults'])}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    bad = sum(bool(row["faults"]) for row in rows)
    print(f"{len(rows)} builds, {bad} with faults")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
