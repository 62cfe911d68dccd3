# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which rows make a batch, where a loss compares them with each other; and rows that are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from lightning_losses.distributed import all_sum, rank_of_all

__all__ = ["DistinctLabelSampler", "PseudoNegatives"]


class DistinctLabelSampler(DistributedSampler[Any]):
    """Batches in which no two rows have one label, on all ranks together.

    Chakraborty, Gosthipaty and Paul, "G-SimCLR: Self-Supervised Contrastive Learning with Guided
    Projection via Pseudo Labelling", arXiv 2009.12007: a contrastive loss without labels pushes all
    rows of a batch apart, those of one kind too. Labels of a clustering (the authors: k-means of a
    denoising autoencoder's codes) say which rows may be of one kind, and such a batch has none. The
    loss is `nt_xent` as it is.

    Give the DataLoader the same batch size::

        sampler = DistinctLabelSampler(labels, batch_size=64)
        DataLoader(data, batch_size=64, sampler=sampler)

    It is a DistributedSampler: Lightning leaves it in place and calls ``set_epoch``, which draws
    anew. All ranks draw the same; each takes its share of a batch of ``batch_size`` times the
    number of ranks rows, whose labels are all distinct, for `nt_xent` compares the rows of all
    ranks. An epoch has as many whole batches as the labels allow, so rows of large clusters may
    wait for another epoch, and other rows at random.

    Args:
        labels: ``(N,)`` integers, one a row of the data set; a negative one is no label, and a row
            without one may be beside any other.
        batch_size: of each rank.
        seed: of the draws, with the epoch.
        num_replicas: number of ranks; None: all of the process group, found when it is needed.
        rank: of this process, if ``num_replicas`` is given.

    Raises:
        ValueError: fewer labels than a batch has rows; labels that are no integers ``(N,)``; a
            batch without rows; a rank that is none.

    Examples:
        >>> sampler = DistinctLabelSampler([0, 0, 0, 1, 1, 2], batch_size=2)
        >>> batches = torch.tensor(list(sampler)).reshape(-1, 2)
        >>> len(sampler), sampler.labels[batches].diff().bool().all()
        (6, tensor(True))
    """

    def __init__(
        self,
        labels: Tensor | Sequence[int],
        batch_size: int,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        # Not DistributedSampler's, which asks for a process group: it may begin only with `fit`.
        # An empty list is float32 to torch, and says nothing wrong.
        try:
            self.labels = torch.as_tensor(labels, dtype=None if len(labels) else torch.int64).cpu()
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"labels must be integers, one a row of the data set ({error}): number them, as in "
                "torch.unique or pandas.factorize."
            ) from error
        if self.labels.ndim != 1 or self.labels.is_floating_point():
            raise ValueError(
                f"labels must be (N,) integers, one a row of the data set, got {self.labels.dtype} "
                f"{tuple(self.labels.shape)}."
            )
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}.")
        if (num_replicas is None) != (rank is None):
            raise ValueError("num_replicas and rank go together: pass both, or neither.")
        if num_replicas is not None and rank is not None and not 0 <= rank < num_replicas:
            raise ValueError(f"rank must be from 0 to {num_replicas - 1}, got {rank}.")
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.shuffle, self.drop_last = True, True  # what others ask a DistributedSampler
        self._place = None if num_replicas is None or rank is None else (rank, num_replicas)
        # Every row without a label gets one of its own.
        alone = self.labels < 0
        own = alone.cumsum(0) + (self.labels.max().clamp(min=-1) if len(self.labels) else 0)
        code = torch.where(alone, own, self.labels)
        found = torch.unique(code, return_inverse=True, return_counts=True)
        self._code, self._count = found[1], found[2]
        self._batches()

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Of this process."""
        return (self._place or rank_of_all())[0]

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Number of ranks."""
        return (self._place or rank_of_all())[1]

    def _batches(self) -> int:
        """How many whole batches of all ranks there are.

        T batches are possible if they have room: a label is in each of them at most once, so that
        T times their size must not be above ``sum min(count, T)``. That holds up to some T.
        """
        size = self.batch_size * self.num_replicas
        if len(self._count) < size:
            raise ValueError(
                f"a batch of {size} rows ({self.num_replicas} ranks of {self.batch_size}) needs as "
                f"many labels, and there are {len(self._count)}: use more clusters, or smaller "
                "batches."
            )
        low, high = 1, len(self.labels) // size
        while low < high:
            middle = (low + high + 1) // 2
            fits = int(self._count.clamp(max=middle).sum()) >= middle * size
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def __len__(self) -> int:
        """Rows of this rank in an epoch."""
        return self._batches() * self.batch_size

    def __iter__(self) -> Iterator[int]:
        """Rows of this rank, batch after batch."""
        g = torch.Generator().manual_seed(self.seed + self.epoch)
        batches, ranks = self._batches(), self.num_replicas
        size = self.batch_size * ranks
        # Rows in random order, then label by label, the labels in random order as well.
        row = torch.randperm(len(self.labels), generator=g)
        place = torch.randperm(len(self._count), generator=g)[self._code[row]]
        order = place.argsort(stable=True)
        row, place = row[order], place[order]
        first = torch.searchsorted(place, place)  # where the label begins
        row = row[torch.arange(len(row)) - first < batches]  # no label more often than batches
        # Dealt like cards: rows of one label lie in a row, so they go to different batches.
        dealt = row[: batches * size].reshape(size, batches).t()
        dealt = dealt[torch.randperm(batches, generator=g)]
        # Beside each other were neighbours in the order of labels; which rank has them is chance.
        seats = torch.rand(batches, size, generator=g).argsort(1)
        dealt = dealt.gather(1, seats).reshape(batches, ranks, self.batch_size)
        return iter(dealt[:, self.rank].flatten().tolist())


