# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration metrics, nearly all from one `StreamingCalibration`; calibrators; drift."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from adapters import reference
from adapters.table import Deviates, NotBuilt, adapter, evaluate, only
from lightning_losses.calibrators import TemperatureScaling
from lightning_losses.calibrators.histogram import bin_means
from lightning_losses.calibrators.isotonic import interpolate, pool_adjacent_violators
from lightning_losses.losses import CrossEntropy
from lightning_losses.metrics import (
    BrierByPrediction,
    GaussianCalibration,
    IntervalCoverage,
    StreamingCalibration,
    brier_corp,
    class_scores,
    conformal_threshold,
    ece_kde,
    loo_bandwidth,
    prediction_sets,
    quantile_score,
    split_point_class_discrepancy,
    top_label,
    weighted_interval_score,
)
from lightning_losses.metrics.calibration.bins import (
    brier_decomposition,
    debiased,
    ece,
    mce,
    rmsce,
)
from lightning_losses.metrics.calibration.classwise import ClasswiseCalibration
from lightning_losses.metrics.calibration.fine_bins import FineBins
from lightning_losses.metrics.calibration.fine_bins import equal_mass as groups_of
from lightning_losses.metrics.calibration.fine_bins import ks as kolmogorov_smirnov
from lightning_losses.metrics.calibration.psi import psi
from lightning_losses.metrics.calibration.ranking import augrc as generalised_area
from lightning_losses.metrics.calibration.ranking import auprc_error as average_precision
from lightning_losses.metrics.calibration.ranking import aurc as area_under_risk_coverage
from lightning_losses.metrics.calibration.ranking import auroc as area_under_roc
from lightning_losses.metrics.calibration.ranking import coverage_at_risk, risk_at_coverage
from lightning_losses.metrics.calibration.ranking import eaurc as excess_area
from lightning_losses.metrics.calibration.smooth import smece, smece_auto

Inputs = dict[str, Any]
NORMS = {"l1": "ece", "l2": "rmsce", "max": "mce"}
# Enough that only rows of equal confidence share a fine bin, so that nothing but ties is lost to
# it; the default of 1024 is held to its stated bounds in tests/metrics/test_calibration.py.
FINE = 2**18


def measure(
    inputs: Inputs,
    bins: int = 15,
    chunk: int | None = None,
    likelier: bool = False,
    fine_bins: int = 1024,
) -> StreamingCalibration:
    """A metric that has seen all rows: of the top label, or of a binary event.

    ``likelier``: of the likelier one of event and no event, which some sources take.
    """
    metric = StreamingCalibration(bins=bins, fine_bins=fine_bins)
    p, y = inputs["p"], inputs["y"]
    # The sources got p, which the file rounds; of its logarithm top_label makes p again.
    rows = tuple(top_label(p.log(), y)) if p.ndim > y.ndim else seen(inputs, likelier)
    size = chunk or max(len(y), 1)
    for start in range(0, len(y), size):
        metric.update(*(row[start : start + size] for row in rows))
    return metric


def seen(inputs: Inputs, likelier: bool = False) -> tuple[Tensor, Tensor]:
    """Confidence and correctness of the rows, without the product."""
    c, a = reference.rows_of(inputs)
    if likelier and inputs["p"].ndim == inputs["y"].ndim:
        return torch.maximum(c, 1 - c), ((c > 0.5) == (a == 1)).double()
    return c, a


def sorted_rows(inputs: Inputs, likelier: bool = False) -> FineBins:
    """The fine histogram of all rows."""
    return measure(inputs, likelier=likelier, fine_bins=FINE).fine_bins


def value(metric: StreamingCalibration, name: str) -> Inputs:
    return {"value": metric.compute()[name]}


def norm_of(params: Inputs) -> str:
    norm = params.get("norm", "l1")
    if norm not in NORMS:
        raise NotBuilt(f"norm {norm!r}")
    return str(norm)


