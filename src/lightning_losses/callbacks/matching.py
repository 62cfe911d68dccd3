# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Modules and parameters by name pattern, as a user writes them in a config."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn


def matching_parameter(module: nn.Module, pattern: str) -> Tensor | str:
    """The one parameter whose name matches, without graph; or what is wrong, in a clause."""
    found = [p for name, p in module.named_parameters() if fnmatchcase(name, pattern)]
    if len(found) == 1:
        return found[0].detach()
    matrices = [name for name, p in module.named_parameters() if p.ndim == 2]
    return f"{pattern!r} matches {len(found)} parameters; write one of {', '.join(matrices[-8:])}"


def matching_modules(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Submodules whose name matches one of the patterns, by name, in order."""
    return {
        name: part
        for name, part in module.named_modules()
        if name and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
