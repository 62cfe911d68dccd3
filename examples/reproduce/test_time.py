# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does entropy minimisation at test time mend a network on corrupted digits? With a filter?

python examples/reproduce/test_time.py

Tent (arXiv 2006.10726): batch norm takes the statistics of the test batch, and its affine
parameters minimise the entropy of the predictions, with one step a batch, while the stream passes
once; each batch is scored by the logits that its own step was made from. OSTTA (2308.06879) leaves
out rows of classes that nobody trained on: those whose source class lost probability by adaptation.
EATA (2204.02610) leaves out rows of high entropy. A CNN is trained on the clean digits 0 to 7. The
test images come changed by a gain and an offset of the pixels and with Gaussian noise, as a stream
of four rounds with new noise in an order of the seed: of the known digits alone (closed), and with
as many rows of other images among them, 8, 9 and the known digits upside down and inverted (open).
Accuracy is that of the known digits. The rivals have the clean batch norm (source), or that of each
test batch without any step (batch statistics). Steps at test time are ten times those of training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from study import Claim, Digits, Scores, digits, fit, loss_config, options, write
from torch import Tensor, nn

from lightning_losses import build_objective

KNOWN, BATCH, ROUNDS = 8, 64, 4
NOISE, GAIN, OFFSET, FASTER = 0.1, 0.5, 0.4, 10
METHODS = ("source", "batch statistics", "tent", "tent + ostta_selection", "tent + eata_weight")
WEIGHTINGS: dict[str, dict[str, Any]] = {
    "ostta_selection": {"_target_": "lightning_losses.weighting.AgreesWithSource"},
    "eata_weight": {
        "_target_": "lightning_losses.weighting.ReliableRows",
        "margin": 0.4 * math.log(KNOWN),
    },
}
CLOSED, OPEN, GAP = "accuracy, closed", "accuracy, open", "AUROC known or not, open"
TENT, OSTTA, EATA = "2006.10726", "2308.06879", "2204.02610"


def config(method: str) -> DictConfig:
    """Entropy minimisation, over the rows that the method keeps."""
    node = loss_config("entropy_min")
    _, _, weighting = method.partition(" + ")
    if weighting:
        with open_dict(node):
            node.entropy_min.row_weighting = WEIGHTINGS[weighting]
    return node


def network(seed: int) -> nn.Sequential:
    """A CNN with batch norm, from rows of 64 pixels to the known digits."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, KNOWN),
    )


def corrupted(x: Tensor, draw: torch.Generator) -> Tensor:
    """Another gain and offset of the pixels, and noise."""
    return GAIN * x + OFFSET + NOISE * torch.randn(x.shape, generator=draw)


def stream(data: Digits, seed: int, opened: bool) -> tuple[Tensor, Tensor]:
    """Test images (N, 64) and labels (N,), -1 where the class is not known."""
    draw = torch.Generator().manual_seed(seed)
    known = data.y_test < KNOWN
    x, y = data.x_test[known], data.y_test[known]
    if opened:
        other = torch.cat([data.x_test[~known], 1 - x.flip(1)])
        other = other[torch.randperm(len(other), generator=draw)[: len(x)]]
        x, y = torch.cat([x, other]), torch.cat([y, torch.full((len(other),), -1)])
    images, labels = [], []
    for _ in range(ROUNDS):
        order = torch.randperm(len(x), generator=draw)
        images.append(corrupted(x[order], draw))
        labels.append(y[order])
    return torch.cat(images), torch.cat(labels)


def adapted(source: nn.Module, method: str, x: Tensor, lr: float) -> Tensor:
    """Logits (N, KNOWN) of the stream, batch by batch as it passes."""
    net = copy.deepcopy(source)
    if method == "source":
        with torch.no_grad():
            return net(x)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:  # statistics of the batch at hand, which are not kept
        layer.train()
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = None
    before = copy.deepcopy(net)
    adam = torch.optim.Adam([p for layer in norms for p in layer.parameters()], lr=lr)
    objective = None if method == "batch statistics" else build_objective(config(method))
    found = []
    for step, images in enumerate(x.split(BATCH)):
        logits = net(images)
        found.append(logits.detach())
        if objective is not None:
            with torch.no_grad():
                teacher = before(images)
            objective.set_step(step)
            adam.zero_grad()
            objective(logits=logits, teacher_logits=teacher).total.backward()
            adam.step()
    return torch.cat(found)


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Of the rows of known classes."""
    known = y >= 0
    return float((logits.argmax(1) == y)[known].float().mean())


def told_apart(logits: Tensor, y: Tensor) -> float:
    """AUROC of the largest probability for known against other rows; 0.5 is chance."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score((y >= 0).numpy(), logits.softmax(1).amax(1).numpy()))


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("test_time", seeds=6, epochs=20, argv=argv)
    data = digits()
    known = data.y < KNOWN
    scores: Scores = {method: {c: [] for c in (CLOSED, OPEN, GAP)} for method in METHODS}
    for seed in range(ran.seeds):
        source = network(seed)
        objective = build_objective("ce")
        x, y = data.x[known], data.y[known]
        fit(source, objective, x, y, epochs=ran.epochs, seed=seed, lr=ran.lr)
        streams = [stream(data, seed, opened) for opened in (False, True)]
        for method, found in scores.items():
            closed, opened = (adapted(source, method, x, FASTER * ran.lr) for x, _ in streams)
            found[CLOSED].append(accuracy(closed, streams[0][1]))
            found[OPEN].append(accuracy(opened, streams[1][1]))
            found[GAP].append(told_apart(opened, streams[1][1]))
    filters = {"tent + ostta_selection": OSTTA, "tent + eata_weight": EATA}
    claimed = [
        Claim(f"tent is better than the source ({TENT})", "tent", "source", CLOSED),
        Claim(f"tent is better than batch statistics ({TENT})", "tent", METHODS[1], CLOSED),
        Claim(f"other classes cost tent accuracy ({OSTTA})", "tent", "tent", OPEN, -1,
              baseline_column=CLOSED),
        Claim(f"they cost more than of batch statistics ({OSTTA})", "tent", METHODS[1], OPEN, -1),
        *(
            Claim(f"open: {name} ({paper}) is better than tent", name, "tent", column)
            for name, paper in filters.items()
            for column in (OPEN, GAP)
        ),
        *(
            Claim(f"closed: {name} ({paper}) is better than tent", name, "tent", CLOSED)
            for name, paper in filters.items()
        ),
    ]  # fmt: skip
    title = {
        "text": "Digits of another gain, offset and noise, adapted to as they pass",
        "subtitle": f"each of {ran.seeds} seeds a dot, the mean a bar; higher is better",
    }
    chart = dots(scores, (CLOSED, OPEN, GAP), title, width=220)
    setting = "Adam at {lr:g}, batches of 128 of clean digits, then ten times that, batches of 64"
    write("test_time", scores, claimed, chart, ran, setting)


if __name__ == "__main__":
    main()
