# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`softmax_stats`: what one pass over the classes tells, from logits or from a head."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lightning_losses.kernels.class_range import ClassRange
from lightning_losses.kernels.problem import STATISTICS
from lightning_losses.softmax.arguments import check_shift, require_tensor, shift_left
from lightning_losses.softmax.compute import make_problem, statistics


@dataclass(frozen=True)
class SoftmaxStats:
    """Per-row statistics of ``softmax(z)``; None where not asked for.

    Each is ``(...)``, the shape of the logits ``(..., C)`` without their classes; ``log_prob``,
    ``logsumexp``, ``mean_logit`` and ``entropy`` in nats, ``confidence`` and ``collision``
    fractions, all float32 at least; ``prediction`` int64, ``valid`` bool. Rows whose target is
    ignored hold 0 and send no gradient.

    Examples:
        >>> stats = softmax_stats(torch.zeros(1, 4), want=["entropy", "collision"])
        >>> stats.entropy, stats.collision, stats.confidence
        (tensor([1.3863]), tensor([0.2500]), None)
    """

    log_prob: Tensor | None = None
    """log p of the target in nats; ``sum_j t_j log p_j`` for soft targets t."""
    logsumexp: Tensor | None = None
    """log sum_j exp z_j."""
    entropy: Tensor | None = None
    """-sum_j p_j log p_j in nats, between 0 and log V."""
    mean_logit: Tensor | None = None
    """mean_j z_j."""
    mean_log_prob: Tensor | None = None
    """mean_j log p_j, in nats: what label smoothing mixes in."""
    weighted_log_prob: Tensor | None = None
    """mean_j w_j log p_j with the class weights w given."""
    collision: Tensor | None = None
    """sum_j p_j^2, a fraction between 1/V and 1."""
    confidence: Tensor | None = None
    """max_j p_j, a fraction between 1/V and 1."""
    prediction: Tensor | None = None
    """argmax_j z_j, int64, the lowest index among ties; no gradient."""
    valid: Tensor | None = None
    """bool; None if every row counts."""

    def as_dict(self) -> dict[str, Tensor]:
        """The statistics that are there, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in pairs if value is not None}

    def detach(self) -> SoftmaxStats:
        """The same numbers without graph."""
        return replace(self, **{name: value.detach() for name, value in self.as_dict().items()})


def softmax_stats(
    logits: Tensor | None = None,
    *,
    hidden: Tensor | None = None,
    head_weight: Tensor | None = None,
    head_bias: Tensor | None = None,
    target: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    temperature: Tensor | float | None = None,
    class_weight: Tensor | None = None,
    shift: int = 0,
    class_range: ClassRange | None = None,
    max_valid: int | None = None,
    want: Collection[str] | None = None,
    kernel: str = "auto",
) -> SoftmaxStats:
    """Statistics of the softmax over classes, from logits or from hidden states and a head.

    The logits are ``softcap * tanh((hidden @ head_weight.T + head_bias) * logit_scale / softcap)
    / temperature``; from hidden states they are never held whole (but by ``reference``).

    Args:
        logits: ``(..., V)``, any float dtype; or give ``hidden`` and ``head_weight``.
        hidden: ``(..., D)``.
        head_weight: ``(V, D)``; a tied or transposed view will do.
        head_bias: ``(V,)``.
        target: ``(...)`` int64 class indices, or ``(..., V)`` soft targets.
        ignore_index: rows with this target hold 0 in every statistic and send no gradient.
        softcap: tanh soft-cap in logits, as in Gemma 2 (arXiv 2408.00118).
        logit_scale: multiplies the logits before the soft-cap.
        temperature: ``(...)`` positive, one a row, or one number; divides the logits last.
        class_weight: ``(V,)`` for ``weighted_log_prob``, without gradient; with class_range of all
            classes.
        shift: position t is scored against ``target[..., t + shift]``; nothing is copied. The last
            ``shift`` positions have no target, and the result is that much shorter, or empty.
        class_range: vocabulary parallelism: the head (or logits) holds these classes out of more,
            ``ClassRange.across(V_r, group)``. Targets count over all classes; rows, targets and
            arguments are the same on every rank of the group, and every statistic comes out for
            all classes on each. The hidden states' gradient is summed over ranks, once: it is the
            whole one on each.
        max_valid: a promise that no more rows than this have a target: from ``hidden`` on a GPU the
            others then cost nothing, and the device is asked nothing. Count where the batch is
            made, ``int((target != ignore_index).sum())``. On a CPU they never cost anything.
        want: names out of ``STATISTICS``; all (that the arguments allow) if None.
        kernel: one of ``KERNELS``; the numbers are the same.

    Returns:
        SoftmaxStats with statistics of shape ``(...)``, float32 or float64. All but ``prediction``
        are differentiable, twice (once with class_range), in logits, hidden, head_weight and
        head_bias.

    Raises:
        ValueError: about shapes, dtypes, unknown names, or arguments that exclude each other.
        NotImplementedError: for forward-mode differentiation of ``chunked``; use ``reference``.

    Examples:
        >>> hidden, head_weight = torch.zeros(2, 8), torch.ones(5, 8)
        >>> target = torch.tensor([3, -100])
        >>> stats = softmax_stats(hidden=hidden, head_weight=head_weight, target=target)
        >>> stats.log_prob, stats.valid  # -log 5, and a row that does not count
        (tensor([-1.6094,  0.0000]), tensor([ True, False]))
    """
    if want is None:
        needs = {"log_prob": target, "weighted_log_prob": class_weight}
        want = [name for name in STATISTICS if name not in needs or needs[name] is not None]
    source = logits if logits is not None else hidden
    if source is None or (logits is not None) == (hidden is not None):
        raise ValueError(
            "softmax_stats needs either logits (..., V), or hidden (..., D) with head_weight "
            f"(V, D); it got {'both' if source is not None else 'neither'}."
        )
    tensors = {"logits": logits, "hidden": hidden, "head_weight": head_weight, "target": target}
    for name, value in tensors.items():
        if value is not None:
            require_tensor(name, value, least=1 if value is source else 0)
    lead = source.shape[:-1]
    if target is not None and target.dtype == torch.bool:
        raise ValueError("target must hold class indices or soft targets, got torch.bool.")
    if target is not None and not target.is_floating_point() and target.ndim < source.ndim:
        target = target.long()  # any integers, as an objective takes them
    if isinstance(temperature, (int, float)):
        temperature = torch.full(lead, temperature, device=source.device)
    classes = target is not None and not target.is_floating_point()
    soft = target is not None and not classes and target.ndim == source.ndim
    if shift:
        check_shift(shift, tuple(lead))
    if target is not None and shift:
        if soft:
            raise ValueError(
                f"shift={shift} goes with class indices, got soft targets {tuple(target.shape)}: "
                "align them with the logits and leave shift out."
            )
        target = shift_left(target, shift, ignore_index)
    valid = (target != ignore_index).reshape(-1) if target is not None and classes else None
    problem = make_problem(
        logits=None if logits is None else logits.reshape(-1, logits.shape[-1]),
        hidden=None if hidden is None else hidden.reshape(-1, hidden.shape[-1]),
        head_weight=head_weight,
        head_bias=head_bias,
        target=None
        if target is None
        else (target.reshape(-1, target.shape[-1]) if soft else target.reshape(-1)),
        valid=valid,
        temperature=None if temperature is None else temperature.reshape(-1),
        class_weight=class_weight,
        softcap=softcap,
        logit_scale=logit_scale,
        class_range=class_range,
        max_valid=max_valid,
    )
    out = statistics(problem, tuple(want), kernel)
    if valid is not None:
        out["valid"] = valid
    out = {name: value.reshape(lead) for name, value in out.items()}
    if shift:
        out = {name: value[..., :-shift] for name, value in out.items()}
    return SoftmaxStats(**out)
