# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which loss makes features in which unseen classes are found again?

python examples/reproduce/retrieval.py

Seven digits, drawn by the seed, train an embedding of 16 numbers; all images of the other three are
then looked up among each other: is the nearest of the same digit (Recall@1), and how many of the R
nearest are, R being the images of that digit (MAP@R, 2003.08505)? pytorch-metric-learning's
`AccuracyCalculator` judges, by cosines, and once more by Euclidean distances. `ce` and
`normalized_softmax` train a head that is thrown away. Every loss has the values of its YAML, and
batches are drawn from all images without a thought for pairs. What there is without training: the
pixels themselves, and the net as it starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from study import Claim, Options, Scores, digits, fit, loss_config, mlp, options, write
from torch import Tensor, nn

from lightning_losses import build_objective
from lightning_losses.heads import NormalizedHead

WIDTH, SEEN = 16, 7
HEADS = {
    "ce": lambda: nn.Linear(WIDTH, SEEN),
    "normalized_softmax": lambda: NormalizedHead(WIDTH, SEEN),
}
PIXELS, START = "pixels", "the net as it starts"
PAPERS = {
    "normalized_softmax": "1704.06369",
    "multi_similarity": "1904.06627",
    "supcon": "2004.11362",
    "proto_triplet": "SuSana Distancia",
}
METHODS = (PIXELS, START, "ce", *PAPERS)
RECALL, MAP, EUCLIDEAN = "Recall@1", "MAP@R", "MAP@R, Euclidean"


class Embedding(nn.Module):
    """A net, and the head that some losses need while they train."""

    def __init__(self, method: str, seed: int) -> None:
        super().__init__()
        self.net = mlp(64, 128, 64, WIDTH, seed=seed)
        self.head = HEADS[method]() if method in HEADS else None

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x)
        return features


def named(embedding: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Logits where there is a head, else features."""
    assert isinstance(embedding, Embedding)
    features = embedding(x)
    if embedding.head is None:
        return {"features": features, "target": y}
    return {"logits": embedding.head(features), "target": y}


def objective(method: str) -> Any:
    """Of a key, or of the head's name, which goes with ce."""
    if method == "proto_triplet":
        return build_objective(loss_config(method, in_features=WIDTH, num_classes=SEEN))
    return build_objective("ce" if method in HEADS else method)


@torch.no_grad()
def judge(features: Tensor, y: Tensor) -> dict[str, float]:
    """Every row looked up among all others."""
    found = {}
    distances: dict[str, Any] = {
        MAP: CosineSimilarity(),
        EUCLIDEAN: LpDistance(normalize_embeddings=False),
    }
    for column, distance in distances.items():
        calculator = AccuracyCalculator(
            include=("precision_at_1", "mean_average_precision_at_r"),
            device=torch.device("cpu"),
            knn_func=CustomKNN(distance),
            kmeans_func=lambda *_: None,  # nobody asks for clusters
        )
        values = calculator.get_accuracy(features, y)
        found[column] = values["mean_average_precision_at_r"]
        found.setdefault(RECALL, values["precision_at_1"])
    return found


def run(method: str, seed: int, ran: Options) -> dict[str, float]:
    data = digits()
    x, y = torch.cat([data.x, data.x_test]), torch.cat([data.y, data.y_test])
    rank = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[y]
    seen = rank < SEEN
    if method == PIXELS:
        return judge(x[~seen], y[~seen])
    embedding = Embedding(method, seed)
    if method != START:
        fit(
            embedding, objective(method), x[seen], rank[seen],
            epochs=ran.epochs, seed=seed, lr=ran.lr, named=named,
        )  # fmt: skip
    with torch.no_grad():
        return judge(embedding(x[~seen]), y[~seen])


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("retrieval", seeds=5, epochs=20, argv=argv)
    scores: Scores = {m: {c: [] for c in (RECALL, MAP, EUCLIDEAN)} for m in METHODS}
    for method in METHODS:
        for seed in range(ran.seeds):
            for column, value in run(method, seed, ran).items():
                scores[method][column].append(value)
    claimed = [
        Claim(f"{m} finds unseen digits better than pixels do", m, PIXELS, MAP) for m in METHODS[2:]
    ]
    claimed += [
        Claim(f"{m} ({PAPERS[m]}) finds them better than ce", m, "ce", column)
        for column in (MAP, RECALL)
        for m in PAPERS
    ]
    claimed += [
        Claim(f"{m} finds them better than normalized_softmax", m, "normalized_softmax", MAP)
        for m in list(PAPERS)[1:]
    ]
    title = {
        "text": "Looking up digits of classes that were never trained on",
        "subtitle": f"each of {ran.seeds} seeds, and sets of classes, a dot, the mean a bar",
    }
    chart = dots(scores, (RECALL, MAP, EUCLIDEAN), title, width=200)
    write("retrieval", scores, claimed, chart, ran)


if __name__ == "__main__":
    main()
