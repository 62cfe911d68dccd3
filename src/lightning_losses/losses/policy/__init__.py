# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of policy gradients, on log-probabilities of the actions that were taken."""