def on_an_edge(confidence: Tensor, bins: int) -> bool:
    """Whether some row lies where the conventions of the libraries part: on an edge, or at 0 or 1.

    1e-6 is float32's view of an edge, which is what some of them compute in.
    """
    position = confidence * bins
    return bool(((position - position.round()).abs() < 1e-6 * bins).any())


def tied(confidence: Tensor) -> bool:
    return len(confidence.unique()) < len(confidence)


EDGES = "rows lie on a bin edge or at 1; our bins are [lo, hi), the last closed"


def equal_width(inputs: Inputs, bins: int, norm: str, chunk: int | None = None) -> Inputs:
    """The error of equal-width bins; deviates where rows lie on an edge."""
    found = value(measure(inputs, bins, chunk), NORMS[norm])
    c, a = reference.rows_of(inputs)
    if on_an_edge(c, bins):
        ours = reference.calibration_error(reference.equal_width(c, a, bins), norm)
        raise Deviates(EDGES, found, {"value": ours})
    return found


@adapter(
    "ece.equal_width.binary_positive_class", "ece.equal_width.top_label", "ece.guo_right_closed"
)
def equal_width_error(inputs: Inputs, params: Inputs) -> Inputs:
    # Either convention of the edges; rows on one deviate, the others are the same in both.
    if not str(params.get("bins", "[lo,hi)")).startswith(("[lo,hi)", "(lo,hi]")):
        raise NotBuilt(f"bins {params['bins']!r}")
    return equal_width(inputs, params.get("n_bins", 15), norm_of(params))


@adapter("ece.netcal.binary", "ece.netcal.top_label", "ece.binned_relplot")
def equal_width_of_ten(inputs: Inputs, params: Inputs) -> Inputs:
    return equal_width(inputs, params.get("n_bins", 10), "l1")


@adapter("ece.streaming_chunks_of_37")
def streaming(inputs: Inputs, params: Inputs) -> Inputs:
    return equal_width(inputs, params.get("n_bins", 15), norm_of(params), chunk=37)


@adapter("mce.netcal.binary", "mce.netcal.top_label")
def largest(inputs: Inputs, params: Inputs) -> Inputs:
    return equal_width(inputs, params.get("n_bins", 10), "max")


@adapter("ece.equal_width.multilabel_per_label")
def per_label(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "none")
    bins, norm = params.get("n_bins", 15), norm_of(params)
    found, ours, edge = [], [], False
    for p, y in zip(inputs["p"].T, inputs["y"].T, strict=True):
        found.append(measure({"p": p, "y": y}, bins).compute()[NORMS[norm]])
        groups = reference.equal_width(p, (y == 1).double(), bins)
        ours.append(reference.calibration_error(groups, norm))
        edge = edge or on_an_edge(p, bins)
    if edge:
        raise Deviates(EDGES, {"value": torch.stack(found)}, {"value": ours})
    return {"value": torch.stack(found)}


@adapter("reliability_curve.quantile")
def quantile_curve(inputs: Inputs, params: Inputs) -> Inputs:
    bins = params.get("n_bins", 5)
    groups = groups_of(sorted_rows(inputs), bins)
    found = {"acc": groups.correct / groups.rows, "conf": groups.confidence / groups.rows}
    c, a = reference.rows_of(inputs)
    if len(c) % bins or tied(c):
        ours = reference.equal_mass(c, a, bins)
        raise Deviates(
            "ties, or rows that cannot be split evenly: scikit-learn splits elsewhere",
            found,
            {"acc": [acc for _, _, acc in ours], "conf": [conf for _, conf, _ in ours]},
        )
    return found


@adapter(
    "ace_mean_over_nonempty_bins.netcal.binary", "ace_mean_over_nonempty_bins.netcal.top_label"
)
def mean_over_bins(inputs: Inputs, params: Inputs) -> Inputs:
    bins = params.get("n_bins", 10)
    curve = measure(inputs, bins).reliability()
    found = {"value": (curve["confidence"] - curve["accuracy"]).abs().nanmean()}
    c, a = reference.rows_of(inputs)
    if on_an_edge(c, bins):
        gaps = [abs(conf - acc) for _, conf, acc in reference.equal_width(c, a, bins)]
        raise Deviates(EDGES, found, {"value": sum(gaps) / len(gaps)})
    return found


