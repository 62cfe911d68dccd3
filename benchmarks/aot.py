# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Compiles every shipped Triton configuration for four GPUs, without one, and prints what it costs.

    python benchmarks/aot.py [--only sm_90] [--kernel lean] [--json PATH]

Ends with status 1 if any build spills to the stack, needs more shared memory than the device has,
or lacks the instructions it was written for. The compiler checks none of these.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if os.environ.pop("TRITON_INTERPRET", None):
    sys.exit("benchmarks/aot.py compiles; unset TRITON_INTERPRET.")

import triton
from aot_configs import Config, configs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lightning_losses.kernels.triton.tiles import TARGETS

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
#: Tiles loaded by descriptor, on sm_90 and sm_100.
TMA = r"cp\.async\.bulk\.tensor"


def compile_config(config: Config, arch: str) -> dict[str, Any]:
    """Registers, stack, shared memory, instruction counts and faults of one build."""
    names = config.kernel.arg_names
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    for name in names:
        value = config.arguments[name]
        if isinstance(value, str) and value.startswith(("*", "tensordesc", "i32", "fp32")):
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
    if config.use_tma:
        row["tma"] = len(re.findall(TMA, text))
    row["atomics"] = len(re.findall(r"\batom\.|\bred\.|global_atomic", text))
    row["faults"] = [
        fault
        for fault, found in (
            (f"{row['stack']} B of stack", row["stack"] > 0),
            (f"shared memory over {SHARED_LIMIT[arch]}", row["shared"] > SHARED_LIMIT[arch]),
            (f"no {MMA[arch]}", config.matrix and not row["mma"]),
            (f"no {TMA}", config.use_tma and not row["tma"]),
            # Made on the host, descriptors need no memory from `triton.set_allocator`.
            ("global scratch", getattr(built.metadata, "global_scratch_size", 0) > 0),
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
    titles = f"{'arch':7}{'regs':>5}{'stack':>6}{'shared':>8}{'instr':>7}{'mma':>5}{'tma':>5}"
    print(f"{titles}  configuration")
    for arch in [arguments.only] if arguments.only else TARGETS:
        for config in configs(arch):
            if not config.name.startswith(tuple(arguments.kernel.split(";"))):
                continue
            row = compile_config(config, arch)
            rows.append(row)
            print(
                f"{arch:7}{row['regs']:5}{row['stack']:6}{row['shared']:8}"
                f"{row['instructions']:7}{row['mma']:5}{row.get('tma', 0):5}"
                f"  {row['name']}  {'; '.join(row['faults'])}",
                flush=True,
            )
    if arguments.json:
        lines = ",\n".join(f" {json.dumps(row)}" for row in rows)
        arguments.json.write_text(f"[\n{lines}\n]\n")
    bad = sum(bool(row["faults"]) for row in rows)
    print(f"{len(rows)} builds, {bad} with faults")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
