# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a sample is to its training: hard, wrong, forgotten, or influential."""
