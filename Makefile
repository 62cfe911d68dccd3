# Shorthands; the README's two commands work without make.
.PHONY: install test check docs benchmarks gpu gpu-wheels

install:
	python3 -m venv .venv && .venv/bin/pip install -e ".[dev]"

test: install
	.venv/bin/pytest

check: install
	.ci/run

docs: install
	.venv/bin/mkdocs build --strict

benchmarks: install
	.venv/bin/python benchmarks/linear_ce.py --device cpu
	.venv/bin/python benchmarks/policy_memory.py
	.venv/bin/python benchmarks/step_overhead.py

# Everything that needs a CUDA device, in the order of worth, within BUDGET seconds; results under
# benchmarks/results/. Nothing is installed: PYTHON is any that has torch for CUDA, and what else is
# missing comes from .gpu-wheels/, which `make gpu-wheels` fills where there is a network.
PYTHON ?= python3
BUDGET ?= 560
gpu:
	$(PYTHON) benchmarks/gpu_hour.py --budget $(BUDGET)

gpu-wheels: install
	.venv/bin/python benchmarks/gpu_wheels.py

# The README's picture.
docs/training.png: install
	.venv/bin/python examples/train.py hydra.run.dir=build/picture
	cp build/picture/training.png docs/training.png
