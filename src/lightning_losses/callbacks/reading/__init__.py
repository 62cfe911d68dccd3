# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What monitors read from a step: logits, features, gradients, learning rates, module names."""
