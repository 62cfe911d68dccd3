# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`TrainingState`: what re-running a training step could disturb, to be put back bit for bit."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_losses.distributed import is_on_mesh

PutBack = Callable[[], object]

#: Values that cannot change in place: most attributes, so they are asked for first.
PLAIN = (bool, int, float, str, type(None))
CONTAINERS = (list, dict, set, deque)


class TrainingState:
    """Random number generators, buffers, and every attribute of a module tree, as they are now.

    Lists, dicts, sets and tensors are put back as the very objects they were, with the contents
    they had; other objects by reference. Parameters and what shares their memory stay as they are:
    they are what differs between the two ends of a step.

    Args:
        module: the root of the tree. Modules hidden in its lists and dicts count as well.
        device: whose random number generator to keep beside the CPU's.
        trained: tensors that an optimizer moves without being parameters of the tree.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, trained: Iterable[Tensor] = ()
    ) -> None:
        self.parameters: dict[str, nn.Parameter] = {}
        self._containers: list[_Contents] = []
        self._put_back: list[PutBack] = [_global_random(device)]
        self._seen: set[int] = set()
        live = (p for p in (*module.parameters(), *trained) if not is_lazy(p))
        self._trained_memory = {_memory(p) for p in live}
        self._note("", module)

    def put_back(self) -> None:
        """Make everything as it was; any number of times."""
        for container in self._containers:
            container.put_back()
        for one in self._put_back:
            one()

    def _note(self, path: str, value: Any) -> None:
        if isinstance(value, PLAIN) or id(value) in self._seen:
            return
        if not isinstance(value, _NOTED):
            return
        self._seen.add(id(value))
        if isinstance(value, nn.Module):
            self._note(path, value.__dict__)
            for name, buffer in value.named_buffers(recurse=False):  # a ScriptModule hides them
                self._note(f"{path}.{name}", buffer)
        elif isinstance(value, nn.Parameter):
            self.parameters[path.lstrip(".")] = value
        elif isinstance(value, Tensor):
            self._note_tensor(value)
        elif isinstance(value, _RANDOM):
            self._put_back.append(_own_random(value))
        else:
            if not isinstance(value, tuple):
                self._containers.append(_Contents(value))
            named: Any = value.items() if isinstance(value, dict) else enumerate(value)
            for name, item in named:
                inner = name in ("_parameters", "_buffers", "_modules")
                self._note(path if inner else f"{path}.{name}", item)

    def _note_tensor(self, tensor: Tensor) -> None:
        tensor = shard_of(tensor)
        overlapping = any(
            s == 0 and n > 1 for s, n in zip(tensor.stride(), tensor.shape, strict=True)
        )
        if tensor.layout is not torch.strided or tensor.is_meta or overlapping:
            return  # nothing can be written into it in place
        if _memory(tensor) in self._trained_memory:
            return
        kept = tensor.detach().clone()
        # By .data: a graph that saved this tensor must not see its version move.
        self._put_back.append(lambda: tensor.data.copy_(kept))


def _memory(tensor: Tensor) -> int:
    tensor = shard_of(tensor)
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def shard_of(tensor: Tensor) -> Tensor:
    """This rank's part of a DTensor, the memory itself; any other tensor as it is."""
    if not is_on_mesh(tensor):
        return tensor
    with torch.no_grad():
        local: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return local.detach()


class _Contents:
    """What a list, dict, set or deque holds; it is touched only if that has changed.

    A module has a dozen of them, most of them empty: this is where the time goes.
    """

    __slots__ = ("container", "items", "keys")

    def __init__(self, container: Any) -> None:
        self.container = container
        self.keys: list[Any] | None = list(container) if isinstance(container, dict) else None
        self.items = list(container if self.keys is None else container.values())

    def put_back(self) -> None:
        container, keys, items = self.container, self.keys, self.items
        if not container and not items:
            return
        now = container if keys is None else container.values()
        same = keys is None or list(map(id, container)) == list(map(id, keys))
        if same and list(map(id, now)) == list(map(id, items)):
            return
        container.clear()
        if keys is not None:
            container.update(zip(keys, items, strict=True))
        elif isinstance(container, set):
            container.update(items)
        else:
            container.extend(items)


_RANDOM = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
_NOTED = (nn.Module, Tensor, tuple, *CONTAINERS, *_RANDOM)


def _own_random(generator: Any) -> PutBack:
    """Put back the state of a generator object that the user keeps as an attribute."""
    if isinstance(generator, torch.Generator):
        state: Any = generator.get_state()
        return lambda: generator.set_state(state)
    if isinstance(generator, random.Random):
        state = generator.getstate()
        return lambda: generator.setstate(state)
    if isinstance(generator, np.random.RandomState):
        state = generator.get_state()
        return lambda: generator.set_state(state)
    state = generator.bit_generator.state
    return lambda: setattr(generator.bit_generator, "state", state)


def _global_random(device: torch.device) -> PutBack:
    """Put back the global generators: torch on the CPU and one device, Python, numpy."""
    cpu, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    # One device only: asking all of them would start a context on each.
    accelerator: Any = None if device.type == "cpu" else getattr(torch, device.type)
    where = () if device.type == "mps" else (device,)
    on_device = None if accelerator is None else accelerator.get_rng_state(*where)

    def put_back() -> None:
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(numpy)
        if accelerator is not None:
            accelerator.set_rng_state(on_device, *where)

    return put_back
