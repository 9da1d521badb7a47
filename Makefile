# Gradprobe: `make demo` shows it, `make test` checks it; both set everything up by themselves.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Everything that a run leaves behind: database, broker, logs, data sets.
DATA ?= $(CURDIR)/.data
TORCH_VERSION ?= 2.13.0
# Tests wait for processes half of their time, so there are two more of them than processors.
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 2)')
PIP := $(BIN)/python -m pip install --disable-pip-version-check -qq --no-compile

export GRADPROBE_DATA_DIRECTORY := $(DATA)
# The compiled statistics are kept here for all processes of all tests.
export NUMBA_CACHE_DIR := $(DATA)/compiled

.PHONY: help demo up test check lint types contracts compiled imported pytest thorough screenshots docs documents figures dashboard openapi \
  format faults chaos recovery test-compose fuzz bench bench-run bench-faults bench-scale data clean integrations integrations-run

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.embedded data ## Train sigmoid, ReLU and leaky ReLU side by side and show where gradients vanish
	@$(BIN)/gradprobe demo

up: $(VENV)/.embedded data ## Start the whole stack on this machine, at http://127.0.0.1:8000
	@$(BIN)/gradprobe up

# What needs the network, what needs a processor, and what is compiled once for all tests go on side by side.
test: $(VENV)/.embedded ## Lint, types, import contracts, then all tests that need neither Docker nor a GPU
	@$(MAKE) --no-print-directory --jobs=3 $(VENV)/.test compiled data
	@$(MAKE) --no-print-directory --jobs=3 check imported $(VENV)/.browser
	@$(MAKE) --no-print-directory pytest

check: lint types contracts

lint: $(VENV)/.test
	@echo "== lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted; run: make format"; exit 1; }

types: $(VENV)/.test
	@echo "== types"
	@$(BIN)/mypy

contracts: $(VENV)/.test
	@echo "== import contracts"
	@$(BIN)/lint-imports --no-logo

compiled: $(VENV)/.embedded
	@$(BIN)/python -c 'from gradprobe.probe import warm_up; warm_up()'
	@$(BIN)/python -c 'from worker.stack.warming import warm_up; warm_up()'

# So that bytecode is written once, and not by every process of the tests for itself; what fails here fails there.
imported: $(VENV)/.test
	@$(BIN)/python -m pytest --collect-only --quiet >/dev/null 2>&1 || true

pytest: $(VENV)/.test $(VENV)/.browser data
	@echo "== tests"
	@$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup -m "not compose and not faults and not documents and not integrations and not large and not thorough" $(ARGUMENTS)

faults: $(VENV)/.test data ## Each fault by itself, on both databases: kill, pause, cut off, fill up (a quarter of an hour)
	@$(BIN)/python -m pytest -m faults $(ARGUMENTS)

thorough: $(VENV)/.test $(VENV)/.browser $(VENV)/.proxy data ## What the tests of `make test` show once, at length or in other variants (seven minutes)
	@$(BIN)/python -m pytest -m "(thorough or large) and not integrations" $(ARGUMENTS)

# The same seed gives the same faults in the same order, not at the same instant.
chaos: $(VENV)/.test data ## 200 experiments under 104 random faults on each database, then the audit (half an hour)
	@$(BIN)/python -m benchmarks.chaos --database sqlite $(ARGUMENTS)
	@$(BIN)/python -m benchmarks.chaos --database postgresql $(ARGUMENTS)

recovery: $(VENV)/.test data ## Kill the only worker and measure how long until the next new step (ARGUMENTS=--help)
	@$(BIN)/python -m benchmarks.chaos.recovery $(ARGUMENTS)

test-compose: $(VENV)/.test data ## Bring the compose stack up on a real Docker engine, run an experiment, take it down
	@$(BIN)/python -m pytest tests/compose -m compose $(ARGUMENTS)

fuzz: $(VENV)/.test ## Twenty thousand generated requests against a running service: all checks, stateful links
	@$(BIN)/python -m tests.fuzz.run $(ARGUMENTS)

# The peers bring a hundred packages along: an environment beside the project's, so that what is tested stays as it is.
bench: ## Measure speed, memory and size against TensorBoard, wandb and MLflow (half an hour; ARGUMENTS=--quick)
	@$(MAKE) --no-print-directory VENV=.venv-bench bench-run

bench-run: $(VENV)/.bench data
	@$(BIN)/python -m benchmarks $(ARGUMENTS)

