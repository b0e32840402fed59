# Everything runs in .venv with the versions of constraints.txt; another Python: make clean test PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench bench-compare docs clean

.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed  ## train GESM on the bundled CiteSeer, print the table, leave runs/demo
	$(BIN)/gesm train citeseer --out runs/demo --overwrite

test: .venv/installed lint  ## lint and the whole test-suite
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed  ## the ratio table of the README and a plot of scaling, in benchmarks/results/latest.{json,png}
	$(BIN)/python -m benchmarks

bench-compare: .venv/installed  ## make bench-compare BASE=file.json: fails if a ratio got worse by more than 20 % beyond the spread
	$(BIN)/python -m benchmarks.compare $(or $(BASE),$(error say with what to compare: make bench-compare BASE=file.json))

docs: .venv/installed  ## HTML documentation in docs/_build/html
	$(BIN)/sphinx-build -n -W -b html docs docs/_build/html

clean:
	rm -rf .venv build docs/_build
