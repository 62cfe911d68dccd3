# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`build_objective`: from a key, a list of keys, or a Hydra config to an `Objective`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import InstantiationException, MissingConfigException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lightning_losses.config.catalogue import did_you_mean, elsewhere, keys, yaml_text
from lightning_losses.config.searchpath import LightningLossesSearchPath
from lightning_losses.objective import Objective
from lightning_losses.term import Term

#: What belongs to the term, not to the loss: popped before the loss is instantiated.
TERM_KEYS = (
    *("weight", "inputs", "target_transform", "row_weighting", "aggregation", "optimizer"),
    "provider",
)

#: A loss by key, or itself; a term is a loss with its weight.
Loss = str | nn.Module

Plugins.instance().register(LightningLossesSearchPath)  # once is enough, twice does no harm


def build_objective(
    loss: Loss | Sequence[Loss] | Mapping[str, Any] | DictConfig | None, **options: Any
) -> Objective:
    """Build an objective.

    Args:
        loss: a key (``"ce"``), keys (``["ce", "opl"]``), or what Hydra composes as ``cfg.loss``: a
            mapping from term name to a node with ``_target_``, the loss's arguments, and optionally
            ``weight``, ``inputs``, ``target_transform``, ``row_weighting``, ``aggregation``,
            ``optimizer``, ``provider``. In Python also a module, modules among the keys, and nodes
            without ``_target_`` under the name of a key: ``{"ce": {"weight": 0.5}}``.
        **options: ``kernel``, ``reduction``, ``ignore_index``, ``providers``, ``group`` of
            `Objective`.

    Returns:
        An `Objective`, which takes logits ``(..., C)`` and a target ``(...)``, or named tensors.

    Raises:
        ValueError: no loss, an unknown key or option, a node that is no loss, and whatever a loss
            refuses, with the name of the term.

    Examples:
        >>> objective = build_objective({"ce": {}, "opl": {"weight": 0.1}})
        >>> logits, target = torch.zeros(2, 4), torch.tensor([0, 1])
        >>> record = objective(logits=logits, target=target, features=torch.eye(2))
        >>> {name: round(value.item(), 3) for name, value in record.terms.items()}
        {'ce': 1.386, 'opl': 1.0}
    """
    if isinstance(loss, (str, nn.Module)):
        loss = [loss]
    if not isinstance(loss, (Sequence, Mapping, DictConfig, type(None))):
        raise TypeError(
            f"A loss is a key, a list of keys, a mapping or a module, got {loss!r}: write "
            "build_objective('ce')."
        )
    if loss is None or not len(loss):
        raise ValueError(
            "An objective needs at least one loss; loss is empty (Hydra drops the key for loss=[])."
            " Write loss=ce or 'loss=[ce,opl]'."
        )
    if isinstance(loss, DictConfig):
        nodes: Any = OmegaConf.to_container(loss, resolve=True)
    elif isinstance(loss, Mapping):
        nodes = {str(name): _complete(str(name), node) for name, node in loss.items()}
    else:
        nodes = _named(list(loss))
    _refuse_options(options, nodes)
    providers: dict[str, nn.Module] = dict(options.pop("providers", None) or {})
    terms = {str(name): _build_term(str(name), node, providers) for name, node in nodes.items()}
    return Objective(terms, providers=providers, **options)


def compose_losses(names: list[str]) -> DictConfig:
    """The ``loss`` node that Hydra composes for these keys."""
    known = keys("loss")
    for name in names:
        if name not in known:
            meant = elsewhere(name, "loss") or did_you_mean(name, known)
            raise ValueError(
                f"There is no loss {name!r}.{meant} `lightning-losses list` "
                "shows every key. Your own: {'mine': {'_target_': 'my.Loss'}}, or "
                "{'mine': MyLoss()}."
            )
    _refuse_twice(names)
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


def _named(losses: list[Any]) -> dict[str, Any]:
    """Keys and modules by name: a module has that of its class, ``CrossEntropy`` cross_entropy."""
    wrong = [one for one in losses if not isinstance(one, (str, nn.Module))]
    if wrong:
        raise TypeError(
            f"A loss is a key or a module, got {wrong[0]!r}: write build_objective('ce'), "
            "build_objective(['ce', MyLoss()]) or build_objective({'mine': MyLoss()})."
        )
    names = [one if isinstance(one, str) else _name_of(one) for one in losses]
    _refuse_twice(names)
    keyed = [one for one in losses if isinstance(one, str)]
    nodes: Any = OmegaConf.to_container(compose_losses(keyed), resolve=True) if keyed else {}
    own = {n: one for n, one in zip(names, losses, strict=True) if not isinstance(one, str)}
    return {n: own.get(n, nodes.get(n)) for n in names}


def _name_of(module: nn.Module) -> str:
    loss = module.loss if isinstance(module, Term) else module
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(loss).__name__).lower()


def _refuse_twice(names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"Two terms of one name: {twice}. Give one another name: "
            "+loss@loss.aux=ce on the command line, {'aux': {...}} in Python."
        )


