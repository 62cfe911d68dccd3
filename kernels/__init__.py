# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How softmax statistics are computed: one contract, several implementations.

A kernel is a module with one or two functions over a `Problem` (see `problem.py`):

- ``statistics(problem, want)`` returns the wanted per-row statistics with graph: any upstream
  gradient, differentiable twice. It needs two passes over the classes, one forward, one backward.
- ``row_fused(problem, want, row_function, rows)`` evaluates a scalar made of row values *and its
  gradient* in one pass. It is faster, and only for an objective that is a sum over rows.

`reference` materialises float32 logits and is obviously right; `chunked` is plain torch on any
device and never holds more than a chunk of logits. Imports nothing but torch (and triton).
"""
