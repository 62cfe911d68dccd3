# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What every callback is made of: cadence, alerts, tables, reads that wait for the device."""
