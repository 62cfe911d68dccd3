# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Providers: make a named tensor that a term needs and the step did not pass."""

from lightning_losses.providers.ema_teacher import EMATeacher
from lightning_losses.providers.pgd import PGD
from lightning_losses.providers.queue import Queue
from lightning_losses.providers.stored_teacher import StoredTeacher
from lightning_losses.providers.teacher import FrozenTeacher

__all__ = [
    "PGD",
    "EMATeacher",
    "FrozenTeacher",
    "Queue",
    "StoredTeacher",
]
