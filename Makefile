# Shorthands; the README's two commands work without make.
.PHONY: install test check benchmarks

install:
	python3 -m venv .venv && .venv/bin/pip install -e ".[dev]"

test: install
	.venv/bin/pytest

check: install
	.ci/run

benchmarks: install
	.venv/bin/python benchmarks/linear_ce.py --device cpu
	.venv/bin/python benchmarks/step_overhead.py

# The README's picture.
docs/training.png: install
	.venv/bin/python examples/train.py hydra.run.dir=build/picture
	cp build/picture/training.png docs/training.png
