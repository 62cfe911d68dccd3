# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses without labels: entropy of predictions and agreement, for adaptation and discovery."""
