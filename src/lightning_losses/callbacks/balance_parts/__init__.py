# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How weights of terms follow losses and gradients: rules without trainer, for `TermBalancer`."""
