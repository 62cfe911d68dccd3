# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every Triton configuration that ships, as `benchmarks/aot.py` builds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from lightning_losses.kernels.eager.spread import Part
from lightning_losses.kernels.problem import MAX_AND_SUM, STATISTICS
from lightning_losses.kernels.study.softmax_passes_triton import online_rows, two_pass_rows
from lightning_losses.kernels.triton.lean_backward_kernels import slab_gradient
from lightning_losses.kernels.triton.lean_forward_kernels import (
    merge_spans,
    span_statistics,
    target_logits,
)
from lightning_losses.kernels.triton.lean_forward_op import MERGE_ROWS, TARGET_DEPTH, TARGET_ROWS
from lightning_losses.kernels.triton.row_kernels import row_gradient, row_statistics
from lightning_losses.kernels.triton.spread import span_spread
from lightning_losses.kernels.triton.tiles import (
    COPY_ENGINE,
    GROUP,
    Tile,
    backward_tile,
    forward_tile,
    spread_tile,
)

WANTS = {"lse": (), "ce": ("log_prob",), "+entropy": ("log_prob", "entropy"), "all": STATISTICS}
#: Which coefficients a row has: cross-entropy; with entropy; everything (class weights, the last,
#: are unknown to mode lean).
COEFFICIENTS = {"ce": "ad", "+entropy": "abd", "all": "abcdefg"}


class Config(NamedTuple):
    """One build: pointer types, integers and floats in the order of the kernel, None if absent."""

    name: str
    kernel: Any
    arguments: dict[str, Any]
    warps: int
    stages: int
    matrix: bool  # must hold matrix instructions
    use_tma: bool = False  # must load tiles by tensor descriptor


def row_configs() -> Iterator[Config]:
    for kind in ("bf16", "fp32"):
        lane = 8 if kind == "bf16" else 4
        for want in ("ce", "+entropy", "all"):
            for with_options in (False, True):
                yield Config(
                    f"row_statistics {kind} {want}{' options' if with_options else ''}",
                    row_statistics,
                    {
                        **_common(kind, with_options),
                        "target_ptr": "*i64",
                        "soft_ptr": None,
                        "soft_stride": "i32",
                        "weight_ptr": "*fp32" if want == "all" else None,
                        **_outputs(WANTS[want]),
                        "LIFT": with_options,
                        "BLOCK": 4096,
                        "LANE": lane,
                    },
                    8,
                    2,
                    False,
                )
                yield Config(
                    f"row_gradient {kind} {want}{' options' if with_options else ''}",
                    row_gradient,
                    {
                        **_common(kind, with_options),
                        "out_ptr": f"*{kind}",
                        "out_stride": "i32",
                        "target_ptr": "*i64",
                        "soft_ptr": None,
                        "soft_stride": "i32",
                        "weight_ptr": "*fp32" if want == "all" else None,
                        "max_logit_ptr": "*fp32",
                        "prediction_ptr": "*i64" if want == "all" else None,
                        **_coefficients(want),
                        "LIFT": with_options,
                        "BLOCK": 4096,
                    },
                    8,
                    2,
                    False,
                )


def lean_configs(arch: str) -> Iterator[Config]:
    for kind in ("bf16", "fp32"):
        for with_options in (False, True):
            operands = _operands(arch, kind, with_options)
            for use_tma in (False, True) if arch in COPY_ENGINE else (False,):
                yield from _products(arch, kind, with_options, use_tma, operands)
            target = operands | {"target_ptr": "*i64", "out_ptr": "*fp32"}
            sizes = {"ROWS": TARGET_ROWS, "BD": TARGET_DEPTH}
            tail = f"{kind}{' options' if with_options else ''}"
            yield Config(f"lean target {tail}", target_logits, target | sizes, 4, 3, False)
    merge = {**_partials(STATISTICS), **_outputs(STATISTICS), "z_target_ptr": "*fp32",
             "valid_ptr": "*u8", "N": "i32", "V": "i32", "span": "i32", "spans": "i32",
             "ROWS": MERGE_ROWS}  # fmt: skip
    yield Config("lean merge all", merge_spans, merge, 4, 3, False)


def _operands(arch: str, kind: str, with_options: bool) -> dict[str, Any]:
    bare = {k: v for k, v in _common(kind, with_options).items() if k[0] != "z"}
    return bare | {
        **{f"{x}_ptr": f"*{kind}" for x in "hw"},
        **{f"{x}_stride": "i32" for x in "hw"},
        **{f"{x}_step": 1 for x in "hw"},
        "num_valid_ptr": "*i32",
        "N": "i32",
        "D": "i32",
        "GROUP": GROUP,
        "EVEN_D": True,
        "USE_TMA": False,
        "PRECISION": "ieee" if kind == "bf16" or arch == "gfx942" else "tf32x3",
    }


