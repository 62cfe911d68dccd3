# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the files of a run's folder, and no others: no pipes, no links that lead elsewhere."""

from __future__ import annotations

import stat
from pathlib import Path


def problem(path: Path, root: Path | None = None) -> str:
    """Why a file is not read, in words; nothing if it may be.

    Args:
        root: the folder that it must lie in once links are followed; anywhere if None.
    """
    try:
        kind = path.stat().st_mode
        inside = root is None or path.resolve().is_relative_to(root.resolve())
    except FileNotFoundError:
        return (
            f"{path.name} is a link that leads nowhere"
            if path.is_symlink()
            else (f"{path.name} was not found")
        )
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, no permission, NUL
        return f"{path.name} could not be read ({type(error).__name__})"
    if stat.S_ISDIR(kind):
        return f"{path.name} could not be read (it is a folder)"
    if not stat.S_ISREG(kind):
        return f"{path.name} was not read: it is a pipe, a socket or a device, not a file"
    if not inside:
        return f"{path.name} was not read: it is a link out of the run's folder"
    return ""


def read_bytes(path: Path, root: Path | None = None) -> tuple[bytes | None, list[str]]:
    """All of a file, or None and why not."""
    why = problem(path, root)
    if why:
        return None, [why]
    try:
        return path.read_bytes(), []
    except OSError as error:
        return None, [f"{path.name} could not be read ({type(error).__name__})"]