@adapter("reliability_curve.uniform")
def reliability_curve(inputs: Inputs, params: Inputs) -> Inputs:
    bins = params.get("n_bins", 5)
    curve = measure(inputs, bins).reliability()
    shown = curve["count"] > 0
    found = {"acc": curve["accuracy"][shown], "conf": curve["confidence"][shown]}
    c, a = reference.rows_of(inputs)
    if on_an_edge(c, bins):
        ours = reference.equal_width(c, a, bins)
        raise Deviates(
            "our bins are [lo, hi), scikit-learn's (lo, hi]; rows lie on an edge",
            found,
            {"acc": [acc for _, _, acc in ours], "conf": [conf for _, conf, _ in ours]},
        )
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
    only(params, "sum_over_classes", True)
    return value(measure(inputs), "brier")


@adapter("brier.top_class")
def brier_of_top_class(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "sum_over_classes", True)
    return {"value": brier_decomposition(measure(inputs).bins).brier}


@adapter("brier.binary_half_scale")
def brier_of_confidence(inputs: Inputs, params: Inputs) -> Inputs:
    return {"value": brier_decomposition(measure(inputs).bins).brier}


@adapter("brier.decomposition.binned_5term")
def decomposition(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "bins", "[lo,hi), 1.0 in last bin")
    only(params, "identity", "brier=rel-res+unc+wbv-wbc")
    return brier_decomposition(measure(inputs, params.get("n_bins", 10)).bins)._asdict()


@adapter("brier.decomposition.corp_isotonic")
def corp(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "identity", "score=miscalibration-discrimination+uncertainty")
    metric = measure(inputs)
    found = brier_corp(metric.bins, metric.fine_bins)
    return {
        "score": found.brier,
        "miscalibration": found.miscalibration,
        "discrimination": found.discrimination,
        "uncertainty": found.uncertainty,
    }


@adapter("brier.decomposition.tfp_by_predicted_class")
def by_predicted_class(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "binning", "argmax class")
    if "negative uncertainty" not in str(params.get("identity", "negative uncertainty")):
        raise NotBuilt(f"identity {params['identity']!r}")
    logits, y = inputs["logits"], inputs["y"]
    assert inputs.get("use", "logits") == "logits"
    metric = BrierByPrediction()
    metric.update(logits.softmax(1), y)
    found = metric.compute()
    # The source leaves the 1 of its score out, and has no terms for what varies within a group.
    values = {
        "uncertainty": found["uncertainty"] - 1,
        "reliability": found["reliability"] + found["within_group_variance"],
        "resolution": found["resolution"],
    }
    shares = torch.nn.functional.one_hot(y, logits.shape[1]).double()
    resolution = 0.0
    for k in logits.argmax(1).unique():
        group = shares[logits.argmax(1) == k]
        away = (group.mean(0) - shares.mean(0)).square().sum()
        resolution += len(group) / len(y) * float(away)
    raise Deviates(
        "the source's resolution subtracts class shares along the axis of predictions",
        values,
        {"resolution": resolution},
    )


@adapter("confidence_gap")
def confidence_gap(inputs: Inputs, params: Inputs) -> Inputs:
    if not str(params.get("def", "mean confidence - accuracy")).startswith(
        "mean confidence - accuracy"
    ):
        raise NotBuilt(f"a gap that is {params['def']!r}")
    return value(measure(inputs), "gap")


# -- sorted rows, for which we have a fine histogram ----


