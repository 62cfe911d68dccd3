# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Reading runs: CSV logs, offline and live Weights & Biases runs."""
