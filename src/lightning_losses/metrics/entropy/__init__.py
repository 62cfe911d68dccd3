# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy of attention, its bound, and the covariance that drives a policy's entropy."""
