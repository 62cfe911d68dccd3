# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a module holds: objectives; modules and parameters by name pattern, as a config has them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_losses.objective import Objective


def objectives_of(module: LightningModule) -> list[Objective]:
    """The objectives that a module holds, its main one first."""
    main = getattr(module, getattr(module, "objective_name", "loss"), None)
    parts = getattr(module, "_modules", {}).values()
    held = [part for part in parts if isinstance(part, Objective)]
    if isinstance(main, Objective):
        return [main, *(one for one in held if one is not main)]
    return held


def matching_parameter(module: nn.Module, pattern: str) -> Tensor | str:
    """The one parameter whose name matches, without graph; or what is wrong, in a clause."""
    matching = [p for name, p in module.named_parameters() if fnmatchcase(name, pattern)]
    if len(matching) == 1:
        return matching[0].detach()
    matrices = [name for name, p in module.named_parameters() if p.ndim == 2]
    return (
        f"{pattern!r} matches {len(matching)} parameters; write one of {', '.join(matrices[-8:])}"
    )


def matching_modules(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Submodules whose name matches one of the patterns, by name, in order."""
    return {
        name: part
        for name, part in module.named_modules()
        if name and any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def compiled_parts(module: LightningModule, but: type[nn.Module] | None = None) -> list[str]:
    """Names of compiled submodules; of the module's class if it is compiled as a whole.

    Args:
        module: whose parts.
        but: parts of this kind, and all within them, are left out.
    """
    # Lightning marks a module whose steps it runs compiled.
    whole = getattr(module, "_compiler_ctx", None) is not None
    # `torch.compile(part)` wraps it as `_orig_mod`; importing the wrapper's class takes a second.
    apart: set[nn.Module] = set()
    for part in module.modules():
        if but is not None and isinstance(part._modules.get("_orig_mod", part), but):
            apart.update(part.modules())
    return [type(module).__name__] * whole + [
        name or type(module).__name__
        for name, part in module.named_modules()
        if part not in apart
        and ("_orig_mod" in part._modules or part._compiled_call_impl is not None)
    ]
