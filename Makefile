# Everything a newcomer needs: `make run` and `make test`. Each target creates what it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export MLFLOW_DISABLE_TELEMETRY := true
export PYTHONWARNINGS := ignore::DeprecationWarning:pkg_resources

.PHONY: install run test check bench ui clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --progress-bar=on --editable ".[dev]"
	touch $@

run: install
	$(BIN)/kedro run

test: check
	$(BIN)/pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# make bench NAME=stream
bench: install
	test -n "$(NAME)" || { echo "Which one? make bench NAME=... with one of: $(notdir $(basename $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py))))"; exit 2; }
	$(BIN)/python benchmarks/$(NAME).py

ui: install
	@echo "MLflow on http://127.0.0.1:5000 - stop with Ctrl-C"
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000 --workers 1

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache
