# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Softmax of given logits in two or three passes, measured by ``benchmarks/softmax_passes.py``."""
