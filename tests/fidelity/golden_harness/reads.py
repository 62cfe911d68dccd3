# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A dictionary that remembers which of its entries were read.

An adapter that overlooks a parameter still passes the cases that have its default, and is wrong on
the first one that does not. So every parameter of a case must be read, and the runner looks.
"""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, ValuesView
from typing import Any


class Recorded(dict[str, Any]):
    """A dict whose reads are remembered; `a | recorded` shares what it remembers.

    `in` and the keys are no reads: to know that a parameter is there is not to use its value.
    Copies by `dict(recorded)` or `**recorded` are not remembered either.
    """

    def __init__(self, entries: Mapping[str, Any], read: set[str] | None = None) -> None:
        super().__init__(entries)
        self.read: set[str] = set() if read is None else read

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def values(self) -> ValuesView[Any]:
        self.read.update(self.keys())
        return super().values()

    def items(self) -> ItemsView[str, Any]:
        self.read.update(self.keys())
        return super().items()

    def __or__(self, other: Any) -> Recorded:  # type: ignore[override]
        return Recorded({**_plain(self), **_plain(other)}, self.read)

    def __ror__(self, other: Any) -> Recorded:  # type: ignore[override]
        return Recorded({**_plain(other), **_plain(self)}, self.read)

    def unread(self) -> list[str]:
        """Names of the entries that nobody read."""
        return sorted(self.keys() - self.read)


def _plain(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict.__getitem__(entries, name) for name in dict.keys(entries)}  # type: ignore[arg-type]
