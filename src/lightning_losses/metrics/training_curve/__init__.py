# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a curve of losses foretells: scaling laws, annealing, onsets."""