bench-faults: $(VENV)/.embedded data ## Judge 245 labelled and 500 random experiments, ours and other tools' rules (20 minutes the first time)
	@$(BIN)/python -m benchmarks.faults $(ARGUMENTS)

bench-scale: $(VENV)/.embedded compiled data ## Stacks, sweeps and worker processes against plain loops and scripts (a quarter of an hour)
	@$(BIN)/python -m benchmarks.scale $(ARGUMENTS)

# Like the peers of the benchmarks, trainers and models bring many packages along; Swift is four servers to start.
integrations: ## Lightning, Hugging Face's trainer, models of torchvision, timm and Transformers, MLflow, wandb, Swift (seven minutes)
	@$(MAKE) --no-print-directory VENV=.venv-integrations integrations-run

integrations-run: $(VENV)/.integrations
	@$(BIN)/python -m pytest -m integrations tests/integrations tests/integration/objects $(ARGUMENTS)

screenshots: $(VENV)/.test $(VENV)/.browser data ## Take the documents' pictures of the dashboard
	@$(BIN)/python -m tests.acceptance.screenshots docs/screenshots

docs: $(VENV)/.test ## Build the documents' site into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

documents: $(VENV)/.test $(VENV)/.browser data ## Run every code block of README and of the documents, the site, the TypeScript client (four minutes)
	@$(BIN)/python -m pytest tests/acceptance/test_documents.py tests/acceptance/test_typescript.py $(ARGUMENTS)

figures: $(VENV)/.test data ## Run the tutorial and write its figures, and what it prints, into it
	@$(BIN)/python -m tests.acceptance.documents docs/tutorial.md

dashboard: $(VENV)/.test $(VENV)/.browser data ## Test the dashboard, also with twenty runs compared and a thousand layers
	@$(BIN)/python -m pytest tests/acceptance/test_dashboard.py tests/acceptance/test_dashboard_runs.py \
	  tests/acceptance/test_accessibility.py tests/acceptance/test_api_page.py $(ARGUMENTS)

openapi: $(VENV)/.test ## Write openapi/openapi.json from the code
	@$(BIN)/python -m service.openapi openapi/openapi.json

format: $(VENV)/.test ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

data: $(VENV)/.embedded ## Fetch MNIST, verify it, keep it in the data directory
	@$(BIN)/python -m worker.data mnist

clean: ## Remove the virtual environment and everything that runs left behind
	rm -rf $(VENV) .venv-bench .venv-integrations $(DATA) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Gradprobe needs Python 3.11 or newer; set PYTHON=/path/to/python")'
	@echo "== virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# The CPU build where the configured package sources have it; otherwise their default build, which also runs on a CPU
# but is several gigabytes where it brings CUDA along.
$(VENV)/.torch: $(BIN)/python
	@echo "== PyTorch $(TORCH_VERSION) (a minute or two the first time)"
	@$(PIP) numpy "torch==$(TORCH_VERSION)+cpu" -c constraints.txt 2>/dev/null \
	  || $(PIP) numpy "torch==$(TORCH_VERSION)" -c constraints.txt
	@touch $@

$(VENV)/.embedded: $(VENV)/.torch pyproject.toml constraints.txt
	@echo "== Gradprobe and what it needs"
	@$(PIP) -e ".[embedded]" -c constraints.txt
	@touch $@

$(VENV)/.test: $(VENV)/.embedded
	@echo "== what the tests need"
	@$(PIP) -e ".[test]" -c constraints.txt
	@touch $@

# Playwright's own browser; where that is refused, Debian's. Without either the dashboard's tests fail, and say so.
$(VENV)/.browser: $(VENV)/.test
	@$(BIN)/python -m tests.acceptance.browser
	@touch $@

# The system's nginx; where there is none, Debian's, unpacked into the environment. Without either the tests of several
# services fail, and say so.
$(VENV)/.proxy: $(VENV)/.test
	@$(BIN)/python -m tests.acceptance.proxy
	@touch $@

$(VENV)/.integrations: $(VENV)/.test
	@echo "== Lightning, Transformers, timm, torchvision, MLflow, wandb, OpenStack Swift"
	@$(PIP) -e ".[lightning,transformers,models,mlflow,wandb,swift]" -c constraints.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.embedded
	@echo "== what is measured against: TensorBoard, wandb, MLflow"
	@$(PIP) -e ".[bench]" -c constraints.txt
	@touch $@
