# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What is in the catalogue: a key is the name of a file in ``conf/<group>/``."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.resources import files

#: Groups that the command line lists, losses first.
GROUPS = (
    "loss",
    "target",
    "weighting",
    "head",
    "provider",
    "schedule",
    "balance",
    "callbacks",
    "kernel",
    "logger",
)

#: What losses are called elsewhere.
OTHER_NAMES = {
    "cross_entropy": "ce",
    "crossentropy": "ce",
    "nll": "ce",
    "label_smoothing": "ce",
    "softmax": "ce",
    "binary_cross_entropy": "bce",
    "bce_with_logits": "bce",
    "mean_squared_error": "mse",
    "l2": "mse",
    "l1_loss": "l1",
    "mean_absolute_error": "l1",
    "knowledge_distillation": "kd",
    "infonce": "nt_xent",
    "ms": "multi_similarity",
    "simclr": "nt_xent",
    "supervised_contrastive": "supcon",
    "triplet": "triplet_margin",
    "focal_loss": "focal",
    "z_loss": "logsumexp_penalty",
}


def keys(group: str) -> list[str]:
    """The keys of a config group (``loss``, ``target``, ``callbacks``, ...), sorted."""
    names = [file.name for file in (files("lightning_losses.conf") / group).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def yaml_text(group: str, key: str) -> str:
    """The YAML of a key, as shipped."""
    return (files("lightning_losses.conf") / group / f"{key}.yaml").read_text()


def summary(group: str, key: str) -> str:
    """The first comment of a key's YAML: what it is, in a sentence."""
    for line in yaml_text(group, key).splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line[2:]
    return ""


def target_class(group: str, key: str) -> type | None:
    """The class that a key instantiates; None for a YAML without ``_target_``."""
    from hydra.utils import get_class  # here, so that the command line need not wait for it
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(OmegaConf.create(yaml_text(group, key)))
    target = node.get("_target_") if isinstance(node, dict) else None
    return None if target is None else get_class(target)


def find(key: str) -> tuple[str, str]:
    """Group and name of ``NAME`` or ``GROUP/NAME``; a loss where several groups have the name.

    Raises:
        ValueError: if there is none.
    """
    group, _, name = key.rpartition("/")
    if group and group not in GROUPS:
        raise ValueError(f"there is no group {group!r}; groups are {', '.join(GROUPS)}.")
    groups = (group,) if group else GROUPS
    for candidate in groups:
        if name in keys(candidate):
            return candidate, name
    meant = did_you_mean(name, {known for candidate in groups for known in keys(candidate)})
    raise ValueError(f"there is no {key!r}.{meant or ' `lightning-losses list` shows every key.'}")


def elsewhere(name: str, group: str) -> str:
    """A sentence, with a space before it, if this is a key of another group; else empty."""
    other = next((g for g in GROUPS if g != group and name in keys(g)), None)
    return "" if other is None else f" It is a {other}: see `lightning-losses show {other}/{name}`."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence, with a space before it, of the name most like this one; empty if none is."""
    wanted = name.lower().replace("-", "_")
    names = sorted(known)
    same = [n for n in names if sorted(n) == sorted(wanted)]  # two letters changed places
    close = same or get_close_matches(wanted, names, n=1, cutoff=0.7)
    if wanted in OTHER_NAMES and OTHER_NAMES[wanted] in names:
        close = [OTHER_NAMES[wanted]]
    return f" Did you mean {close[0]}?" if close else ""
