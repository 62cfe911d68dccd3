# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""An alarm with patience and hysteresis: one bad measurement is none, and it does not flutter."""

from __future__ import annotations


class Alarm:
    """Goes on after ``patience`` bad measurements in a row, off at a good one.

    Between bad and good lies a band that moves nothing that is on.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.on, self.count = patience, False, 0

    def forget(self) -> None:
        """Off, with nothing counted."""
        self.on, self.count = False, 0

    def update(self, *, bad: bool, good: bool) -> bool:
        """Take one measurement; True if it turns the alarm on."""
        if self.on:
            self.on = not good
            return False
        self.count = self.count + 1 if bad else 0
        if self.count < self.patience:
            return False
        self.on, self.count = True, 0
        return True
