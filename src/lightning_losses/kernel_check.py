# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`lightning-losses check`: every kernel against the reference, on the machine at hand.

Options are combined so that every pair of values of two options occurs in some case, which is where
kernels go wrong: a soft-cap beside padded classes, a bias beside many depths. A kernel is right if
it is no further from float64 than plain torch in the same dtype is, plus a tolerance.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_losses.losses import CrossEntropy, EntropyBonus, LogsumexpPenalty
from lightning_losses.objective import Objective
from lightning_losses.softmax import KERNELS, STATISTICS, Problem, softmax_stats, unavailable

Case = dict[str, Any]

#: Sizes are one, a ragged few, and more than a tile: 128 rows, 256 classes, a depth of 128.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "dtype": (torch.float32, torch.float16, torch.bfloat16),
    "rows": (150, 5, 1),
    "classes": (300, 37, 1),
    "depth": (160, 33),
    "given": ("hidden", "hidden, head transposed", "logits"),
    "target": ("classes", "soft"),
    "count": ("all rows", "some rows", "some rows, max_valid", "no rows"),
    "bias": (False, True, "a class masked by it"),
    "softcap": (None, 5.0),  # small: what is added for padding becomes -5, and shows
    "logit_scale": (1.0, 0.7),
    "temperature": (False, True),
    "class_weight": (False, True),
    "gradient": ("of an objective", "of any function"),
}
#: Beyond plain torch's own error, relative to the largest entry.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def sensible(case: Case) -> bool:
    """Whether the options of a case, of which some may be missing, go together."""
    has = case.get
    if has("given") == "logits" and has("bias", False) is not False:
        return False
    if has("target") == "soft" and has("count", "all rows") != "all rows":
        return False  # only class indices say that a row does not count
    if has("gradient") == "of an objective" and has("classes") == 1:
        return False  # a cross-entropy refuses one column; the statistics of one are checked
    return not (has("bias") == "a class masked by it" and has("classes") == 1)


def cases() -> list[Case]:
    """Few cases in which every sensible pair of values of two options occurs."""
    values = [(name, value) for name, options in OPTIONS.items() for value in options]
    missing = [
        (a, b)
        for a, b in itertools.combinations(values, 2)
        if a[0] != b[0] and sensible(dict([a, b]))
    ]
    found = []
    while missing:
        case: Case = dict(missing[0])
        for name, options in OPTIONS.items():
            if name in case:
                continue
            # The value with most missing pairs among what is chosen; of equals, the first.
            fitting = [value for value in options if sensible(case | {name: value})]
            case[name] = max(fitting, key=lambda v: _new(case | {name: v}, name, missing))
        found.append({name: case[name] for name in OPTIONS})
        missing = [pair for pair in missing if not covers(case, pair)]
    return found


def covers(case: Case, pair: tuple[tuple[str, Any], tuple[str, Any]]) -> bool:
    """Whether a case holds both values of a pair."""
    return all(name in case and case[name] is value for name, value in pair)


def _new(case: Case, name: str, missing: list[Any]) -> int:
    return sum(covers(case, pair) for pair in missing if name in (pair[0][0], pair[1][0]))


def check(device: str, kernels: tuple[str, ...] = KERNELS[2:]) -> Iterator[str]:
    """Lines about every kernel, then raise if one is wrong.

    Args:
        device: where to compute, as torch names it.
        kernels: of ``KERNELS``; compared with ``reference``.

    Raises:
        ArithmeticError: a kernel is further from float64 than plain torch plus the tolerance, or
            made a number that is not finite.
    """
    every, wrong = cases(), 0
    yield f"{device}, torch {torch.__version__}: {len(every)} cases, each pair of options in one"
    plain = [_outcome(case, device, "reference") for case in every]
    truth = [_outcome(case, device, "reference", torch.float64) for case in every]
    for kernel in kernels:
        tried, worst, refused = 0, 0.0, set()
        for case, own, right in zip(every, plain, truth, strict=True):
            reason = _refusal(kernel, case, device)
            if reason is not None:
                refused.add(reason)
                continue
            tried += 1
            excess = _excess(_outcome(case, device, kernel), own, right) / TOLERANCE[case["dtype"]]
            worst = max(worst, excess)
            if not excess <= 1:
                wrong += 1
                yield f"{kernel}: WRONG by {excess:.3g} tolerances: {_words(case)}"
        if tried:
            yield f"{kernel:12} {tried:3} cases, worst error {worst:.2g} of what is allowed"
        left = "the others" if tried else "none"
        yield from (f"{kernel:12} {left} because: {why}" for why in sorted(refused))
    if wrong:
        raise ArithmeticError(f"{wrong} results are wrong; please report them with the lines above")


def _words(case: Case) -> str:
    return ", ".join(f"{name}={value}" for name, value in case.items())


