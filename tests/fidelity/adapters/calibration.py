# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration metrics, nearly all from one `StreamingCalibration`; calibrators; drift."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.table import Deviates, NotBuilt, Within, adapter
from lightning_losses.calibrators import TemperatureScaling
from lightning_losses.calibrators.correctness_aware import correctness_loss
from lightning_losses.calibrators.histogram import bin_means
from lightning_losses.calibrators.isotonic import interpolate, pool_adjacent_violators
from lightning_losses.metrics import StreamingCalibration, top_label
from lightning_losses.metrics.calibration.bins import brier_decomposition, debiased, rmsce
from lightning_losses.metrics.calibration.classwise import ClasswiseCalibration
from lightning_losses.metrics.calibration.fine_bins import FineBins, arcsine_edges
from lightning_losses.metrics.calibration.fine_bins import equal_mass as groups_of
from lightning_losses.metrics.calibration.psi import psi
from lightning_losses.metrics.calibration.smooth import smece, smece_auto

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


@adapter("reliability_curve.quantile")
def quantile_curve(inputs: Inputs, params: Inputs) -> Inputs:
    groups = groups_of(fine_bins(measure(inputs)), params["n_bins"])
    found = {"acc": groups.correct / groups.rows, "conf": groups.confidence / groups.rows}
    if len(inputs["y"]) % params["n_bins"] or len(inputs["p"].unique()) < len(inputs["y"]):
        raise Deviates(
            "ties, or rows that cannot be split evenly: scikit-learn splits elsewhere", found
        )
    return found


@adapter(
    "ace_mean_over_nonempty_bins.netcal.binary", "ace_mean_over_nonempty_bins.netcal.top_label"
)
def mean_over_bins(inputs: Inputs, params: Inputs) -> Inputs:
    curve = measure(inputs, params["n_bins"]).reliability()
    found = {"value": (curve["confidence"] - curve["accuracy"]).abs().nanmean()}
    if on_an_edge(inputs, params["n_bins"]):
        raise Deviates(
            "rows lie on a bin edge or at 1; our bins are [lo, hi), the last closed", found
        )
    return found


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


