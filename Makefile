# Everything here works on a fresh clone: tools/venv makes .venv first, and says what is missing if it cannot.
# PYTHON=… names the interpreter to make it with.

BIN := .venv/bin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help venv test lint types tests format proto demo bench-smoke bench bench-bars bench-trees bench-checkpoints bench-matrix torture clean

help:
	@echo 'make test         lint, type check and test suite: what .ci/run runs'
	@echo 'make demo         upload, kill, resume, download and compare a real tree over one connection'
	@echo 'make bench-smoke  measure the bars of the project in a few minutes'
	@echo 'make bench        compare with other tools; takes longer'
	@echo 'make bench-bars   the bars for speed in one run, side by side; half an hour'
	@echo 'make bench-trees  the bars for trees of small files, beside the rsync daemon; a quarter of an hour'
	@echo 'make bench-checkpoints  what --durability batch costs an upload; a few minutes'
	@echo 'make bench-matrix streams, connections, sizes, waits, with charts in docs/; up to an hour'
	@echo 'make torture      power cuts, simulated and of a real ext4, failing calls, rough networks, bit flips, kills; hours'
	@echo 'make proto        generate fsmux/wire/_pb2 from schema/'
	@echo 'make format       put the sources into their standard form'
	@echo 'make clean        remove everything that these targets made'

venv:
	@tools/venv

test: lint types tests

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy
	$(BIN)/mypy benchmarks

tests: venv
	$(BIN)/python -m pytest -q -rs -n 2 --dist worksteal

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: venv
	$(BIN)/python schema/generate.py

demo: venv
	$(BIN)/python -m fsmux.cli.demo .demo

bench-smoke: venv
	$(BIN)/python -m benchmarks.smoke

bench: venv
	$(BIN)/python -m benchmarks.smoke --full
	$(BIN)/python -m benchmarks.compare

bench-bars: venv
	$(BIN)/python -m benchmarks.bars

bench-trees: venv
	$(BIN)/python -m benchmarks.trees

bench-checkpoints: venv
	$(BIN)/python -m benchmarks.checkpoints

bench-matrix: venv
	$(BIN)/python -m benchmarks.matrix --plots docs

torture: venv
	$(BIN)/python -m tests.sim.torture
	$(BIN)/python -m benchmarks.kill9 --kills 2000
	$(BIN)/python -m benchmarks.restarts
	ROUGH_ROUNDS=50 $(BIN)/python -m pytest -q tests/e2e/test_rough.py tests/e2e/test_damage.py

clean:
	rm -rf .venv .demo build dist fsmux.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