def _refusal(kernel: str, case: Case, device: str) -> str | None:
    """Why a kernel does not take a case, as its documentation says; None if it does."""
    if not kernel.startswith("triton"):
        return None
    logits = torch.empty(0, 1, dtype=case["dtype"], device=device)
    reason = unavailable(Problem(logits))
    if reason is None and kernel == "triton_lean":
        if case["given"] == "logits" or case["target"] == "soft":
            return "It makes no (N, V) tensor and takes none."
        if case["class_weight"]:
            return "It knows no class weights beside label smoothing."
    return reason


def _excess(found: list[Tensor], plain: list[Tensor], truth: list[Tensor]) -> float:
    """By how much the worst of our errors exceeds plain torch's; inf where one is not finite."""

    def error(a: Tensor, b: Tensor) -> float:
        if not a.numel():
            return 0.0
        return float((a.double() - b).abs().max() / b.abs().max().clamp(min=1))

    if not all(bool(x.isfinite().all()) for x in found):
        return float("inf")
    pairs = zip(found, plain, truth, strict=True)
    return max(error(ours, b) - error(torchs, b) for ours, torchs, b in pairs)


def _outcome(
    case: Case, device: str, kernel: str, dtype: torch.dtype | None = None
) -> list[Tensor]:
    """The statistics or the objective's total, then the gradients, as float32 or float64."""
    named, leaves = _inputs(case, device, dtype or case["dtype"])
    weight = None
    if case["class_weight"]:
        weight = torch.linspace(0.5, 2, case["classes"], device=device)
    masked = case["bias"] == "a class masked by it"  # then the mean over classes is -inf
    if case["gradient"] == "of an objective":
        given = None if weight is None or case["target"] == "soft" else weight.tolist()
        ce = CrossEntropy(0.0 if masked else 0.1, given)
        terms = {"ce": ce, "z": LogsumexpPenalty(), "entropy": EntropyBonus()}
        values = [Objective(terms, kernel=kernel)(**named).total]
        total = values[0]
    else:
        infinite = {n for n in STATISTICS if n.startswith(("mean", "weighted")) and masked}
        if not case["class_weight"]:
            infinite.add("weighted_log_prob")
        want = [name for name in STATISTICS[:-1] if name not in infinite]
        stats = softmax_stats(**named, class_weight=weight, kernel=kernel, want=want).as_dict()
        stats.pop("valid", None)
        values = list(stats.values())
        weight = torch.linspace(-1, 1, values[0].numel(), device=device)
        total = torch.stack([(x.double().square() * weight).sum() for x in values]).sum()
    return [x.detach().double() for x in (*values, *torch.autograd.grad(total, leaves))]


def _inputs(case: Case, device: str, dtype: torch.dtype) -> tuple[dict[str, Any], list[Tensor]]:
    """Named tensors of a case, and which of them get a gradient; drawn on the host, so that every
    dtype and device sees the same numbers, rounded to the dtype of the case.
    """
    n, v, d = case["rows"], case["classes"], case["depth"]
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        x = scale * torch.randn(shape, generator=g)
        return x.to(case["dtype"]).to(device, dtype).requires_grad_()

    named: dict[str, Any] = {}
    if case["given"] == "logits":
        named["logits"] = draw(n, v, scale=3.0)
    else:
        named["hidden"] = draw(n, d)
        transposed = "transposed" in case["given"]
        head = draw(d, v, scale=3 * d**-0.5) if transposed else draw(v, d, scale=3 * d**-0.5)
        named["head_weight"] = head.t() if transposed else head
        if case["bias"]:
            named["head_bias"] = draw(v)
    leaves = [head if name == "head_weight" else x for name, x in named.items()]
    if case["bias"] == "a class masked by it":
        masked = torch.arange(v, device=device) == v - 1
        named["head_bias"] = named["head_bias"].masked_fill(masked, -torch.inf)
    if case["target"] == "soft":
        named["target"] = torch.randn(n, v, generator=g).softmax(1).to(device, dtype)
        if case["bias"] == "a class masked by it":  # 0 log 0 is 0, and anything else is infinite
            named["target"] = named["target"].masked_fill(masked, 0)
    else:
        target = torch.randint(max(1, v - 1), (n,), generator=g)
        if case["count"] != "all rows":
            target[torch.rand(n, generator=g) < 0.4] = -100
        if case["count"] == "no rows":
            target[:] = -100
        named["target"] = target.to(device)
        if "max_valid" in case["count"]:
            named["max_valid"] = int((target != -100).sum())
    if case["temperature"]:
        named["temperature"] = (torch.rand(n, generator=g) + 0.5).to(device)
    named["softcap"] = case["softcap"]
    return named | {"logit_scale": case["logit_scale"]}, leaves
