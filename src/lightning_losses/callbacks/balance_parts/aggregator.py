# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of one step that serve every term, from inner products of gradients, by torchjd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Whose weights sum to the number of terms where nothing conflicts; of the others to 1.
SUMS = ("PCGrad", "Sum", "GradVac")
#: Whose projections torchjd solves by a quadratic program.
PROJECTED = ("UPGrad", "DualProj")
#: With a memory, losses of their own or random weights: not a function of this step's gradients.
OTHERS = ("Constant", "ExcessMTL", "Krum", "MoDo", "NashMTL", "PCD", "Random", "SDMGrad")


class Aggregator:
    """Jacobian descent: weights w of the terms such that ``sum w_i gradient_i`` serves all.

    By name, from torchjd (MIT licence; ``pip install "lightning-losses[balance]"``): ``UPGrad``
    (Quinton and Rey, arXiv 2406.16232: no term rises to first order), ``PCGrad`` (Yu et al., arXiv
    2001.06782), ``CAGrad`` (with ``c``, arXiv 2110.14048; needs cvxpy), ``MGDA`` (the shortest
    convex combination), ``DualProj``, ``IMTLG``, ``AlignedMTL`` and whatever else torchjd computes
    from inner products (a class ``<name>Weighting``). Where nothing conflicts UPGrad and PCGrad
    give every term weight 1.

    torchjd's own defaults for UPGrad and DualProj add 1e-4 to the diagonal, and where the lengths
    of gradients differ more than thirtyfold push the smallest term uphill; here the projection is
    exact (``norm_eps: 0, reg_eps: 1e-13``). MGDA stops after 100 steps, 1e-3 off, unless told
    otherwise (``epsilon``, ``max_iters``). Weights may exceed the number of terms.

    Args:
        name: of the method.
        seed: of the random order of ``PCGrad`` and ``GradVac``, equal on all ranks; the global
            generator is not moved.
        **options: what torchjd's ``<name>Weighting`` takes.

    Raises:
        ImportError: torchjd, or what a method needs beside it, is not installed.
        ValueError: a method that is none of these.

    Examples:
        >>> balancer = TermBalancer(Aggregator("UPGrad"))
    """

    def __init__(self, name: str = "UPGrad", seed: int = 0, **options: Any) -> None:
        try:
            from torchjd import aggregation
        except ImportError as error:
            raise ImportError(
                f"{name} is computed by torchjd, which is not installed: pip install "
                '"lightning-losses[balance]"'
            ) from error
        kind = getattr(aggregation, f"{name}Weighting", None)
        if kind is None or name in OTHERS:
            known = [
                n.removesuffix("Weighting")
                for n in dir(aggregation)
                if n[:-9] and n[-9:] == "Weighting"
            ]
            raise ValueError(
                f"{name!r} gives no weights from this step's inner products; write one of "
                f"{', '.join(sorted(set(known) - set(OTHERS)))}."
            )
        if name in PROJECTED:
            from torchjd.linalg import QuadprogProjector

            exact = {"norm_eps": 0.0, "reg_eps": 1e-13}
            exact |= {key: options.pop(key) for key in exact if key in options}
            options["projector"] = QuadprogProjector(**exact)
        self.name, self.seed = name, seed
        self.weighting = kind(**options)

    def weights(self, gram: Tensor, step: int = 0) -> list[float]:
        """Weights of the terms as torchjd has them, from inner products ``(T, T)``.

        Terms without gradient keep weight 1 and take no part. ``step`` moves the random order.
        """
        gram = gram.detach().double().cpu()
        here = (gram.diagonal() > 0).nonzero()[:, 0]
        found = torch.ones(len(gram), dtype=torch.float64)
        if len(here) > 1:
            part = gram[here][:, here]
            # All methods are homogeneous in the gradients; numbers of size 1 suit their solvers.
            part = part / part.diagonal().max()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + step)
                found[here] = self.weighting(part).detach().double()
        return [float(weight) for weight in found]

    def scales(self, gram: Tensor, step: int = 0) -> list[float]:
        """The same, such that terms that agree keep weight 1: at least 0."""
        weights = self.weights(gram, step)
        there = int((gram.diagonal() > 0).sum())
        factor = 1.0 if self.name in SUMS or there < 2 else float(there)
        present = (gram.diagonal() > 0).tolist()
        # A hair below 0 is what a solver leaves of 0.
        return [max(w, 0.0) * factor if p else 1.0 for w, p in zip(weights, present, strict=True)]