def equal_mass(inputs: Inputs, groups: int, norm: str, likelier: bool = False) -> Inputs:
    sums = groups_of(sorted_rows(inputs, likelier), groups)
    found = {"value": {"l1": ece, "l2": rmsce, "max": lambda bins: mce(bins)[0]}[norm](sums)}
    c, a = seen(inputs, likelier)
    ours = {"value": reference.calibration_error(reference.equal_mass(c, a, groups), norm)}
    if len(c) < groups:
        raise Deviates(
            "fewer rows than bins: the source gives NaN or 0, ours a number", found, ours
        )
    if tied(c):
        raise Deviates("ties: the source splits them as they come, ours shares them", found, ours)
    return found


@adapter("ece.equal_mass.top_label", "ece.equal_mass_midpoints")
def equal_mass_top_label(inputs: Inputs, params: Inputs) -> Inputs:
    return equal_mass(inputs, params.get("n_bins", 15), norm_of(params))


@adapter("ece.equal_mass.binary")
def equal_mass_binary(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "split", "tensor_split of sorted confidences")
    return equal_mass(inputs, params.get("n_bins", 15), norm_of(params), likelier=True)


@adapter("ece.netcal.equal_mass")
def equal_mass_netcal(inputs: Inputs, params: Inputs) -> Inputs:
    bins = params.get("n_bins", 10)
    found = equal_mass(inputs, bins, "l1")
    c, a = reference.rows_of(inputs)
    if len(c) % bins:
        ours = reference.calibration_error(reference.equal_mass(c, a, bins), "l1")
        raise Deviates(
            "rows that cannot be split evenly: netcal has edges of its own", found, {"value": ours}
        )
    return found


@adapter("ks_calibration_error.top_label")
def ks(inputs: Inputs, params: Inputs) -> Inputs:
    found = {"value": kolmogorov_smirnov(sorted_rows(inputs))}
    c, a = reference.rows_of(inputs)
    if tied(c):
        sums = [(c - a)[c <= t].sum().abs() for t in c.unique()]
        ours = float(torch.stack(sums).max()) / len(c)
        raise Deviates(
            "ties: the source looks between rows of equal confidence", found, {"value": ours}
        )
    return found


RELPLOT = "relplot's grid counts rows near 0 and 1 half, and sums over 200 points; ours is exact"


@adapter("smece.fixed_sigma")
def smece_fixed(inputs: Inputs, params: Inputs) -> Inputs:
    sigma = params.get("sigma", 0.05)
    found = {"value": smece(measure(inputs, fine_bins=2**14).fine_bins, sigma=sigma)}
    ours = reference.smooth_error(*reference.rows_of(inputs), sigma)
    raise Deviates(RELPLOT, found, {"value": ours})


@adapter("smece.top_label", "smece.binary")
def smece_automatic(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "kernel", "reflected_gaussian", "reflected", "logit")
    only(params, "eps", 0.001)  # where the search ends, below our steps of 1/1024
    only(params, "refine", 10)
    only(params, "mesh", 200)
    logit = params.get("kernel") == "logit"
    fine = measure(inputs, fine_bins=2**14).fine_bins
    error, width = smece_auto(fine, "logit" if logit else "reflected")
    rows = reference.rows_of(inputs)
    smooth = reference.smooth_error_of_odds if logit else reference.smooth_error
    smallest = reference.smallest_width(*rows, smooth)
    ours = {"smece": smooth(*rows, smallest), "bandwidth": smallest}
    raise Deviates(
        "relplot's log-odds end at those of its 200 points; ours is on the whole line"
        if logit
        else RELPLOT,
        {"smece": error, "bandwidth": width},
        ours,
    )


@adapter("auroc_confidence_correctness")
def auroc(inputs: Inputs, params: Inputs) -> Inputs:
    found = {"value": area_under_roc(sorted_rows(inputs))}
    _, a = reference.rows_of(inputs)
    if bool((a == a[:1]).all()):
        raise Deviates(
            "all rows correct or all wrong: ours is NaN, for there is no ranking",
            found,
            {"value": math.nan},
        )
    return found


@adapter("auprc_error")
def auprc(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "positive", "error")
    only(params, "score", "1-confidence")
    return {"value": average_precision(sorted_rows(inputs))}


