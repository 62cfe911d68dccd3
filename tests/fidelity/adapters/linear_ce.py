# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Linear cross-entropy: hidden states and a head in, on every kernel."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.table import Unbuilt, adapter, only
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
    labels = target[..., shift:]
    statistics = {
        "lse": rows.logsumexp,
        "entropy": rows.entropy,
        "argmax": rows.prediction,
        "correct": (rows.prediction == labels) & valid,
        "target_logprob": aligned.log_prob,
    }
    weighted, upstream = inputs["token_weight"], (inputs["grad_loss"], inputs["grad_lse"])
    terms = {"ce": Term(CrossEntropy(label_smoothing=smoothing, class_weight=class_weight))}
    if options["z_loss"]:
        terms["z"] = Term(LogsumexpPenalty(), weight=options["z_loss"])
    objective = Objective(
        terms,
        kernel=kernel,
        reduction=options["reduction"],
        ignore_index=options["ignore_index"],
    )
    if len(inputs["c"]) == 1:
        with pytest.raises(ValueError, match="one column"):
            objective(**source, target=target)
        refused = Unbuilt(
            "cross-entropy over one class is refused: its softmax is 1 whatever it is"
        )
        return statistics | dict.fromkeys(("loss", "n_valid", "backward"), refused)
    record = objective(
        **source,
        target=target,
        shift=shift,
        sample_weight=weighted,
        normalizer=items if options["reduction"] == "mean" else None,
    )
    loss = record.total
    if options["reduction"] == "none":
        loss = loss.reshape(target.shape)
        loss = loss[..., :-shift] if shift else loss
    backward = (loss * upstream[0]).sum()
    if upstream[1] is not None:
        backward = backward + (valid * rows.logsumexp * upstream[1]).sum()
    return statistics | {"loss": loss, "n_valid": record.num_valid, "backward": backward}
