# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every loss class, by family; each is one small file, its YAML in ``conf/loss``."""

from lightning_losses.losses.classification.cross_entropy import CrossEntropy

__all__ = ["CrossEntropy"]
