# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`AttentionObserver`: sees every call of attention within a stretch of code, and changes none."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils.hooks import RemovableHandle

from lightning_losses.callbacks.attention.calls import FUSED, READERS, Reader
from lightning_losses.callbacks.attention.heads import ranks_of_heads
from lightning_losses.metrics.entropy.attention import AttentionEntropy

#: By id, for a mode sees every function, and not all of them can be hashed.
_READERS = {id(function): reader for function, reader in READERS.items()}


class AttentionObserver(TorchFunctionMode):
    """Between `start` and `stop`, measures the attention calls of this thread.

    A torch function mode sees the calls; hooks of all modules tell which module is running, for
    the names. Each call is measured on the spot, on a sample and without graph, so nothing is kept
    alive. What runs during a backward pass (recomputed checkpoints) is not seen, so no call counts
    twice. Tracing for ``torch.compile`` passes through untouched.

    `nn.MultiheadAttention` and `nn.TransformerEncoder` in eval mode (a frozen teacher) may take a
    fused path that differs in the last bits, and do not while any mode is active; so within those
    the observer steps aside, and does not see them.

    Args:
        module: whose submodules give the names of layers.
        rows: (sequence, query) pairs that are looked at in a call.
    """

    def __init__(self, module: nn.Module, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.seen: dict[str, AttentionEntropy] = {}
        self.split: dict[str, Any] = {}  # layers of which other ranks have the other heads
        self.failures: dict[str, str] = {}
        self._names = {id(part): name for name, part in module.named_modules() if name}
        self._running: list[tuple[nn.Module, bool]] = []  # and whether we stepped aside for it
        self._hooks: list[RemovableHandle] = []

    @property
    def active(self) -> bool:
        """Whether `start` was called and `stop` was not."""
        return bool(self._hooks)

    def start(self) -> None:
        """Begin to observe; undone by `stop`, which must come, whatever happens between."""
        self._hooks = [
            register_module_forward_pre_hook(self._begins),
            register_module_forward_hook(self._ends, always_call=True),
        ]
        self.__enter__()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """End; harmless if it has not begun."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks, aside = [], any(aside for _, aside in self._running)
        self._running = []
        if not aside:  # an exception may have left a module without its hook
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.compiler.is_compiling() and self._hooks:
            reader = _READERS.get(id(func))
            if reader is not None:
                self._note(reader, args, kwargs)
        return func(*args, **kwargs)

    def _note(self, reader: Reader, args: Any, kwargs: dict[str, Any]) -> None:
        name = self._name()
        try:
            measured = reader(args, kwargs, self.rows)
        except Exception as error:  # a monitor never stops the run
            self.failures.setdefault(name, f"{type(error).__name__}: {error}")
            return
        if measured is not None:
            self.seen[name] = measured
            given, running = (*args, *kwargs.values()), [part for part, _ in self._running]
            group = ranks_of_heads(given, running)
            if group is not None:
                self.split[name] = group

    def _name(self) -> str:
        """The innermost running module that has a name, and which of its calls this is."""
        running = (self._names.get(id(part)) for part, _ in reversed(self._running))
        name = next((known for known in running if known), "attention")
        number, unique = 2, name
        while unique in self.seen:
            unique, number = f"{name}#{number}", number + 1
        return unique

    def _begins(self, module: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        innermost = _get_current_function_mode()  # type: ignore[no-untyped-call]
        aside = isinstance(module, FUSED) and not module.training and innermost is self
        if aside:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._running.append((module, aside))

    def _ends(self, module: nn.Module, args: Any, output: Any) -> None:
        # The end of a module whose beginning was not seen ends nothing.
        if torch.compiler.is_compiling() or module not in (part for part, _ in self._running):
            return
        part: nn.Module | None = None
        while part is not module:
            part, aside = self._running.pop()
            if aside:
                self.__enter__()  # type: ignore[no-untyped-call]
