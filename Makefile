# Everything a newcomer needs: `make try`, `make run` and `make test`. Each target creates what it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
KRONFLUENCE := .venv-kronfluence
DOCS := .venv-docs
TESTS := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
BENCHMARKS := results response heldout_response sequential stream trainer influence memory overhead reproducible loop surrogates sampling remix capacity scale scale_ray real_model validate_pretrained installed real_trainers reliability/kills reliability/disks reliability/bytes reliability/long reliability/two_at_once
export MLFLOW_DISABLE_TELEMETRY := true
# without compiled files every process that a test starts would compile the package anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install try run test test-slow check bench ui docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --progress-bar=on --editable ".[viz]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --progress-bar=on --editable ".[dev]"
	$(BIN)/pip install --quiet --no-deps --requirement tests/requirements-oracles.txt
	touch $@

try: install
	$(BIN)/kedro run --env smoke

run: install
	$(BIN)/kedro run

# both cores work on tests, so that a test has one of them; files that take long come first (tests/conftest.py)
test: check
	$(TESTS) -m "not slow"

# kills, real text from end to end, and measurements by several processes
test-slow: $(VENV)/.installed-dev
	$(TESTS) -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# make bench NAME=stream: the peers go into an environment of their own, and kronfluence with its pins into another
bench: $(BENCH)/.installed $(if $(filter influence,$(NAME)),$(KRONFLUENCE)/.installed)
	@test -f "benchmarks/$(NAME).py" || { echo "Which one? make bench NAME=... with one of: $(BENCHMARKS)"; exit 2; }
	$(BENCH)/bin/python benchmarks/$(NAME).py

$(BENCH)/.installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --progress-bar=on --editable ".[pipeline]" --requirement benchmarks/requirements.txt
	touch $@

$(KRONFLUENCE)/.installed: benchmarks/requirements-kronfluence.txt
	$(PYTHON) -m venv $(KRONFLUENCE)
	$(KRONFLUENCE)/bin/pip install --quiet --progress-bar=on --requirement benchmarks/requirements-kronfluence.txt
	touch $@

ui: install
	$(BIN)/python -m tools.ui

# the site, into site/; a link or an anchor that leads nowhere ends the build
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=src $(DOCS)/bin/python -m mkdocs build
	@echo "Read it: python3 -m http.server --bind 127.0.0.1 --directory site 8000"

$(DOCS)/.installed: docs/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --progress-bar=on --requirement docs/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(BENCH) $(KRONFLUENCE) $(DOCS) site build dist .mypy_cache .pytest_cache .ruff_cache