def moved(metric: StreamingCalibration, groups: int) -> tuple[Tensor, Tensor]:
    """d_g of `metrics/fine.py`: what each group may be off by in excess; and the group sizes."""
    n, _, a = fine_bins(metric)
    total, last = int(n.sum()), n.cumsum(0)
    sizes = torch.tensor([total // groups + (g < total % groups) for g in range(groups)])
    boundaries = sizes.cumsum(0)[:-1]
    inside = (boundaries > (last - n)[:, None]) & (boundaries < last[:, None])
    width = arcsine_edges(FINE_BINS).diff()
    split = n * width + a * (n - a) / n.clamp(min=1)
    at = (inside * split[:, None]).sum(0)
    nothing = at.new_zeros(1)
    return torch.cat([nothing, at]) + torch.cat([at, nothing]), sizes


def equal_mass_bound(metric: StreamingCalibration, groups: int, norm: str = "l1") -> float:
    """How far an equal-mass error may be from that of sorted rows."""
    d, sizes = moved(metric, groups)
    n, total = sizes.clamp(min=1), sizes.sum()
    if norm == "l1":
        return float(d.sum() / total)
    if norm == "l2":
        return float((d.square() / n).sum() / total) ** 0.5
    return float((d / n).max())


@adapter("ece.equal_mass.top_label", "ece.equal_mass_midpoints")
def equal_mass(inputs: Inputs, params: Inputs, likelier: bool = False) -> Inputs:
    norm = params.get("norm", "l1")
    name = {"l1": "ece_equal_mass", "l2": "rmsce_equal_mass", "max": "mce_equal_mass"}[norm]
    groups = params["n_bins"]
    metric = measure(inputs, groups, likelier=likelier)
    bound = equal_mass_bound(metric, groups, norm)
    found = {"value": Within(metric.compute()[name], above=bound, below=bound)}
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


def l2(metric: StreamingCalibration, groups: int, unbiased: bool) -> tuple[Tensor, float]:
    """Equal-mass l2 error, and how far it may be off."""
    sums = groups_of(fine_bins(metric), groups)
    d, n = moved(metric, groups)
    if not unbiased:
        return rmsce(sums), equal_mass_bound(metric, groups, "l2")
    gap = ((sums.confidence - sums.correct) / n).abs()
    square = (d * (2 * gap + d / n) + d / (n - 1)).sum() / n.sum()
    return debiased(sums), float(square) ** 0.5


def l2_of(inputs: Inputs, params: Inputs, unbiased: bool) -> Inputs:
    value, bound = l2(measure(inputs), params["n_bins"], unbiased)
    return {"value": Within(value, above=bound, below=bound)}


@adapter("ce.l2.plugin_equal_mass", "ce.l2.plugin.top-label")
def l2_plugin(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_of(inputs, params, unbiased=False)


@adapter("ce.l2.debiased_equal_mass", "ce.l2.debiased.top-label")
def l2_debiased(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_of(inputs, params, unbiased=True)


def l2_marginal(inputs: Inputs, params: Inputs, unbiased: bool) -> Inputs:
    """The root of the mean over classes of the squared error of each class as a binary event."""
    parts = [
        l2(measure({"p": p, "y": (inputs["y"] == k).long()}), params["n_bins"], unbiased)
        for k, p in enumerate(inputs["p"].T)
    ]
    bound = sum(bound**2 for _, bound in parts) ** 0.5
    value = torch.stack([part for part, _ in parts]).square().mean().sqrt()
    return {"value": Within(value, above=bound, below=bound)}


@adapter("ce.l2.plugin.marginal")
def l2_marginal_plugin(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_marginal(inputs, params, unbiased=False)


@adapter("ce.l2.debiased.marginal")
def l2_marginal_debiased(inputs: Inputs, params: Inputs) -> Inputs:
    return l2_marginal(inputs, params, unbiased=True)


@adapter("smece.top_label", "smece.binary")
def smece_automatic(inputs: Inputs, params: Inputs) -> Inputs:
    if params["kernel"] == "logit":
        raise Deviates("ours is the reflected kernel, as relplot's default; not the logit kernel")
    ends = torch.minimum(confidences(inputs), 1 - confidences(inputs))
    # As for the fixed width: half rows at the ends, and 200 points; then one step of the width.
    bound = float((1 - 1000 * ends).clamp(min=0).mean()) / 2 + 1 / 200
    value, width = smece_auto(fine_bins(measure(inputs)))
    step = 1 / 1024
    return {
        "smece": Within(value, above=bound + step, below=bound + step),
        "bandwidth": Within(width, above=bound + step, below=bound + step),
    }


@adapter("aurc.mean_of_prefix_risks")
def aurc(inputs: Inputs, params: Inputs) -> Inputs:
    metric = measure(inputs)
    n, _, a = fine_bins(metric)
    above = n.sum() - n.cumsum(0)
    harmonic = torch.digamma((above + n + 1).double()) - torch.digamma((above + 1).double())
    bound = float((a * (n - a) / n.clamp(min=1) * harmonic).sum() / n.sum())
    # The file gives six digits.
    return {"value": Within(metric.compute()["aurc"], above=bound, below=bound)}


@adapter("aurc.trapezoid_rescaled")
def aurc_trapezoid(inputs: Inputs, params: Inputs) -> Inputs:
    raise Deviates(
        "ours is the mean of prefix risks; theirs trapezoids over 1 - 1/N", aurc(inputs, {})
    )


@adapter("aurc.fd_shifts")
def aurc_fd_shifts(inputs: Inputs, params: Inputs) -> Inputs:
    raise Deviates("ours is the mean of prefix risks; fd-shifts has trapezoids, times 1000")


@adapter("augrc")
def augrc(inputs: Inputs, params: Inputs) -> Inputs:
    metric = measure(inputs)
    n, _, a = fine_bins(metric)
    total = float(n.sum())
    bound = float((a * (n - a)).sum()) / (2 * total**2)
    # The source divides by the range of coverages it saw, 1 - 1/N; the paper's area does not.
    value = metric.compute()["augrc"] / (1 - 1 / total)
    return {"value": Within(value, above=bound, below=bound)}


@adapter("ece.classwise")
def classwise(inputs: Inputs, params: Inputs) -> Inputs:
    p = inputs["p"]
    metric = ClasswiseCalibration(p.shape[1], bins=params["n_bins"])
    metric.update(p, inputs["y"])
    found = metric.compute()
    each = found["ece_per_class"]
    reductions = {"none": each, "sum": each.sum(), "mean": found["ece_classwise"]}
    return {"value": reductions[params["reduction"]]}


@adapter("drift.psi")
def drift(inputs: Inputs, params: Inputs) -> Inputs:
    n, m = inputs["expected_counts"], inputs["actual_counts"]
    found = psi(n, m)
    # Of the rest: se of a cell is closed form, fastwoe's misses covariances (and is a third too
    # small), and the bootstrap is of 20,000 draws.
    return {
        "psi": found.psi,
        "woe": found.woe,
        "woe_se": (1 / n + 1 / m).sqrt(),
        "se_full_multinomial_delta": Within(found.standard_error, above=1e-6, below=1e-6),
        "se_fastwoe_formula": Within(found.standard_error, above=1e-2, below=0),
        "bootstrap_se_20000": Within(found.standard_error, above=0, below=2e-4),
        "bootstrap_mean": Within(found.psi + found.bias, above=5e-4, below=5e-4),
    }


# -- calibrators --------------------------------------------------------------------------------


@adapter("calibrator.temperature_scaling")
def temperature_scaling(inputs: Inputs, params: Inputs) -> Inputs:
    logits, target = inputs["logits"], inputs["y"]
    fitted = TemperatureScaling().fit(logits, target)

    def nll(log_p: Tensor) -> Tensor:
        return torch.nn.functional.nll_loss(log_p, target)

    return {
        "T": fitted.temperature,
        "nll": nll(fitted(logits).log()),
        "nll_T1": nll(logits.log_softmax(1)),
    }


@adapter("calibrator.temperature_scaling.gpleiss_lbfgs")
def temperature_unconverged(inputs: Inputs, params: Inputs) -> Inputs:
    found = TemperatureScaling().fit(inputs["logits"], inputs["y"]).temperature
    raise Deviates("the recipe stops before the optimum; ours is at it", {"value": found})


@adapter("calibrator.isotonic")
def isotonic(inputs: Inputs, params: Inputs) -> Inputs:
    knots = pool_adjacent_violators(inputs["p"], inputs["y"] == 1)
    return {"value": interpolate(torch.arange(11, dtype=torch.float64) / 10, *knots)}


@adapter("calibrator.histogram_binning")
def histogram_binning(inputs: Inputs, params: Inputs) -> Inputs:
    means = bin_means(inputs["p"][:, None], (inputs["y"] == 1)[:, None], params["bins"])[0]
    return {"value": torch.stack([means[int(at * params["bins"])] for at in params["eval_at"]])}


def mean_squared_gap(inputs: Inputs, balanced: bool) -> Inputs:
    logits = inputs["logits"]
    correct = logits.argmax(1) == inputs["y"]
    return {"value": correctness_loss(logits.softmax(1).amax(1), correct, balanced)}


@adapter("loss.correctness_aware.balanced_mse")
def correctness_balanced(inputs: Inputs, params: Inputs) -> Inputs:
    return mean_squared_gap(inputs, balanced=True)


@adapter("loss.correctness_aware.plain_mse")
def correctness_plain(inputs: Inputs, params: Inputs) -> Inputs:
    return mean_squared_gap(inputs, balanced=False)


@adapter("loss.correctness_aware.official_calibrator")
def correctness_official(inputs: Inputs, params: Inputs) -> Inputs:
    raise Deviates("its network reads probabilities of transformed images; ours the row's own")
