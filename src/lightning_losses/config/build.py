# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`build_objective`: from a key, a list of keys, or a Hydra config to an `Objective`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

import lightning_losses.config.searchpath  # noqa: F401  (so that keys resolve)
from lightning_losses.config.catalogue import did_you_mean, keys
from lightning_losses.objective import Objective
from lightning_losses.schedules import Schedule
from lightning_losses.term import Term

#: What belongs to the term, not to the loss: popped before the loss is instantiated.
TERM_KEYS = ("weight", "inputs", "target_transform", "row_weighting", "optimizer", "provider")


def build_objective(
    loss: str | Sequence[str] | Mapping[str, Any] | DictConfig | None, **options: Any
) -> Objective:
    """Build an objective.

    Args:
        loss: a key (``"ce"``), keys (``["ce", "opl"]``), or what Hydra composes as ``cfg.loss``: a
            mapping from term name to a node with ``_target_``, the loss's arguments, and optionally
            ``weight``, ``inputs``, ``target_transform``, ``row_weighting``, ``optimizer``,
            ``provider``.
        **options: ``kernel``, ``reduction``, ``ignore_index``, ``providers`` of `Objective`.

    Raises:
        ValueError: no loss, an unknown key, a node without ``_target_``, a wrong weight.
    """
    if isinstance(loss, str):
        loss = [loss]
    if loss is None or not len(loss):
        raise ValueError(
            "An objective needs at least one loss; loss is empty (Hydra drops the key for loss=[])."
            " Write loss=ce or 'loss=[ce,opl]'."
        )
    if not isinstance(loss, (Mapping, DictConfig)):
        loss = compose_losses(list(loss))
    nodes: Any = loss
    if isinstance(loss, DictConfig):
        nodes = OmegaConf.to_container(loss, resolve=True)
    providers: dict[str, nn.Module] = dict(options.pop("providers", None) or {})
    terms = {str(name): _build_term(str(name), node, providers) for name, node in nodes.items()}
    return Objective(terms, providers=providers, **options)


def compose_losses(names: list[str]) -> DictConfig:
    """The ``loss`` node that Hydra composes for these keys."""
    known = keys("loss")
    for name in names:
        if name not in known:
            raise ValueError(
                f"There is no loss {name!r}.{did_you_mean(name, known)} "
                f"Write one of: {', '.join(known)}. "
                "Your own: {'mine': {'_target_': 'my.Loss'}}."
            )
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"Two terms of one name: {duplicates}. Give one another name: "
            "+loss@loss.aux=ce on the command line, {'aux': {...}} in Python."
        )
    # Hydra holds one application; within the user's own, that one steps aside and comes back.
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("lightning_losses.conf", version_base="1.3"):
            return compose(overrides=[f"+loss=[{','.join(names)}]"]).loss  # type: ignore[no-any-return]
    except MissingConfigException as error:
        raise ValueError(str(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer


def _build_term(name: str, node: Any, providers: dict[str, nn.Module]) -> Term:
    if isinstance(node, nn.Module):
        return node if isinstance(node, Term) else Term(node)
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ValueError(
            f"Term {name!r} has no _target_: found {node!r}. Overriding an argument does not add a "
            f"loss; add it first (+loss={name}, or '+loss.{name}={{_target_:my.Loss}}')."
        )
    parts = {key: node[key] for key in TERM_KEYS if key in node}
    arguments = {key: value for key, value in node.items() if key not in TERM_KEYS}
    for tensor, provider in _as_dict(parts.pop("provider", None)).items():
        if tensor in providers:
            raise ValueError(f"Two terms bring a provider of {tensor!r}; {name!r} is the second.")
        providers[tensor] = _instantiate(provider)
    try:
        return Term(
            _instantiate(arguments),
            _weight(parts.get("weight", 1.0)),
            inputs=parts.get("inputs"),
            target_transform=_instantiate(parts.get("target_transform")),
            row_weighting=_instantiate(parts.get("row_weighting")),
            optimizer=parts.get("optimizer"),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"Term {name!r}: {error}") from error


def _as_dict(node: Any) -> dict[str, Any]:
    return dict(node) if isinstance(node, Mapping) else {}


def _instantiate(node: Any) -> Any:
    return instantiate(node, _convert_="all") if isinstance(node, Mapping) else node


def _weight(node: Any) -> float | Schedule | Mapping[str, float]:
    """A number, an instantiated schedule, or the fields of a linear one."""
    if isinstance(node, Mapping) and "_target_" in node:
        return instantiate(node, _convert_="all")  # type: ignore[no-any-return]
    return node  # type: ignore[no-any-return]
