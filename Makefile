# Targets for people; CI runs `make check` and `make test`, nothing else.

PYTHON ?= python3
# Where pip takes PyTorch from instead of its usual index, for example the CPU build:
#   make app TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
TORCH := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' requirements.lock)

.DEFAULT_GOAL := help
.PHONY: help app test check bench format clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

app: $(VENV)/.reranker-asked  ## Set up what is missing and start the app on 127.0.0.1:8501
	@$(BIN)/second-look serve

test: $(VENV)/.dev  ## Set up what is missing and run the tests
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/python -m supply.licences
	$(BIN)/python -m supply.audit

bench: $(BENCH_VENV)/.rivals  ## Measure speed against rivals and write bench/RESULTS.md (15 to 25 minutes, a quiet machine)
	$(BENCH_VENV)/bin/python -m bench

format: $(VENV)/.dev  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment and caches; the library in data/ stays
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing into $(VENV) (once; PyTorch first) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Second Look needs Python 3.11 or newer")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements-dev.lock
	@$(PIP) -r requirements-dev.lock
	@touch $@

$(BENCH_VENV)/.rivals: requirements.lock requirements-dev.lock $(wildcard bench/requirements*.txt)
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) $(BENCH_VENV)/.dev
	@$(BENCH_VENV)/bin/python -m pip install --quiet -r bench/requirements.txt -c requirements.lock
	@$(BENCH_VENV)/bin/python -m pip install --quiet --no-deps -r bench/requirements-onnx.txt
	@touch $@

$(VENV)/.reranker-asked: $(VENV)/.installed
	@$(BIN)/second-look fetch --optional
	@touch $@
