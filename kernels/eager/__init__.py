# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Kernels in plain torch: the reference, the chunked passes, and the fused row pass."""