@adapter("risk_at_80_cov")
def risk_at_80(inputs: Inputs, params: Inputs) -> Inputs:
    risks = reference.prefix_risks(*reference.rows_of(inputs))
    found = {"value": risk_at_coverage(sorted_rows(inputs), 0.8)}
    return ties_of(inputs, found, {"value": risks[math.ceil(0.8 * len(risks)) - 1]})


@adapter("cov_at_5_risk")
def coverage_at_5(inputs: Inputs, params: Inputs) -> Inputs:
    risks = reference.prefix_risks(*reference.rows_of(inputs))
    found = {"value": coverage_at_risk(sorted_rows(inputs), 0.05)}
    safe = [k for k, risk in enumerate(risks, start=1) if risk <= 0.05]
    if not safe:
        raise Deviates(
            "no row is so safe: nothing is to be accepted, a coverage of 0", found, {"value": 0.0}
        )
    return ties_of(inputs, found, {"value": safe[-1] / len(risks)})


def l2(rows: FineBins, groups: int, unbiased: bool) -> Tensor:
    sums = groups_of(rows, groups)
    return debiased(sums) if unbiased else rmsce(sums)


def l2_error(inputs: Inputs, params: Inputs, unbiased: bool) -> Inputs:
    only(params, "binning", "equal_mass")
    return {"value": l2(sorted_rows(inputs), params.get("n_bins", 15), unbiased)}


