# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Callbacks that also act: on the update, a term's weight, the gradients or a calibrator."""
