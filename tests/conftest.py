# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What must be set before torch and Triton are imported, which is before any fixture.

One thread a process: the tensors here are small, workers and spawned ranks share few cores, and
sums repeat. Without a CUDA device the Triton kernels run under Triton's interpreter.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# What fails in one run fails in the next. `pytest --hypothesis-profile=default` looks elsewhere.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")
