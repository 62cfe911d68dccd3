# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Callbacks that only read records; attaching one changes no bit of the training."""
