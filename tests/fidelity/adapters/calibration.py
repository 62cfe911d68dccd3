# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration metrics, all from one `StreamingCalibration`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.table import Deviates, NotBuilt, Within, adapter
from lightning_losses.metrics import StreamingCalibration, top_label
from lightning_losses.metrics.binned import brier_decomposition
from lightning_losses.metrics.fine import FineBins, arcsine_edges, smece

Inputs = dict[str, Any]
NORMS = {"l1": "ece", "l2": "rmsce", "max": "mce"}
# Enough that only rows of equal confidence share a fine bin, so that the bounds below are tight;
# the default is held to its own, wider ones in tests/test_metrics_calibration.py.
FINE_BINS = 2**16


def measure(
    inputs: Inputs, bins: int = 15, chunk: int | None = None, likelier: bool = False
) -> StreamingCalibration:
    """A metric that has seen all rows: of the top label, or of a binary event.

    ``likelier``: of the likelier one of event and no event, which some sources take.
    """
    metric = StreamingCalibration(bins=bins, fine_bins=FINE_BINS)
    p, y = inputs["p"], inputs["y"]
    if p.ndim > y.ndim:
        # The sources got p, which the file rounds; of its logarithm top_label makes p again.
        rows = tuple(top_label(p.log(), y))
    elif likelier:
        rows = (torch.maximum(p, 1 - p), (p > 0.5) == (y == 1))
    else:
        rows = (p, y == 1)
    size = chunk or max(len(y), 1)
    for start in range(0, len(y), size):
        metric.update(*(row[start : start + size] for row in rows))
    return metric


def confidences(inputs: Inputs) -> Tensor:
    p = inputs["p"]
    return p.amax(-1) if p.ndim > inputs["y"].ndim else p


def value(metric: StreamingCalibration, name: str) -> Inputs:
    return {"value": metric.compute()[name]}


def on_an_edge(inputs: Inputs, bins: int) -> bool:
    """Whether some row lies where the conventions of the libraries part: on an edge, or at 0 or 1.

    1e-6 is float32's view of an edge, which is what some of them compute in.
    """
    position = confidences(inputs) * bins
    return bool(((position - position.round()).abs() < 1e-6 * bins).any())


@adapter(
    "ece.equal_width.binary_positive_class",
    "ece.equal_width.top_label",
    "ece.netcal.binary",
    "ece.netcal.top_label",
    "ece.guo_right_closed",
    "ece.binned_relplot",
)
def equal_width(inputs: Inputs, params: Inputs, chunk: int | None = None) -> Inputs:
    bins = params["n_bins"]
    found = value(measure(inputs, bins, chunk), NORMS[params.get("norm", "l1")])
    if on_an_edge(inputs, bins):
        raise Deviates(
            "rows lie on a bin edge or at 1; our bins are [lo, hi), the last closed", found
        )
    return found


@adapter("ece.streaming_chunks_of_37")
def streaming(inputs: Inputs, params: Inputs) -> Inputs:
    return equal_width(inputs, params, chunk=37)


@adapter("mce.netcal.binary", "mce.netcal.top_label")
def largest(inputs: Inputs, params: Inputs) -> Inputs:
    return equal_width(inputs, params | {"norm": "max"})


@adapter("ece.equal_width.multilabel_per_label")
def per_label(inputs: Inputs, params: Inputs) -> Inputs:
    if params.get("reduction", "none") != "none":
        raise NotBuilt("a metric a label, and no mean over them")
    columns = zip(inputs["p"].T, inputs["y"].T, strict=True)
    found = [equal_width({"p": p, "y": y}, params)["value"] for p, y in columns]
    return {"value": torch.stack(found)}


@adapter("reliability_curve.uniform")
def reliability_curve(inputs: Inputs, params: Inputs) -> Inputs:
    curve = measure(inputs, params["n_bins"]).reliability()
    shown = curve["count"] > 0
    found = {"acc": curve["accuracy"][shown], "conf": curve["confidence"][shown]}
    if on_an_edge(inputs, params["n_bins"]):
        raise Deviates("our bins are [lo, hi), scikit-learn's (lo, hi]; rows lie on an edge", found)
    return found


# -- scores: sums over rows, exact --------------------------------------------------------------


@adapter("nll", "nll.binary")
def nll(inputs: Inputs, params: Inputs) -> Inputs:
    p = inputs["p"]
    if p.ndim == inputs["y"].ndim:
        # scikit-learn's rule for an event that was given probability 0.
        eps = torch.finfo(p.dtype).eps
        p = torch.stack([1 - p, p], -1).clamp(eps, 1 - eps)
    return value(measure(inputs | {"p": p}), "nll")


