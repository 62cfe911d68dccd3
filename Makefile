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
