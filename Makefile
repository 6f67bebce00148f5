# Set up, try, test. Everything runs in VENV (made by `make install`) and nothing is installed elsewhere.
VENV ?= .venv
OUT ?= runs/quickstart
BIN := $(VENV)/bin
STAMP := $(VENV)/.rlpost-installed

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-all lint bench-cpu clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  VENV=$(VENV)  OUT=$(OUT)  TORCH_INDEX=URL of PyTorch's own CPU wheel index  PYTHON=the Python to use"

$(STAMP): pyproject.toml $(wildcard scripts/*)
	scripts/install_cpu.sh $(VENV)

install: $(STAMP) ## make VENV and install everything for a machine without a GPU
	@echo "Ready: $(BIN)/rlpost doctor"

quickstart: $(STAMP) ## install, then train a small model by reinforcement learning and see it learn
	$(BIN)/rlpost train recipes/quickstart.yaml --out $(OUT)
	@echo "The report, with curves and every rollout: $(OUT)/report.html"

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint ## the fast tier: lint and all tests that are not slow
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow"

test-all: $(STAMP) ## every test; PYTEST='-m slow' leaves out those of the fast tier
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(PYTEST)

bench-cpu: $(STAMP) ## seconds a step beside TRL's GRPOTrainer, on this machine
	$(BIN)/rlpost bench step_cpu --completions 8 --tokens 32
	$(BIN)/rlpost bench step_cpu --completions 64 --tokens 64 --set rollout.workers=2 engine.threads=1

clean: ## remove caches and build outputs; VENV and runs/ stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
