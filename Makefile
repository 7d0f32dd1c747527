# Threads of OpenBLAS and of XLA in each other's way cost more than they bring.
export OPENBLAS_NUM_THREADS ?= 1

VENV := .venv
BIN := $(VENV)/bin
# The first of these that is 3.11 or newer; only read when there is no .venv yet.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null && echo $$p && break; done)
SETUP := $(VENV)/.setup-done

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow lint bench docs package clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SETUP)  ## Make .venv with dartjax and what its tests need (pip only)

# The stamp is older than pyproject.toml only when the dependencies may have changed.
$(SETUP): pyproject.toml
	@test -x $(BIN)/python || { python="$(PYTHON)"; \
	  "$${python:-false}" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
	    echo "dartjax needs Python 3.11 or newer, found $${python:-none}: install it, or run make PYTHON=/path/to/python" >&2; \
	    exit 1; }; \
	  echo "making $(VENV) with $$python"; "$$python" -m venv $(VENV); }
	@echo "installing dartjax and its dependencies (some minutes)"
	@$(BIN)/python -m pip install --quiet -e ".[test,io,data,robot]"
	@touch $@

demo: setup  ## Reconstruct vertebrae from two X-rays; report in runs/demo/report.html
	$(BIN)/python -m experiments.reconstruct --demo --seed=3 --nobaselines --out=runs/demo --overwrite

test: setup  ## Run the quick tests
	$(BIN)/python -m pytest

test-slow: setup  ## Run every test, the long ones too
	$(BIN)/python -m pytest -m "slow or not slow"

lint: setup  ## Check style, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/typos

bench: setup  ## Time dartjax against its peers; tables in runs/bench
	@for name in splat drr radiograph reconstruct kinematics; do \
	  echo "== $$name"; $(BIN)/python -m benchmarks.$$name --out=runs/bench/$$name.json || exit 1; done

docs: setup  ## Build the documentation into site/
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/mkdocs build --strict

package:  ## Build the wheel and the source distribution, and try both in empty environments
	.ci/wheel

clean:  ## Remove caches, built files and what killed runs left (never .venv or your runs)
	rm -rf site dist build .pytest_cache .ruff_cache runs/.*.partial
	find dartjax experiments tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
