# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Panels: what a chart shows and what healthy looks like; report and W&B are built from them."""
