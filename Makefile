# `make demo` and `make test` make the environment in .venv first, once, and again when pyproject.toml changes.

VENV ?= .venv
DEMO ?= demo
# --untrained: random weights instead of the shipped model; --bundle FOLDER: another model
DEMO_OPTIONS ?=
WORKERS ?= 2
# Extras of pyproject.toml besides `export`, PyTorch; on a machine with an NVIDIA GPU: make demo EXTRAS=cuda,tensorrt-rtx
EXTRAS ?= cpu,tensorrt-rtx
# Of `make gpu-test`; with NVIDIA's package index: GPU_EXTRAS=cuda,tensorrt-rtx,tensorrt
GPU_EXTRAS ?= cuda,tensorrt-rtx
GPU_VENV ?= .venv-gpu

# The first of these that is there and new enough makes the environment; PYTHON=... chooses another.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$name && break; done)

BIN := $(VENV)/bin
# One thread per worker: more workers than cores times threads only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -q

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all gpu-test gpu-test-run lint format clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-10s %s\n' "$$name" "$$text"; done

env: $(VENV)/developer.stamp ## Make the environment for developers in .venv

demo: $(VENV)/user.stamp ## Export the shipped model, build engines, make music: the main job, in small
	$(BIN)/python -m jukebox_deploy.cli.demo --out $(DEMO) $(DEMO_OPTIONS)

test: lint ## Check style and types, and run the tests
	$(PYTEST) -m "not gpu and not slow"

test-all: lint ## The same with the slow tests
	$(PYTEST) -m "not gpu"

# Asks the driver for a GPU before gigabytes are installed.
gpu-test: ## Run the tests that need an NVIDIA GPU, and a short benchmark on it, in an environment of their own
	@if test -n "$(PYTHON)" && ! $(PYTHON) -c 'import ctypes, sys; sys.exit(ctypes.CDLL("libcuda.so.1").cuInit(0) != 0)' 2>/dev/null; then \
		echo "No NVIDIA GPU with a driver was found, so nothing was installed, and no test in tests/gpu and no benchmark was run."; \
	else $(MAKE) VENV=$(GPU_VENV) EXTRAS=$(GPU_EXTRAS) gpu-test-run; fi

gpu-test-run: $(VENV)/developer.stamp
	$(BIN)/python -m pytest -q -rs --show-capture=no -m gpu --gpu-results benchmarks/results tests/gpu

lint: $(VENV)/developer.stamp ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/developer.stamp ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the environment, caches and the demo's output
	rm -rf $(VENV) $(GPU_VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found. Install one, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make environments. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/user.stamp: pyproject.toml tools/install_torch.py | $(BIN)/python
	@echo "Installing into $(VENV); this takes some minutes the first time."
	$(BIN)/python tools/install_torch.py
	$(BIN)/python -m pip install --quiet --editable '.[export,$(EXTRAS)]'
	@touch $@

$(VENV)/developer.stamp: $(VENV)/user.stamp
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS),dev]'
	@touch $@
