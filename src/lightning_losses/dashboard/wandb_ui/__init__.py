# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases: workspaces, reports, and the callback that logs diagrams there."""
