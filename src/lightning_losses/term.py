# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Term`: a loss under a name, with its weight, target transform and row weighting."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.schedules import Schedule, as_schedule
from lightning_losses.softmax import STATISTICS


class Term(nn.Module):
    """One loss within an objective.

    Args:
        loss: any module whose ``forward`` returns per-row values ``(N,)`` or a scalar.
        weight: number, schedule ``step -> float``, or the fields of a linear schedule.
        inputs: ``{parameter of forward: named tensor}`` where the names differ.
        target_transform: module ``target -> soft target (N, C)`` in front of the loss.
        row_weighting: module ``(losses (N,), valid, ...) -> weights (N,)``, applied detached.
        aggregation: another such module, whose weights multiply these: how rows of one sequence
            count together (`SequenceWeight`), whatever else weighs them.
        optimizer: options of the optimizer group that gets the loss's own parameters, such as
            ``{"lr": 0.1}``; see `LossMixin.parameter_groups`.

    Raises:
        ValueError: negative weight, wrong ``inputs``, or a torch loss that reduces by itself.

    Examples:
        >>> from lightning_losses.losses import CrossEntropy
        >>> term = Term(CrossEntropy(), weight={"start": 0.0, "end": 1.0, "steps": 100})
        >>> term.set_step(25)
        >>> term.weight.item()
        0.25
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float | Schedule | Mapping[str, float] = 1.0,
        *,
        inputs: Mapping[str, str] | None = None,
        target_transform: nn.Module | None = None,
        row_weighting: nn.Module | None = None,
        aggregation: nn.Module | None = None,
        optimizer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _require_modules(loss, target_transform, row_weighting, aggregation)
        for name, value in (("inputs", inputs), ("optimizer", optimizer)):
            if value is not None and not isinstance(value, Mapping):
                raise TypeError(f"{name} must be a mapping such as {LIKE[name]}, got {value!r}.")
        _refuse_own_reduction(loss)
        for part in (loss, target_transform, row_weighting, aggregation):
            _check_settings(part)
        self.loss = loss
        self.target_transform = target_transform
        self.row_weighting = row_weighting
        self.aggregation = aggregation
        self.optimizer = dict(optimizer or {})
        self.arguments = arguments(loss, inputs)
        _refuse_other_head(loss, self.arguments)
        self.torch_sums = _torch_sums(loss, self.arguments)  # `sum_over_rows` stands for forward
        self._weigh = tuple(
            (part, arguments(part, skip=2)) for part in (row_weighting, aggregation) if part
        )
        self.weighting_arguments = tuple(a for _, asked in self._weigh for a in asked)
        asked = self.arguments + self.weighting_arguments
        required = {a.tensor for a in asked if a.required}
        #: Named tensors that loss, target transform and row weighting cannot do without.
        self.required = frozenset(required if target_transform is None else required | {"target"})
        # A loss that says what it `needs` looks at no other optional tensor.
        optional = self.weighting_arguments if hasattr(loss, "needs") else asked
        #: Named tensors that loss and row weighting look at if they are there.
        self.read = frozenset(required | {a.tensor for a in optional})
        #: Softmax statistics among the required ones.
        self.statistics = tuple(name for name in STATISTICS if name in self.required)
        #: What the loss says of its inputs; None if it says nothing, and is not checked.
        self.contract = _contract(loss, self.statistics)
        first = self.contract if target_transform is None else _contract(target_transform, ())
        #: What the step's target may be; empty if it is not read or nothing is said of it.
        self.target_kinds: tuple[str, ...] = ()
        #: Whether its integer target says which column of the logits is right; None without target,
        #: and where only equal or not matters.
        self.class_target: bool | None = None
        if {"target", "log_prob"} & self.read or target_transform is not None:
            self.target_kinds = () if first is None else first.target
            self.class_target = bool(getattr(target_transform or loss, "class_target", True))
            if first is not None:
                known = [kind for kind in first.target if kind not in ("label", "none")]
                self.class_target = "class" in known if known else None
        self.schedule = as_schedule(weight)
        self.scale = 1.0  # what a controller moves; the schedule stays the user's
        # Not a buffer: bf16-true would round it, and it would enter the user's state_dict. Not a
        # Python float: each new value would recompile a compiled objective.
        self._written = math.nan
        # Spelled out: a model may be built under a default dtype or device of the precision's.
        self.weight = torch.zeros((), dtype=torch.float64, device="cpu")
        self.set_step(0)

    @property
    def row_function(self) -> bool:
        """Whether this is a sum over rows of a function of softmax statistics and row data."""
        return (
            bool(self.statistics)
            and getattr(self.loss, "scope", None) == "rows"
            and not self.weighs_rows
            and not any(p.requires_grad for p in self.loss.parameters())
        )

    @property
    def weighs_rows(self) -> bool:
        """Whether rows have weights, which need every row first."""
        return bool(self._weigh)

    def transform_for(self, target: Tensor | None) -> Callable[[Tensor], Tensor] | None:
        """What makes this term's target out of the step's; None if it takes it as it is.

        A loss with class weights multiplies soft targets by them: log p of a target is linear in
        it, so that the pass over the classes needs to know nothing more.
        """
        if self.target_transform is not None or target is None or target.ndim == 1:
            return self.target_transform
        weigh: Callable[[Tensor], Tensor] | None = getattr(self.loss, "weigh_target", None)
        return weigh

    def set_step(self, step: int) -> None:
        """Write the weight of this optimizer step. Raises ValueError if it is negative or NaN."""
        found: Any = self.schedule(step)
        one = found.numel() == 1 if isinstance(found, Tensor) else isinstance(found, Real)
        if not one:
            raise TypeError(f"A schedule is step -> float; {self.schedule!r} gave {found!r}.")
        value = float(found) * self.scale
        if not 0 <= value < math.inf:
            raise ValueError(
                f"The weight of {type(self.loss).__name__} is {value} at step {step}; it must be "
                f"finite and at least 0. Its schedule is {self.schedule!r}, its scale {self.scale}."
            )
        if value != self._written:
            self._written = value
            self.weight.fill_(value)

    def forward(self, tensors: Mapping[str, Any]) -> Tensor:
        """The loss on named tensors: per-row values ``(N,)`` or a scalar."""
        values: Tensor = self.loss(**pick(self.arguments, tensors))
        return values

    def row_weights(
        self, losses: Tensor, valid: Tensor | None, tensors: Mapping[str, Any]
    ) -> Tensor:
        """Weights ``(N,)`` of the rows, without graph; of most weightings their mean is about 1."""
        if valid is None:
            valid = torch.ones_like(losses, dtype=torch.bool)
        losses, weights = losses.detach(), torch.ones_like(losses)
        # Not under no_grad: there `distributed` takes the step for a validation step, of which
        # every rank reports its own.
        for part, asked in self._weigh:
            extra = {
                name: value.detach() if isinstance(value, Tensor) else value
                for name, value in pick(asked, tensors).items()
            }
            weights = weights * part(losses, valid, **extra).detach()
        return weights


def _contract(module: nn.Module, statistics: tuple[str, ...]) -> Contract | None:
    """What a loss or a target transform declares; of one without contract, what it reads tells.

    ``soft_target`` and ``class_target`` are the attributes of a loss that has no contract.
    """
    declared = getattr(module, "contract", None)
    if isinstance(declared, Contract) or "log_prob" not in statistics:
        return declared if isinstance(declared, Contract) else None
    if not getattr(module, "class_target", True):
        return None
    return Contract(("class", "soft") if getattr(module, "soft_target", False) else ("class",))


#: Mappings that a term takes.
LIKE = {"inputs": "{'logits': 'aux_logits'}", "optimizer": "{'lr': 0.1}"}


def _require_modules(loss: Any, *others: Any) -> None:
    """A function has no parameters that a device would move; a class is no instance."""
    names = ("loss", "target_transform", "row_weighting", "aggregation")
    for name, value in zip(names, (loss, *others), strict=True):
        if isinstance(value, nn.Module) or (value is None and name != "loss"):
            continue
        fix = "pass an instance of a class with nn.Module as its base"
        if isinstance(value, type):
            fix = f"write {value.__name__}(...)"
        elif isinstance(value, str):
            fix = f"keys are for build_objective({{{value!r}: ...}})"
        raise TypeError(f"{name} must be an nn.Module, got {value!r}: {fix}.")


#: What a setting may be by the annotation of its parameter, and how errors call it.
SETTINGS = {"float": (Real, "a number"), "int": (Integral, "an integer"), "bool": (bool, "a bool")}


def _check_settings(module: nn.Module | None) -> None:
    """Complain of a setting of ours that is of another type than declared, or NaN.

    A configuration that says ``square: "false"`` means no, and a string is true.
    """
    if module is None or not type(module).__module__.startswith(f"{__package__}."):
        return
    for name, parameter in inspect.signature(type(module)).parameters.items():
        kind, _, or_none = str(parameter.annotation).partition(" | ")
        value = vars(module).get(name, parameter.default)
        if kind not in SETTINGS or or_none not in ("", "None") or value is parameter.empty:
            continue
        if isinstance(value, Tensor) or (value is None and or_none):
            continue
        wanted, word = SETTINGS[kind]
        if not isinstance(value, wanted):
            raise TypeError(f"{type(module).__name__} needs {name} to be {word}, got {value!r}.")
        if value != value:  # NaN alone
            raise ValueError(f"{type(module).__name__} needs {name} to be a number, got {value}.")


def _refuse_own_reduction(loss: nn.Module) -> None:
    """A torch loss that averages by itself would ignore masks and sample weights silently."""
    reduction = getattr(loss, "reduction", None)
    if isinstance(loss, nn.modules.loss._Loss) and reduction != "none":
        name = type(loss).__name__
        raise ValueError(
            f"{name} has reduction={reduction!r}, so the objective could not apply ignore_index, "
            f"mask or sample_weight. Write reduction: none (torch.nn.{name}(reduction='none'))."
        )


def _refuse_other_head(loss: nn.Module, asked: tuple[Argument, ...]) -> None:
    """Statistics are those of the step's logits and target, whatever a mapping says of these."""
    moved = [a for a in asked if a.parameter in ("logits", "target") and a.parameter != a.tensor]
    statistics = [a.tensor for a in asked if a.tensor in STATISTICS]
    if moved and statistics:
        raise ValueError(
            f"inputs maps {moved[0].parameter} of {type(loss).__name__} to {moved[0].tensor!r}, "
            f"but its {', '.join(statistics)} would still be of the step's logits and target. "
            "For another head write a second Objective, and add the totals."
        )