def _products(
    arch: str, kind: str, with_options: bool, use_tma: bool, operands: dict[str, Any]
) -> Iterator[Config]:
    """Both matrix products of mode lean, with every set of statistics and coefficients."""
    itemsize = 2 if kind == "bf16" else 4
    tail = f"{kind}{' options' if with_options else ''}"
    for want, names in WANTS.items():
        if want == "ce":  # the target's logit has its own kernel
            continue
        tile = forward_tile(arch, with_options or want == "all", itemsize, use_tma)
        forward = operands | _partials(names) | {"span": "i32", "spans": "i32"}
        name = f"lean forward {tail} {want}"
        yield from _lean(name, span_statistics, forward, tile, use_tma)
    tile = backward_tile(arch, with_options, itemsize, use_tma)
    for want in COEFFICIENTS:
        gradient = (
            operands
            | _coefficients(want)
            | {
                "out_ptr": f"*{kind}",
                "out_stride": "i32",
                "target_ptr": "*i64",
                "max_logit_ptr": "*fp32",
                "prediction_ptr": "*i64" if want == "all" else None,
                "first": "i32",
                "width": "i32",
            }
        )
        name = f"lean backward {tail} {want}"
        yield from _lean(name, slab_gradient, gradient, tile, use_tma)


def spread_configs(arch: str) -> Iterator[Config]:
    for kind, itemsize in (("bf16", 2), ("fp32", 4)):
        exact = "ieee" if kind == "bf16" or arch == "gfx942" else "tf32x3"
        for with_options in (False, True):
            bare = {k: v for k, v in _common(kind, with_options).items() if k[0] != "z"}
            arguments = bare | {
                **{f"{x}_ptr": f"*{kind}" for x in ("h", "w", "dh", "dw")},
                **{f"{x}_stride": "i32" for x in ("h", "w", "dh", "dw")},
                **{f"{x}_step": 1 for x in ("h", "w", "dh", "dw")},
                "dbias_ptr": "*fp32" if with_options else None,
                **{f"{x}_ptr": "*fp32" for x in Part._fields},
                **dict.fromkeys(("N", "D", "span", "spans"), "i32"),
                "GROUP": GROUP,
                "EVEN_D": True,
                "PRECISION": exact,
            }
            name = f"spread {kind}{' options' if with_options else ''}"
            yield from _lean(name, span_spread, arguments, spread_tile(arch, itemsize))


def softmax_configs() -> Iterator[Config]:
    for kind, lane in (("bf16", 8), ("fp32", 4)):
        arguments = {
            **{f"{x}_ptr": f"*{kind}" for x in ("z", "out")},
            **dict.fromkeys(("z_stride", "out_stride", "V"), "i32"),
            "BLOCK": 4096,
            "LANE": lane,
        }
        yield Config(f"softmax two-pass {kind}", two_pass_rows, arguments, 8, 2, False)
        yield Config(f"softmax online {kind}", online_rows, arguments, 8, 2, False)


def _lean(
    name: str, kernel: Any, arguments: dict[str, Any], tile: Tile, use_tma: bool = False
) -> Iterator[Config]:
    arguments = arguments | {"BM": tile.rows, "BV": tile.classes, "BD": tile.depth}
    size = f"{tile.rows}x{tile.classes}x{tile.depth}/{tile.warps}/{tile.stages}"
    if use_tma:
        kind = arguments["h_ptr"][1:]
        arguments["h_ptr"] = f"tensordesc<{kind}[{tile.rows}, {tile.depth}]>"
        arguments["w_ptr"] = f"tensordesc<{kind}[{tile.classes}, {tile.depth}]>"
        arguments["USE_TMA"] = True
        name += " TMA"
    config = Config(f"{name} {size}", kernel, arguments, tile.warps, tile.stages, True, use_tma)
    yield config
    if name.endswith("bf16 all"):
        odd = arguments | {"EVEN_D": False}
        yield config._replace(name=f"{name} ragged D {size}", arguments=odd)


def _partials(names: tuple[str, ...]) -> dict[str, Any]:
    wanted = {"m": True, "s": True, "t": "entropy" in names, "q": "collision" in names,
              "total": "mean_logit" in names, "best": "prediction" in names}  # fmt: skip
    kinds = {"best": "*i32"}
    return {f"{k}_ptr": kinds.get(k, "*fp32") if on else None for k, on in wanted.items()}


def _common(kind: str, with_options: bool) -> dict[str, Any]:
    """Logits and what finishes them; with_options means bias, temperature, scale and soft-cap."""
    return {
        "z_ptr": f"*{kind}",
        "z_stride": "i32",
        "bias_ptr": "*fp32" if with_options else None,
        "temperature_ptr": "*fp32" if with_options else None,
        "valid_ptr": "*u8",
        "V": "i32",
        "scale": "fp32" if with_options else None,
        "softcap": "fp32" if with_options else None,
    }


def _outputs(want: tuple[str, ...]) -> dict[str, Any]:
    kinds = {name: "*i64" if name == "prediction" else "*fp32" for name in STATISTICS}
    found = {f"{name}_ptr": kinds[name] if name in want else None for name in STATISTICS}
    return found | {f"{name}_ptr": "*fp32" for name in MAX_AND_SUM}


def _coefficients(want: str) -> dict[str, Any]:
    return {f"{k}_ptr": "*fp32" if k in COEFFICIENTS[want] else None for k in "abcdefg"}


def configs(arch: str) -> Iterator[Config]:
    """Of one architecture."""
    yield from row_configs()
    yield from lean_configs(arch)
    yield from spread_configs(arch)
    yield from softmax_configs()
