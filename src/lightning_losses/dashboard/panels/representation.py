# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Panels about attention and about the features inside."""

from __future__ import annotations

from lightning_losses.dashboard.panels.panel import Panel

REPRESENTATION = (
    Panel(
        "attention_map",
        "Attention and Representation",
        "Attention entropy, head by head",
        (),
        "How widely each head spreads its attention: 1 evenly over all it may see, 0 on one token.",
        "a mix; a column or row of heads going dark together is attention collapse",
        "AttentionEntropyMonitor",
        unit="fraction of the largest",
        kind="heat_map",
        table="attention_entropy",
    ),
    Panel(
        "attention_entropy",
        "Attention and Representation",
        "Attention entropy over all heads",
        ("attention_entropy/mean", "attention_entropy/min", "attention_entropy/lower_bound"),
        "The mean head, the most focused head, and the lowest value that the size of the weights "
        "allows.",
        "mean well above lower_bound; min falling to 0 is a head that has collapsed",
        "AttentionEntropyMonitor",
        unit="nats",
        join="min",
    ),
    Panel(
        "attention_logit",
        "Attention and Representation",
        "Largest attention logit",
        ("attention_entropy/max_logit",),
        "The largest scaled dot product of a query and a key.",
        "levels off; growth without end comes before divergence",
        "AttentionEntropyMonitor",
        scale="auto",
        join="max",
    ),
    Panel(
        "neural_collapse",
        "Attention and Representation",
        "Neural collapse",
        ("neural_collapse/nc*",),
        "How far features and class weights are from one point a class (nc1), spread evenly "
        "(nc2), aligned with the weights (nc3), classified by the nearest centre (nc4).",
        "towards 0 late in classification; collapsed features transfer less well",
        "NeuralCollapseMonitor",
        scale="auto",
    ),
    Panel(
        "representation_entropy",
        "Attention and Representation",
        "Entropy of the representation",
        ("representation_entropy/dse", "representation_entropy/dsmi"),
        "Diffusion spectral entropy of the features, and what they share with the labels.",
        "dsmi rises as classes separate; dse near 0 means that most rows are alike",
        "RepresentationEntropyMonitor",
        unit="bits",
    ),
    Panel(
        "information_plane",
        "Attention and Representation",
        "Information plane",
        (),
        "What each layer keeps of the input (x) against what it says about the label (y), a point "
        "an epoch.",
        "points move up; to the left means that the input is being compressed",
        "InformationPlaneMonitor",
        unit="bits",
        kind="plane",
        table="information_plane",
    ),
    Panel(
        "information",
        "Attention and Representation",
        "Information of each layer",
        ("information_plane/*/itx", "information_plane/*/ity"),
        "The same as curves: itx about the input, ity about the label.",
        "ity rises",
        "InformationPlaneMonitor",
        unit="bits",
        detail=True,
    ),
    Panel(
        "attention_onset",
        "Attention and Representation",
        "First step of attention collapse",
        ("attention_entropy/onset_step",),
        "The step at which a head's entropy first fell below its threshold.",
        "nothing, or negative: it was not seen",
        "AttentionEntropyMonitor",
        unit="step",
        detail=True,
    ),
)
