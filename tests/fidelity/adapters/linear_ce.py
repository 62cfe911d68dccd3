# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Linear cross-entropy: hidden states and a head in, on every kernel."""

from __future__ import annotations

from typing import Any

from adapters.table import adapter, only
from lightning_losses import Objective, Term
from lightning_losses.losses import CrossEntropy, LogsumexpPenalty
from lightning_losses.softmax import softmax_stats

#: Each case runs on each of these. Add "triton" when it takes float64 on this machine.
KERNELS = ("reference", "chunked")


@adapter("linear_ce", variants=KERNELS)
def linear_ce(inputs: dict[str, Any], options: dict[str, Any], kernel: str) -> dict[str, Any]:
    target, shift = inputs["target"], options["shift"]
    smoothing, class_weight = options["label_smoothing"], inputs["class_weight"]
    items = options["num_items"]
    only(options, "reduction", "mean", "sum", "none")
    source = {
        "hidden": inputs["e"],
        "head_weight": inputs["c"],
        "head_bias": inputs["bias"],
        "softcap": options["softcap"],
        "logit_scale": options["logit_scale"],
    }
    # The rows of the golden file are those of all positions, ignored or not; ours of an ignored
    # row hold 0. So they are asked for without target.
    rows = softmax_stats(**source, shift=shift, kernel=kernel)
    aligned = softmax_stats(
        **source,
        target=target,
        ignore_index=options["ignore_index"],
        shift=shift,
        kernel=kernel,
        want=["log_prob"],
    )
    valid = aligned.valid

    terms = {"ce": Term(CrossEntropy(label_smoothing=smoothing, class_weight=class_weight))}
    if options["z_loss"]:
        terms["z"] = Term(LogsumexpPenalty(), weight=options["z_loss"])
    objective = Objective(
        terms,
        kernel=kernel,
        reduction=options["reduction"],
        ignore_index=options["ignore_index"],
    )
    record = objective(
        **source,
        target=target,
        shift=shift,
        sample_weight=inputs["token_weight"],
        normalizer=items if options["reduction"] == "mean" else None,
    )
    loss = record.total
    if options["reduction"] == "none":
        loss = loss.reshape(target.shape)
        loss = loss[..., :-shift] if shift else loss
    backward = (loss * inputs["grad_loss"]).sum()
    if inputs["grad_lse"] is not None:
        backward = backward + (valid * rows.logsumexp * inputs["grad_lse"]).sum()
    labels = target[..., shift:]
    return {
        "loss": loss,
        "lse": rows.logsumexp,
        "entropy": rows.entropy,
        "argmax": rows.prediction,
        "correct": (rows.prediction == labels) & valid,
        "target_logprob": aligned.log_prob,
        "n_valid": record.num_valid,
        "backward": backward,
    }
