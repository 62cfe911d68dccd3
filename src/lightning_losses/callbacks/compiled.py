# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`compiled_parts`: which parts of a module `torch.compile` runs, where no monitor can look."""

from __future__ import annotations

from lightning.pytorch import LightningModule


def compiled_parts(module: LightningModule) -> list[str]:
    """Names of compiled submodules; of the module's class if it is compiled as a whole."""
    # Lightning marks a module whose steps it runs compiled.
    whole = getattr(module, "_compiler_ctx", None) is not None
    # `torch.compile(part)` wraps it as `_orig_mod`; importing the wrapper's class takes a second.
    return [type(module).__name__] * whole + [
        name or type(module).__name__
        for name, part in module.named_modules()
        if "_orig_mod" in part._modules or part._compiled_call_impl is not None
    ]