@adapter("brier.multiclass")
def brier(inputs: Inputs, params: Inputs) -> Inputs:
    return value(measure(inputs), "brier")


@adapter("brier.top_class", "brier.binary_half_scale")
def brier_of_confidence(inputs: Inputs, params: Inputs) -> Inputs:
    return {"value": brier_decomposition(measure(inputs).bins).brier}


@adapter("brier.decomposition.binned_5term")
def decomposition(inputs: Inputs, params: Inputs) -> Inputs:
    return brier_decomposition(measure(inputs, params["n_bins"]).bins)._asdict()


@adapter("confidence_gap")
def confidence_gap(inputs: Inputs, params: Inputs) -> Inputs:
    return value(measure(inputs), "gap")


# -- sorted rows, for which we have a fine histogram: within the bounds of metrics/fine.py ---------


def fine_bins(metric: StreamingCalibration) -> FineBins:
    return FineBins(metric.fine_count, *metric.fine_sums)


def equal_mass_bound(metric: StreamingCalibration, groups: int) -> float:
    """Each boundary inside a fine bin: 2 (n w + a (n - a) / n) / N."""
    n, _, a = fine_bins(metric)
    total, last = int(n.sum()), n.cumsum(0)
    sizes = [total // groups + (g < total % groups) for g in range(groups)]
    boundaries = torch.tensor(sizes).cumsum(0)[:-1]
    inside = ((boundaries > (last - n)[:, None]) & (boundaries < last[:, None])).sum(1)
    width = arcsine_edges(FINE_BINS).diff()
    return float((2 * inside * (n * width + a * (n - a) / n.clamp(min=1))).sum() / total)


@adapter("ece.equal_mass.top_label")
def equal_mass(inputs: Inputs, params: Inputs, likelier: bool = False) -> Inputs:
    if params.get("norm", "l1") != "l1":
        raise NotBuilt(f"equal-mass calibration error with norm {params['norm']}")
    groups = params["n_bins"]
    metric = measure(inputs, groups, likelier=likelier)
    bound = equal_mass_bound(metric, groups)
    found = {"value": Within(metric.compute()["ece_equal_mass"], above=bound, below=bound)}
    if len(inputs["y"]) < groups:
        raise Deviates("with fewer rows than bins the source gives NaN or 0, ours a number", found)
    return found


@adapter("ece.netcal.equal_mass")
def equal_mass_netcal(inputs: Inputs, params: Inputs) -> Inputs:
    found = equal_mass(inputs, params)
    rows = len(inputs["y"])
    if rows % params["n_bins"] or len(confidences(inputs).unique()) < rows:
        raise Deviates("rows that cannot be split evenly: netcal has edges of its own", found)
    return found


@adapter("ece.equal_mass.binary")
def equal_mass_binary(inputs: Inputs, params: Inputs) -> Inputs:
    return equal_mass(inputs, params, likelier=True)


@adapter("ks_calibration_error.top_label")
def ks(inputs: Inputs, params: Inputs) -> Inputs:
    metric = measure(inputs)
    confidence = confidences(inputs)
    correct = inputs["p"].argmax(-1) == inputs["y"]
    edges = arcsine_edges(FINE_BINS)[1:-1]
    where = torch.bucketize(confidence, edges, right=True)
    nothing = torch.zeros(FINE_BINS, dtype=torch.float64)
    over = nothing.index_add(0, where, confidence * ~correct)
    under = nothing.index_add(0, where, (1 - confidence) * correct)
    bound = float(torch.minimum(over, under).max()) / len(correct)
    return {"value": Within(metric.compute()["ks"], above=0, below=bound)}


@adapter("smece.fixed_sigma")
def smece_fixed(inputs: Inputs, params: Inputs) -> Inputs:
    ends = torch.minimum(confidences(inputs), 1 - confidences(inputs))
    # The source counts rows within a mesh point of 0 or 1 half, and sums over 200 points.
    bound = float((1 - 1000 * ends).clamp(min=0).mean()) / 2 + 1 / 200
    found = smece(fine_bins(measure(inputs)), sigma=params["sigma"])
    return {"value": Within(found, above=bound, below=bound)}


@adapter("auroc_confidence_correctness")
def auroc(inputs: Inputs, params: Inputs) -> Inputs:
    metric = measure(inputs)
    n, _, a = fine_bins(metric)
    bound = float((a * (n - a)).sum() / (a.sum() * (n - a).sum())) / 2
    found = {"value": Within(metric.compute()["auroc_correctness"], above=bound, below=bound)}
    if bool((a == n).all()) or not bool(a.any()):
        raise Deviates("all rows correct or all wrong: ours is NaN, for there is no ranking", found)
    return found
