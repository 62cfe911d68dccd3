# Shorthands; the README's two commands work without make.
.PHONY: install test check benchmarks gpu

install:
	python3 -m venv .venv && .venv/bin/pip install -e ".[dev]"

test: install
	.venv/bin/pytest

check: install
	.ci/run

benchmarks: install
	.venv/bin/python benchmarks/linear_ce.py --device cpu
	.venv/bin/python benchmarks/step_overhead.py

# Everything that needs a CUDA device: correctness first, then figures under benchmarks/results/.
# BIN=/usr/bin uses an environment that has torch for CUDA already.
BIN ?= .venv/bin
gpu: SHELL := /bin/bash -o pipefail
gpu:
	$(BIN)/python -m lightning_losses check --device cuda
	$(BIN)/pytest -m gpu
	$(BIN)/pytest tests/kernels/test_triton.py
	$(BIN)/python benchmarks/linear_ce.py --device cuda | tee benchmarks/results/linear_ce_cuda.txt

# The README's picture.
docs/training.png: install
	.venv/bin/python examples/train.py hydra.run.dir=build/picture
	cp build/picture/training.png docs/training.png
