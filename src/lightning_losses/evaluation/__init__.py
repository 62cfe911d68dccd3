# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One evaluation of an objective: rows, providers, the plan of passes, terms."""
