# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Without a CUDA device the Triton kernels run under Triton's interpreter.

Set here because Triton reads it when a kernel is defined, which is before any fixture.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
