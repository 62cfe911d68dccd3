# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses on bags, lists, sensitive attributes and unnormalised models."""
