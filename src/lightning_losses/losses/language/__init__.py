# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of language models on given text: coverage, distance of meanings, forgetting."""
