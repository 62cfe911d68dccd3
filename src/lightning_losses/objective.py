# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Objective`: the weighted sum of terms, as an ordinary `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.contract import HeadKind
from lightning_losses.distributed import Ranks, over
from lightning_losses.evaluation.own_parameters import keep_equal
from lightning_losses.evaluation.plan import head_of, names_class, plan_passes
from lightning_losses.evaluation.provide import provide
from lightning_losses.evaluation.rows import Rows, flatten
from lightning_losses.evaluation.terms import REDUCTIONS, evaluate, evaluate_apart
from lightning_losses.evaluation.validation import explain, refuse_unread
from lightning_losses.record import LossRecord
from lightning_losses.softmax import KERNELS, may_ask
from lightning_losses.term import Term

#: See `Objective.show`.
Inspector = Callable[[Mapping[str, Any], Rows, "float | Tensor | None"], None]


class Objective(nn.Module):
    """The weighted sum of losses over one batch. Works without Lightning as a plain criterion.

    Args:
        terms: losses by name; a bare module gets weight 1.
        kernel: how softmax statistics are computed: ``auto``, ``reference``, ``chunked``,
            ``triton``. The numbers do not depend on it.
        reduction: ``mean`` over the rows that count (weighted by ``sample_weight``), ``sum``, or
            ``none`` for ``(N,)``, with 0 in the rows that do not count.
        ignore_index: rows with this target do not count.
        providers: modules that make a named tensor that the step does not pass, by its name.
        group: the torch.distributed group of the ranks that hold other rows. Not needed under
            Lightning, which knows the mesh, nor where all ranks do. It is not saved or pickled.

    Raises:
        ValueError: no terms, unknown kernel or reduction.

    Examples:
        >>> from lightning_losses.losses import CrossEntropy, Focal
        >>> focal = Term(Focal(gamma=2.0), weight=0.5)
        >>> objective = Objective({"ce": CrossEntropy(), "focal": focal})
        >>> logits = torch.zeros(8, 4, requires_grad=True)
        >>> record = objective(logits=logits, target=torch.arange(8) % 4)
        >>> record.total.backward()
        >>> round(record.total.item(), 4)  # log 4 (1 + 0.5 (1 - 1/4)^2)
        1.7762
    """

    def __init__(
        self,
        terms: Mapping[str, Term | nn.Module],
        kernel: str = "auto",
        reduction: str = "mean",
        ignore_index: int = -100,
        providers: Mapping[str, nn.Module] | None = None,
        group: Any = None,
    ) -> None:
        super().__init__()
        if not terms:
            raise ValueError(
                "An objective needs at least one term, found none. Write loss=ce, or "
                "Objective({'ce': CrossEntropy()})."
            )
        for what, given in (("terms", terms), ("providers", providers or {})):
            if not isinstance(given, Mapping):
                raise TypeError(
                    f"{what} must be a mapping from names to modules, got {given!r}: write "
                    "{'NAME': MODULE}; keys of the catalogue are for build_objective(...)."
                )
        for name, provider in (providers or {}).items():
            if not (isinstance(provider, nn.Module) and str(name).isidentifier()):
                raise TypeError(
                    f"providers must be nn.Modules by the name of the tensor that each makes, got "
                    f"{name!r}: {provider!r}."
                )
        for name in terms:
            if not str(name).isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(
                    f"A term cannot be called {name!r}: write a word of letters, digits and _ that "
                    "is no method of a dict."
                )
        if kernel not in KERNELS:
            raise ValueError(f"Unknown kernel {kernel!r}; write one of {', '.join(KERNELS)}.")
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
            raise ValueError(f"ignore_index is one label, an int, got {ignore_index!r}.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"Unknown reduction {reduction!r}; write one of {REDUCTIONS}.")
        self.terms = nn.ModuleDict(
            {k: t if isinstance(t, Term) else Term(t) for k, t in terms.items()}
        )
        self.providers = nn.ModuleDict(dict(providers or {}))
        self.kernel, self.reduction, self.ignore_index = kernel, reduction, ignore_index
        self._ranks, self._found_ranks = Ranks(group), Ranks()
        self.reads_module = any("module" in term.required for _, term in self.named_terms())
        self._timed = [m for m in self.modules() if m is not self and hasattr(m, "set_step")]
        self._watched: dict[str, frozenset[str]] = {}
        self._asked_for: frozenset[str] = frozenset()
        self._shown: dict[str, Inspector] = {}
        self._consulted: dict[str, Inspector] = {}

    # -- the host side: called before forward, never traced ------------------------------------

    def set_step(self, step: int) -> None:
        """Write every weight for this optimizer step, and tell parts that change with time."""
        for part in self._timed:
            part.set_step(step)  # type: ignore[operator]

    @property
    def group(self) -> Any:
        """The ranks that hold other rows: as given, else as `find_group` was told; None for all."""
        given = self._ranks.group
        return self._found_ranks.group if given is None else given

    def find_group(self, group: Any) -> None:
        """What the strategy of a Trainer says of the ranks; a ``group`` that was given stays."""
        self._found_ranks.group = group

    def keep_parameters_equal(self) -> None:
        """Average gradients of own parameters over ranks, where no strategy does; see there."""
        keep_equal(self, self.group)

    def watch(self, owner: str, *names: str) -> None:
        """Keep these statistics and named tensors in the records, for a monitor; none to stop."""
        if names:
            self._watched[owner] = frozenset(names)
        else:
            self._watched.pop(owner, None)
        # One set, so that compiled code depends on what is asked for and not on who asks.
        self._asked_for = frozenset().union(*self._watched.values())

    def show(self, owner: str, inspector: Inspector | None) -> None:
        """Show what training evaluates to a monitor, after each evaluation; None to stop.

        The inspector gets the named tensors as they were passed, the batch as terms read it, both
        with their graph, and the normalizer: what `separately` takes. Not shown are evaluations
        without gradient and within ``torch.compile``.
        """
        if inspector is None:
            self._shown.pop(owner, None)
        else:
            self._shown[owner] = inspector

    def consult(self, owner: str, inspector: Inspector | None) -> None:
        """Show a controller what training is about to evaluate, before it does; None to stop.

        As `show`, but earlier: the weights that it writes (`Term.scale`, then `Term.set_step`) are
        those of this evaluation.
        """
        if inspector is None:
            self._consulted.pop(owner, None)
        else:
            self._consulted[owner] = inspector

    def named_terms(self) -> list[tuple[str, Term]]:
        """The terms by name, in order."""
        return list(self.terms.items())  # type: ignore[arg-type]

    def head(self, logits: Tensor | None) -> HeadKind:
        """What the terms make of logits ``(N, C)`` or ``(N,)``: see `Contract`."""
        return head_of(dict(self.named_terms()), logits)

    # -- the tensor side -----------------------------------------------------------------------

    def forward(
        self,
        logits: Tensor | None = None,
        target: Tensor | None = None,
        *,
        normalizer: float | Tensor | None = None,
        **named: Any,
    ) -> LossRecord:
        """Evaluate every term on the named tensors.

        Args:
            logits: ``(..., C)``; or ``hidden`` and ``head_weight`` among ``named``.
            target: ``(...)`` class indices or real values, ``(..., C)`` soft targets.
            normalizer: divides the sum over rows of all ranks instead of the number of rows that
                count; for accumulation over batches with uneven token counts.
            **named: see `lightning_losses.named_tensors`.

        Returns:
            LossRecord, whose ``total`` carries the graph.

        Raises:
            ValueError: a tensor that a term needs is missing, or one has the wrong shape, dtype or
                values.
        """
        named = {"logits": logits, "target": target, **named}
        terms, compiling = dict(self.named_terms()), torch.compiler.is_compiling()
        watched = self._asked_for
        rows = None
        try:
            with over(self.group):
                if not compiling:
                    refuse_unread(terms, named, self.providers, watched)  # type: ignore[arg-type]
                rows = flatten(named, self.ignore_index)
                rows = provide(rows, terms, self.providers, self.ignore_index)  # type: ignore[arg-type]
                # One island: whatever the precision plug-in says, float32 at least.
                with over(rows.group), torch.autocast(rows.device.type, enabled=False):
                    if not compiling and torch.is_grad_enabled() and self._consulted:
                        for inspector in list(self._consulted.values()):
                            inspector(named, rows, normalizer)
                    plan = plan_passes(rows, terms, self.kernel, self.reduction, watched)
                    record = evaluate(plan, normalizer)
                    # In this order: compiled code then does not depend on who looks.
                    if not compiling and torch.is_grad_enabled() and self._shown:
                        for inspector in list(self._shown.values()):
                            inspector(named, rows, normalizer)
        except (IndexError, RuntimeError) as error:
            if compiling:
                raise
            raise self._explain(rows) or error from error
        # Asking is free on a CPU. Elsewhere a NaN stays visible in the loss and stalls no step.
        if may_ask(record.total) and bool(record.total.isnan().any()):
            blame = self._explain(rows)
            if blame is not None:
                raise blame
        return record

    def separately(self, rows: Rows, normalizer: float | Tensor | None) -> dict[str, Tensor]:
        """The weighted value of each term apart, with graph: their sum is the total.

        Never by the one pass that forms the gradient of the sum. Parts that keep a state from call
        to call are moved by this as by any evaluation.
        """
        terms = dict(self.named_terms())
        with over(rows.group if self.group is None else self.group):
            plan = plan_passes(rows, terms, self.kernel, self.reduction, apart=True)
            return evaluate_apart(plan, normalizer)

    def _explain(self, rows: Rows | None) -> ValueError | None:
        """The error that names the tensor to blame for one that torch raised, or for a NaN."""
        if rows is None:
            return None
        by_class = names_class(dict(self.named_terms()), rows.all_logits)
        return explain(rows.tensors, rows.valid, self.ignore_index, by_class)