def _torch_sums(loss: nn.Module, asked: tuple[Argument, ...]) -> bool:
    """Whether a loss has torch's own sum for its forward: unmapped, and not overridden."""
    owner = next((c for c in type(loss).__mro__ if "sum_over_rows" in vars(c)), None)
    mapped = any(a.parameter != a.tensor for a in asked)
    return owner is not None and vars(owner).get("forward") is type(loss).forward and not mapped


class Argument(NamedTuple):
    """One parameter of a ``forward``, and the named tensor that fills it."""

    parameter: str
    tensor: str
    required: bool


def arguments(
    module: nn.Module, inputs: Mapping[str, str] | None = None, skip: int = 0
) -> tuple[Argument, ...]:
    """What ``module.forward`` asks for, in order, after the first ``skip`` parameters.

    Args:
        module: any module. Parameters without default are required. A module whose needs depend
            on its settings names the optional ones that it will read in an attribute ``needs``.
        inputs: ``{parameter: named tensor}`` where the names differ. A mapped parameter is
            required, even if it has a default: it would not have been mapped otherwise.

    Raises:
        ValueError: if ``inputs`` names a parameter that ``forward`` does not have.
    """
    mapping = dict(inputs or {})
    needs = tuple(getattr(module, "needs", ()))
    parameters = list(inspect.signature(module.forward).parameters.values())[skip:]
    named = [
        p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)
    ]
    asked = tuple(
        Argument(
            p.name,
            mapping.pop(p.name, p.name),
            p.default is p.empty or p.name in needs or p.name in (inputs or {}),
        )
        for p in named
    )
    if mapping:
        raise ValueError(
            f"inputs names {sorted(mapping)}, which {type(module).__name__}.forward does not have; "
            f"its parameters are {[p.name for p in named]}."
        )
    # A statistic costs a pass, so one that is merely optional is not computed for it.
    return tuple(a for a in asked if a.required or a.tensor not in STATISTICS)


def pick(wanted: tuple[Argument, ...], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call, by parameter name."""
    return {a.parameter: tensors[a.tensor] for a in wanted if a.tensor in tensors}
