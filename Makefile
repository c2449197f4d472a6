# Two commands do everything on a fresh machine: `make train` and `make test`.
# A virtual environment is made in .venv; packages come from the registry pip is set up for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?=
# What is installed as torch, and the index it comes from: a laptop without a GPU is spared gigabytes of CUDA by
# make train TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH ?= torch>=2.9,<2.14
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
STAMP := $(VENV)/.installed

.PHONY: train train-vl test check install base base-vl bench fuzz docs clean

train: $(STAMP)  ## train the embedded default, end to end; RUN="--seed 1 --run-dir runs/a" passes options
	@$(BIN)/spark-rl train $(RUN)

train-vl: $(STAMP)  ## train the embedded default that sees
	@$(BIN)/spark-rl train --config tiny-vl $(RUN)

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest

check: $(STAMP)  ## lint, format and types: what CI checks before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)  ## the virtual environment alone

$(STAMP): pyproject.toml constraints.txt
	@echo 'virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@echo 'installing $(TORCH)$(if $(TORCH_INDEX), from $(TORCH_INDEX)) (once, about a minute)'
	@$(PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(TORCH)'
	@echo 'installing spark-rl and what it needs (once, about a minute)'
	@$(PIP) --editable '.[dev]'
	@touch $@

base: $(STAMP)  ## make the embedded base again, from random weights (about 15 minutes)
	$(BIN)/python -m spark_rl.embedded.build

base-vl: $(STAMP)  ## make the embedded base that sees again (about 15 minutes)
	$(BIN)/python -m spark_rl.embedded.build_vision

bench: $(STAMP)  ## the speed measurements of benchmarks/
	$(BIN)/python benchmarks/rollout_speed.py
	$(BIN)/python benchmarks/grading.py
	$(BIN)/python benchmarks/shared_prompt.py

fuzz: $(STAMP)  ## 200,000 pairs of answers of known truth: false rewards and false refusals of the verifier
	$(BIN)/python benchmarks/verifier_fuzz.py --pairs 200000 --alone

docs: $(STAMP)  ## write docs/configuration.md from the settings' own docstrings
	$(BIN)/spark-rl config --markdown docs/configuration.md

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