@adapter("ce.l2.plugin_equal_mass", "ce.l2.plugin.top-label")
def l2_plugin(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_error(inputs, params, unbiased=False)


@adapter("ce.l2.debiased_equal_mass", "ce.l2.debiased.top-label")
def l2_debiased(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_error(inputs, params, unbiased=True)


def l2_marginal(inputs: Inputs, params: Inputs, unbiased: bool) -> Inputs:
    """The root of the mean over classes of the squared error of each class as a binary event."""
    only(params, "binning", "equal_mass")
    groups = params.get("n_bins", 15)
    parts = [
        l2(sorted_rows({"p": p, "y": (inputs["y"] == k).long()}), groups, unbiased)
        for k, p in enumerate(inputs["p"].T)
    ]
    return {"value": torch.stack(parts).square().mean().sqrt()}


@adapter("ce.l2.plugin.marginal")
def l2_marginal_plugin(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_marginal(inputs, params, unbiased=False)


@adapter("ce.l2.debiased.marginal")
def l2_marginal_debiased(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_marginal(inputs, params, unbiased=True)


# -- risk and coverage: ours is the mean over k of the error rate of the k most confident rows ----


def trapezoids(area: Tensor, risks: list[float], first: bool = False) -> Tensor:
    """The area of libraries that draw trapezoids from coverage 1/N to 1, from ours.

    ``first``: and a rectangle below 1/N.
    """
    return area - (risks[-1] + (-risks[0] if first else risks[0])) / 2 / len(risks)


def ties_of(inputs: Inputs, found: Inputs, ours: Inputs) -> Inputs:
    if tied(reference.rows_of(inputs)[0]):
        raise Deviates("ties: the source takes them as they come, ours shares them", found, ours)
    return found


@adapter("aurc.mean_of_prefix_risks")
def aurc(inputs: Inputs, params: Inputs) -> Inputs:
    risks = reference.prefix_risks(*reference.rows_of(inputs))
    found = {"value": area_under_risk_coverage(sorted_rows(inputs))}
    return ties_of(inputs, found, {"value": sum(risks) / len(risks)})


@adapter("aurc.trapezoid_rescaled")
def aurc_trapezoid(inputs: Inputs, params: Inputs) -> Inputs:
    risks = reference.prefix_risks(*reference.rows_of(inputs))
    rescale = 1 - 1 / len(risks)
    found = trapezoids(area_under_risk_coverage(sorted_rows(inputs)), risks) / rescale
    ours = trapezoids(torch.tensor(sum(risks) / len(risks)), risks) / rescale
    return ties_of(inputs, {"value": found}, {"value": ours})


@adapter("aurc.fd_shifts")
def aurc_fd_shifts(inputs: Inputs, params: Inputs) -> Inputs:
    units = str(params.get("units", "multiplied by 1000"))
    if "multiplied by 1000" not in units:
        raise NotBuilt(f"units {units!r}")
    c, a = reference.rows_of(inputs)
    risks, n = reference.prefix_risks(c, a), len(c)
    fine = sorted_rows(inputs)
    wrong = 1 - float(a.mean())
    # Its least area is that of infinitely many rows, ours that of the rows there are.
    least = torch.tensor(reference.least_risks(n, round(wrong * n)), dtype=torch.float64).mean()
    limit = wrong + torch.special.xlogy(1 - wrong, torch.tensor(1 - wrong, dtype=torch.float64))
    found = {
        "aurc": 1000 * trapezoids(area_under_risk_coverage(fine), risks, first=True),
        "eaurc": 1000 * (trapezoids(excess_area(fine) + least, risks, first=True) - limit),
        "augrc": 1000 * generalised_area(fine),
    }
    area = trapezoids(torch.tensor(sum(risks) / n, dtype=torch.float64), risks, first=True)
    ours = {"aurc": 1000 * area, "eaurc": 1000 * (area - limit)}
    return ties_of(inputs, found, ours)


@adapter("augrc")
def augrc(inputs: Inputs, params: Inputs) -> Inputs:
    c, a = reference.rows_of(inputs)
    n, first = len(c), float(1 - a[c.argmax()])
    # The source leaves out the triangle below coverage 1/N, and divides by what is left.
    found = (generalised_area(sorted_rows(inputs)) - first / (2 * n**2)) / (1 - 1 / n)
    risks = reference.prefix_risks(c, a)
    heights = [0.0] + [risk * (k + 1) / n for k, risk in enumerate(risks)]
    area = sum(low + high for low, high in pairwise(heights)) / (2 * n)
    return ties_of(inputs, {"value": found}, {"value": (area - first / (2 * n**2)) / (1 - 1 / n)})


@adapter("ece.classwise")
def classwise(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "norm", "l1")
    p, bins, reduction = inputs["p"], params.get("n_bins", 15), params.get("reduction", "mean")
    metric = ClasswiseCalibration(p.shape[1], bins=bins)
    metric.update(p, inputs["y"])
    found = metric.compute()
    each = found["ece_per_class"]
    reductions = {"none": each, "sum": each.sum(), "mean": found["ece_classwise"]}
    if reduction not in reductions:
        raise NotBuilt(f"reduction {reduction!r}")
    return {"value": reductions[reduction]}


@adapter("drift.psi")
def drift(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "log", "natural")
    only(params, "smoothing", "none")
    n, m = inputs["expected_counts"], inputs["actual_counts"]
    if not bool((n > 0).all() and (m > 0).all()):
        raise NotBuilt("empty cells without smoothing: ours count half a row")
    found = psi(n, m)
    raise Deviates(
        "fastwoe's standard error misses the covariances of cells, and is a third too small",
        {
            "psi": found.psi,
            "woe": found.woe,
            "woe_se": found.woe_standard_error,
            "se_full_multinomial_delta": found.standard_error,
            "se_fastwoe_formula": found.standard_error,
        },
        {"se_fastwoe_formula": psi_standard_error(n, m)},
    )


def psi_standard_error(n: Tensor, m: Tensor) -> float:
    """By the delta method: the slope in each share, and the covariance of the shares."""
    variance = 0.0
    for own, other, sign in ((n, m, 1), (m, n, -1)):
        share, rest = own / own.sum(), other / other.sum()
        slope = sign * (share / rest if sign > 0 else rest / share).log() + (1 - rest / share)
        covariance = (share.diag() - share[:, None] * share) / own.sum()
        variance += float(slope @ covariance @ slope)
    return math.sqrt(variance)


# -- kernels on the simplex ---------------------------------------------------------------------


def kernel_error(inputs: Inputs, params: Inputs, kind: Any) -> Inputs:
    return {
        "value": ece_kde(
            inputs["p"], inputs["y"], params.get("bandwidth", 0.1), params.get("p", 1), kind
        )
    }


@adapter("ece_kde.canonical")
def kernel_canonical(inputs: Inputs, params: Inputs) -> Inputs:
    return kernel_error(inputs, params, "canonical")


@adapter("ece_kde.marginal")
def kernel_marginal(inputs: Inputs, params: Inputs) -> Inputs:
    return kernel_error(inputs, params, "marginal")


@adapter("ece_kde.top_label")
def kernel_top_label(inputs: Inputs, params: Inputs) -> Inputs:
    return kernel_error(inputs, params, "top_label")


@adapter("ece_kde.binary")
def kernel_binary(inputs: Inputs, params: Inputs) -> Inputs:
    # The source doubles the error of the event, which is that of event and no event together.
    two = torch.stack([1 - inputs["p"], inputs["p"]], -1)
    return kernel_error({"p": two, "y": inputs["y"]}, params, "marginal")


@adapter("ece_kde.loo_bandwidth")
def kernel_bandwidth(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "grid", "logspace(-5,-1,15)+linspace(.2,1,5)")
    raise Deviates(
        "the source divides a density that integrates to 1 by the width once more",
        {"value": loo_bandwidth(inputs["p"])},
        {"value": reference.likeliest_width(inputs["p"])},
    )


# -- conformal ----------------------------------------------------------------------------------


@adapter("conformal.split_threshold")
def split_threshold(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "score", "1-p_true")
    words = str(params.get("cal", "first 200 rows")).split()
    if words[0] != "first" or words[2] != "rows":
        raise NotBuilt(f"cal {params['cal']!r}")
    n, alpha = int(words[1]), params.get("alpha", 0.1)
    p, y = inputs["p"], inputs["y"]
    scores = class_scores(p[:n], y[:n])
    threshold = conformal_threshold(scores, alpha)
    inside = prediction_sets(p[n:], threshold).gather(1, y[n:, None]).double().mean()
    rank = -int(-round((n + 1) * (1 - alpha), 9) // 1)
    ours = sorted(1 - float(p[i, y[i]]) / float(p[i].sum()) for i in range(n))[rank - 1]
    raise Deviates(
        "numpy's quantile of method higher is one rank above the ceil((n + 1) (1 - alpha))-th",
        {"qhat": threshold, "coverage": inside},
        {"qhat": ours},
    )


# -- distributions, quantiles and intervals of real numbers ---------------------------------------


def gaussian(inputs: Inputs, params: Inputs, name: str) -> Inputs:
    only(params, "defaults", None, True)
    metric = GaussianCalibration()
    metric.update(inputs["mu"], inputs["sd"], inputs["y"])
    return {"value": metric.compute()[name]}


@adapter("reg.miscalibration_area")
def miscalibration_area(inputs: Inputs, params: Inputs) -> Inputs:
    return gaussian(inputs, params, "miscalibration_area")


@adapter("reg.mean_absolute_calibration_error")
def mean_absolute_calibration_error(inputs: Inputs, params: Inputs) -> Inputs:
    return gaussian(inputs, params, "calibration_error")


@adapter("reg.sharpness")
def sharpness(inputs: Inputs, params: Inputs) -> Inputs:
    return gaussian(inputs, params, "sharpness")


@adapter("reg.crps_gaussian")
def crps(inputs: Inputs, params: Inputs) -> Inputs:
    return gaussian(inputs, params, "crps")


@adapter("reg.nll_gaussian")
def nll_of_gaussian(inputs: Inputs, params: Inputs) -> Inputs:
    return gaussian(inputs, params, "nll")


@adapter("reg.check_score")
def check_score(inputs: Inputs, params: Inputs) -> Inputs:
    return gaussian(inputs, params, "quantile_score")


def bounds(inputs: Inputs, alphas: list[float]) -> tuple[Tensor, Tensor]:
    """Central intervals of the Gaussians, ``(N, K)`` each."""
    far = torch.special.ndtri(1 - torch.tensor(alphas, dtype=torch.float64) / 2)
    mu, sd = inputs["mu"][:, None], inputs["sd"][:, None]
    return mu - far * sd, mu + far * sd


@adapter("reg.interval_score")
def score_of_interval(inputs: Inputs, params: Inputs) -> Inputs:
    alpha = params.get("alpha", 0.1)
    lower, upper = bounds(inputs, [alpha])
    metric = IntervalCoverage(alpha)
    metric.update(lower.squeeze(1), upper.squeeze(1), inputs["y"])
    return {"value": metric.compute()["interval_score"]}


@adapter("reg.weighted_interval_score")
def score_of_intervals(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "median", "mu")
    only(params, "weights", "w0=1/2,wk=alpha/2, divided by K+1/2")
    alphas = list(params.get("alphas", [0.02, 0.1, 0.5]))
    lower, upper = bounds(inputs, alphas)
    score = weighted_interval_score(inputs["mu"], lower, upper, inputs["y"], alphas)
    return {"value": score.mean()}


@adapter("reg.quantile_score")
def score_of_quantile(inputs: Inputs, params: Inputs) -> Inputs:
    level = params.get("tau", 0.5)
    return {"value": quantile_score(inputs["mu"], inputs["y"], level).mean()}


@adapter("spc.self_consistency")
def self_consistency(inputs: Inputs, params: Inputs) -> Inputs:
    p = inputs["logits"].softmax(1)
    return {"value": split_point_class_discrepancy(p, inputs["mar"])}


# -- calibrators --------------------------------------------------------------------------------


@adapter("calibrator.temperature_scaling")
def temperature_scaling(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "objective", "NLL optimum, z/T")
    logits, target = inputs["logits"], inputs["y"]
    fitted = TemperatureScaling().fit(logits, target)
    return {
        "T": fitted.temperature,
        "nll": evaluate(CrossEntropy(), logits=fitted(logits).log(), target=target),
        "nll_T1": evaluate(CrossEntropy(), logits=logits, target=target),
    }


@adapter("calibrator.temperature_scaling.gpleiss_lbfgs")
def temperature_unconverged(inputs: Inputs, params: Inputs) -> Inputs:
    for name, known in {"lr": 0.01, "max_iter": 200, "init": 1.5}.items():
        only(params, name, known)
    found = TemperatureScaling().fit(inputs["logits"], inputs["y"]).temperature
    ours = reference.best_temperature(inputs["logits"], inputs["y"])
    raise Deviates(
        "the recipe stops before the optimum; ours is at it", {"value": found}, {"value": ours}
    )


@adapter("calibrator.isotonic")
def isotonic(inputs: Inputs, params: Inputs) -> Inputs:
    knots = pool_adjacent_violators(inputs["p"], inputs["y"] == 1)
    return {"value": interpolate(points(params.get("eval_at", "linspace(0,1,11)")), *knots)}


@adapter("calibrator.histogram_binning")
def histogram_binning(inputs: Inputs, params: Inputs) -> Inputs:
    bins = params.get("bins", 10)
    means = bin_means(inputs["p"][:, None], (inputs["y"] == 1)[:, None], bins)[0]
    return {"value": means[(points(params["eval_at"]) * bins).long().clamp(max=bins - 1)]}


def points(where: Any) -> Tensor:
    """Numbers, or the words ``linspace(low,high,n)`` for them."""
    if not isinstance(where, str):
        return torch.tensor(where, dtype=torch.float64)
    name, _, rest = where.partition("(")
    if name != "linspace" or rest.count(",") != 2:
        raise NotBuilt(f"points {where!r}")
    low, high, n = rest.rstrip(")").split(",")
    return torch.linspace(float(low), float(high), int(n), dtype=torch.float64)
