# Everything here sets itself up: Python 3.11+, make and git are enough. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .tools/bin/uv
NAME ?=
# How many files of tests run side by side; the tests of one share the servers it starts.
WORKERS ?= 2

# Tests and benches must not use more threads than they say.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint fmt type layers bench docs clean setup

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-8s %s\n", $$1, $$2}'

# uv lives in an environment of its own, so that the project's holds nothing but what is locked.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.locked: uv.lock pyproject.toml | $(UV)
	@$(UV) sync --quiet --frozen --python "$$(command -v $(PYTHON))"
	@touch $@

$(VENV)/.locked-all: uv.lock pyproject.toml | $(UV)
	@$(UV) sync --quiet --frozen --python "$$(command -v $(PYTHON))" --group test --group dev
	@touch $@ $(VENV)/.locked

setup: $(VENV)/.locked-all ## Install everything that development needs

demo: $(VENV)/.locked ## Watch the whole loop once through (ARGS="--exit" to stop at the end)
	@$(BIN)/loopwright demo $(ARGS)

test: $(VENV)/.locked-all ## Run all tests; what a machine lacks is skipped with its reason
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: lint type layers test ## All that must hold before a change lands

lint: $(VENV)/.locked-all ## Style and formatting
	@$(BIN)/ruff check src tests benches
	@$(BIN)/ruff format --check src tests benches

fmt: $(VENV)/.locked-all ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet src tests benches || true
	@$(BIN)/ruff format --quiet src tests benches

type: $(VENV)/.locked-all ## Types, strictly
	@$(BIN)/mypy

layers: $(VENV)/.locked-all ## Imports point down only
	@$(BIN)/lint-imports --no-cache

bench: $(VENV)/.locked-all ## Run one bench: make bench NAME=pipelines
	@test -f "benches/$(NAME).py" || { echo "There is no bench '$(NAME)'. Benches: $$(ls benches/*.py | xargs -n1 basename | sed 's/\.py//' | tr '\n' ' ')"; exit 2; }
	@$(BIN)/python benches/$(NAME).py $(ARGS)

docs: $(VENV)/.locked-all ## Check that the documentation says what the code does
	@$(BIN)/python -m pytest tests/docs -q

clean: ## Remove what was built and installed
	@rm -rf $(VENV) .tools build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage demo-report.json
	@find src tests benches -name __pycache__ -type d -prune -exec rm -rf {} +