class PseudoNegatives(nn.Module):
    """Draws rows of a class that no data has, around those of the one class that there is.

    Narayan and Patel, "Hyp-OC: Hyperbolic One Class Classification for Face Anti-Spoofing", arXiv
    2404.14406: from a Gaussian around a moving mean of the features, as many as there are. A head
    learns to tell them apart while `pairwise_confusion` draws the real ones together::

        h = self.encoder(x)
        z = self.reduce(torch.cat([h, self.pseudo(h)]))
        y = torch.arange(len(z), device=z.device) // len(h)  # 0 real, 1 pseudo
        apart = self.compute_loss(logits=self.head(z), target=y, name="apart")
        one, two = z[: len(h)].chunk(2)  # pairs of real rows: an even batch
        together = self.compute_loss(features=one, other_features=two, objective=..., name="pairs")

    with ``head=hyperbolic_mlr`` and its ``clip_radius``, the feature clipping of the paper. (Its
    code takes the previous batch's mean for the moving one.)

    Args:
        dim: D of the features.
        momentum: how much of the moving mean is kept; 0 is the mean of the batch.
        variance: of each feature.

    Shapes: features ``(B, D)`` to as many rows without gradient. The mean is over the rows of all
    ranks, moves in training alone, begins at 0 and is in the ``state_dict``.

    Raises:
        ValueError: a momentum outside [0, 1), a variance that is not positive, features of another
            length.

    Examples:
        >>> pseudo = PseudoNegatives(dim=2, momentum=0.0, variance=1e-12)
        >>> pseudo(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).round()
        tensor([[2., 3.],
                [2., 3.]])
    """

    mean: Tensor

    def __init__(self, dim: int, momentum: float = 0.8, variance: float = 1.0) -> None:
        super().__init__()
        if not 0 <= momentum < 1 or not variance > 0:
            raise ValueError(
                f"momentum must be in [0, 1) and variance positive, got {momentum} and {variance}."
            )
        self.momentum, self.variance = momentum, variance
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, features: Tensor) -> Tensor:
        """Rows ``(B, D)``, drawn anew by torch's generator."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(
                f"features must be (B, {len(self.mean)}) as dim says, got {tuple(features.shape)}."
            )
        x = features.detach().to(torch.promote_types(features.dtype, torch.float32))
        if self.training:
            count = all_sum(torch.full((), float(len(x)), dtype=x.dtype, device=x.device))
            batch = all_sum(x.sum(0)) / count.clamp(min=1)
            moved = self.mean.to(x) + (1 - self.momentum) * (batch - self.mean.to(x))
            # A batch that is not finite would stay in the mean for good.
            good = (count > 0) & moved.isfinite().all()
            self.mean.copy_(torch.where(good, moved, self.mean.to(x)))
        drawn: Tensor = self.mean.to(x) + self.variance**0.5 * torch.randn_like(x)
        return drawn.to(features.dtype)
