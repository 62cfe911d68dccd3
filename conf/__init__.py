# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Hydra configs: a key is a file, a group is a folder; on Hydra's search path by a plug-in."""
