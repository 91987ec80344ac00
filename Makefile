# The commands of a checkout: `make` alone lists them. Each that needs the environment makes it first.
.DEFAULT_GOAL := help
.PHONY: help env demo test test-long test-ray test-deepspeed test-gpu-env test-unit lint audit docs bench clean

VENV := .venv
PY := $(VENV)/bin/python

# Telemetry and look-ups of the dependencies are off unless you set these yourself (geozero/common/process.py, QUIET_AND_OFFLINE).
export HF_HUB_OFFLINE ?= 1
export TRANSFORMERS_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export DO_NOT_TRACK ?= true
export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true
export VLLM_NO_USAGE_STATS ?= 1
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DVC_NO_ANALYTICS ?= 1
export TOKENIZERS_PARALLELISM ?= false

# Where there is no GPU, one thread is 5 to 30 times faster than two for a model as small as the tests' and the demo's.
ONE_THREAD := OMP_NUM_THREADS=1

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: ## make .venv from the lock that fits this machine (at once when nothing changed); PYTHON=... names the Python
	@python=$$($(SHELL) requirements/find_python.sh $(VENV) $(PYTHON)) && exec "$$python" requirements/make_env.py $(VENV)

demo: env ## the whole line, small: data, difficulty, SFT, A²GRPO, evaluation, a page to look at
	$(ONE_THREAD) $(PY) -m flows.pipeline

test: env ## the tests, what was skipped and why, and the line coverage of geozero (not measured with ARGS)
	$(ONE_THREAD) $(PY) -m pytest --timeout=900 --durations=10 -n 2 --dist worksteal $(if $(ARGS),,--cov --cov-report=) \
	  -m "not long and not ray and not deepspeed" $(ARGS)

test-long: env ## the tests that `make test` leaves out for their time: a whole stack, killed workers, sharded sampling
	$(PY) requirements/hashes.py install requirements/real_shape.txt
	$(ONE_THREAD) $(PY) -m pytest --timeout=900 -m long $(ARGS)

test-ray: env ## the tests of the extra `ray`, which this installs
	$(PY) requirements/hashes.py install requirements/ray.txt
	$(ONE_THREAD) $(PY) -m pytest --timeout=900 -m ray $(ARGS)

test-deepspeed: env ## the tests of the extra `deepspeed`, which this installs
	$(PY) requirements/hashes.py install requirements/deepspeed.txt --no-build-isolation
	$(ONE_THREAD) $(PY) -m pytest --timeout=900 -m deepspeed $(ARGS)

# The folders are those whose slow tests start ms-swift, an engine or the large packages. vLLM's own tests are skipped: its CUDA
# build does not start on a CPU.
test-gpu-env: PY := .venv-gpu/bin/python
test-gpu-env: ## the GPU environment, made in .venv-gpu and tried on a machine without a GPU (30 GB, half an hour)
	GEOZERO_ENV=gpu $(MAKE) env VENV=.venv-gpu
	$(PY) -m geozero.cli doctor
	@for profile in profiles/*.yaml; do for stage in sft a2grpo; do \
	  echo "== geozero $$stage --params $$profile --dry-run"; $(PY) -m geozero.cli $$stage --params $$profile --dry-run || exit 1; \
	done; done
	$(ONE_THREAD) $(PY) -m pytest --timeout=900 -n 2 --dist worksteal -m "not slow and not ray and not deepspeed" $(ARGS)
	$(ONE_THREAD) $(PY) -m pytest --timeout=900 -n 2 --dist worksteal -m "slow and not long and not ray and not deepspeed" $(ARGS) \
	  tests/environment tests/engines tests/inference tests/difficulty tests/training

test-unit: env ## the quick tests: nothing that starts ms-swift, vLLM, DVC, Prefect or MLflow
	$(ONE_THREAD) $(PY) -m pytest --timeout=60 -m "not slow" $(ARGS)

lint: env ## style, formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict geozero flows benchmarks docs/_ext

audit: ## known vulnerabilities of everything pinned, which an index is asked for; pip-audit in an environment of its own
	python3 -m venv .geozero/audit
	.geozero/audit/bin/python requirements/hashes.py install requirements/audit.txt
	@status=0; for file in requirements/*.lock requirements/*.txt; do \
	  echo "== $$file"; .geozero/audit/bin/pip-audit --progress-spinner off --no-deps --disable-pip -r $$file || status=1; \
	done; exit $$status

docs: env ## the documentation site in docs/_build, with the API reference; a warning fails it
	$(PY) requirements/hashes.py install requirements/docs.txt
	$(PY) -m sphinx -q -W --keep-going -j auto -b html -c docs -d docs/_build/.doctrees . docs/_build
	@echo "open docs/_build/index.html"

bench: env ## the figures, one benchmark after another, after `make demo` (not `ablation`, which takes hours, nor `variants`)
	@set -e; for name in metrics page corpus near store rewards step_time adaptive sampling kills orchestration; do \
	  echo "== $$name"; $(ONE_THREAD) $(PY) -m benchmarks.$$name; \
	done

# Never here: data/samples and models/ (in git, or put there by you), .dvc/cache (`dvc gc`).
MADE := $(filter-out data/samples data/samples/,$(wildcard data/*)) $(wildcard runs reports mlflow.db* mlartifacts mlruns \
  .coverage* docs/_build \
  .prefect .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks)

clean: ## what runs have made (data/*, runs, reports, mlflow.db, caches): lists it, asks, removes it; YES=1 asks nothing
	@if [ -z "$(strip $(MADE))" ]; then echo "nothing to remove"; exit 0; fi; \
	du -sh $(MADE); \
	if [ "$(YES)" != 1 ]; then \
	  if [ ! -t 0 ]; then echo "make clean: nothing removed; say YES=1 to remove these" >&2; exit 1; fi; \
	  printf "remove these? [y/N] "; read -r answer; [ "$$answer" = y ] || { echo "nothing removed"; exit 1; }; \
	fi; \
	rm -rf -- $(MADE)
