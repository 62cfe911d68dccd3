# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From a key or a Hydra config to an objective; the catalogue is the folder ``conf``."""