def _complete(name: str, node: Any) -> Any:
    """A node without ``_target_`` under the name of a key, as the key's with these changes.

    Not so for what Hydra composed: there it is an override of a loss that was not chosen.
    """
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, str):
        return OmegaConf.to_container(compose_losses([node])[node], resolve=True)
    if not isinstance(node, Mapping) or "_target_" in node or name not in keys("loss"):
        return node
    return _changed(OmegaConf.to_container(compose_losses([name])[name], resolve=True), node)


def _changed(node: Any, by: Mapping[str, Any]) -> dict[str, Any]:
    """A node with other values; what brings its own ``_target_`` replaces what was there."""
    out = dict(node)
    for key, value in by.items():
        both = isinstance(out.get(key), Mapping) and isinstance(value, Mapping)
        out[key] = _changed(out[key], value) if both and "_target_" not in value else value
    return out


def _refuse_options(options: Mapping[str, Any], nodes: Mapping[str, Any]) -> None:
    """Complain of an option that no objective has, and say where it belongs."""
    known = [n for n in inspect.signature(Objective).parameters if n != "terms"]
    for name in options:
        if name in known:
            continue
        owner = next((n for n, node in nodes.items() if _has_argument(node, name)), None)
        if owner is None and name in TERM_KEYS:
            owner = next(iter(nodes))
        place = f"Options are {', '.join(known)}.{did_you_mean(name, known)}"
        if owner is not None:
            place = (
                f"It belongs to a term: write build_objective({{{owner!r}: {{{name!r}: ...}}}}), "
                f"or loss.{owner}.{name}=... on the command line."
            )
        raise ValueError(f"build_objective has no option {name!r}. {place}")


def _has_argument(node: Any, name: str) -> bool:
    if not isinstance(node, Mapping) or "_target_" not in node:
        return False
    try:
        return name in inspect.signature(get_object(node["_target_"])).parameters
    except (ImportError, ValueError, TypeError):
        return False


def _build_term(name: str, node: Any, providers: dict[str, nn.Module]) -> Term:
    if isinstance(node, Term):
        return node
    if not isinstance(node, nn.Module) and not (isinstance(node, Mapping) and "_target_" in node):
        raise ValueError(
            f"Term {name!r} has no _target_: found {node!r}. Overriding an argument does not add a "
            f"loss; add it first (+loss={name}, or '+loss.{name}={{_target_:my.Loss}}')."
        )
    try:
        if isinstance(node, nn.Module):
            return Term(node)
        parts = {key: node[key] for key in TERM_KEYS if key in node}
        arguments = {key: value for key, value in node.items() if key not in TERM_KEYS}
        for tensor, provider in _providers(parts.pop("provider", None)).items():
            if tensor in providers:
                raise ValueError(
                    f"Two terms bring a provider of {tensor!r}; {name!r} is the second."
                )
            providers[tensor] = _instantiate(provider, "provider")
        return Term(
            _instantiate(arguments),
            _instantiate(parts["weight"]) if "weight" in parts else 1.0,
            inputs=parts.get("inputs"),
            target_transform=_instantiate(parts.get("target_transform"), "target"),
            row_weighting=_instantiate(parts.get("row_weighting"), "weighting"),
            aggregation=_instantiate(parts.get("aggregation"), "weighting"),
            optimizer=parts.get("optimizer"),
        )
    except (TypeError, ValueError, InstantiationException) as error:
        # Hydra wraps what a constructor raised, and adds the path of the config to its words.
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        raise ValueError(f"Term {name!r}: {cause or error}") from cause or error


def _providers(node: Any) -> dict[str, Any]:
    """Providers by the tensor that they make."""
    if node is None:
        return {}
    if isinstance(node, str):
        provider = _instantiate(node, "provider")
        return {provider.makes: provider}
    if not isinstance(node, Mapping) or "_target_" in node:
        raise ValueError(
            f"provider says who makes which tensor, found {node!r}: write "
            "{'logits_adv': 'pgd'} (a key of conf/provider), or {'logits_adv': {'_target_': ...}}."
        )
    return dict(node)


def _instantiate(node: Any, group: str | None = None) -> Any:
    """A module from a node with ``_target_``, or from a key of a group; others as they are."""
    if isinstance(node, str) and group is not None:
        known = keys(group)
        if node not in known:
            raise ValueError(
                f"there is no {group} {node!r}.{did_you_mean(node, known)} "
                f"Write one of: {', '.join(known)}."
            )
        node = OmegaConf.to_container(OmegaConf.create(yaml_text(group, node)))
        if missing := [key for key, value in node.items() if value == "???"]:
            raise ValueError(
                f"{', '.join(missing)} must be given: write {{'_target_': {node['_target_']!r}, "
                f"{', '.join(f'{key!r}: ...' for key in missing)}}}."
            )
    mapping = isinstance(node, Mapping) and "_target_" in node
    if group is not None and isinstance(node, Mapping) and not mapping:
        raise ValueError(
            f"a {group} is a key or a node with _target_, found {dict(node)!r}: keys are "
            f"{', '.join(keys(group))}."
        )
    return instantiate(node, _convert_="all") if mapping else node
