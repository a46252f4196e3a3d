# make bench   install and run the main job: predictions, a CPU measurement and the report; prints the files written
# make test    install and run ruff, mypy and the whole test suite
# make quick   run the fast tests (seconds)
# make thorough  run all cases of the tests of which the suite runs some: about 20 minutes
# make test-python  a short test under Python 3.12 or 3.13 with the newest libraries, where this machine has one
# make studies compile and report the studies: about 20 minutes, seconds when repeated
# make perf    time the jax engine on one CPU device against transformers on torch, on all cores or THREADS=n
# make docs    build the documentation in site/; needs no network once its extra is installed
# make format  format the code and fix lint
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Folders of the main job: its rows and its report.
RESULTS ?= results/main
REPORT ?= reports/main
# One more than there are cores: many tests wait for processes.
WORKERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
# A file's tests share a worker, longest files first: tests/conftest.py.
GROUPED := --dist loadgroup --no-loadscope-reorder
# Cores for make perf; 0 is all.
THREADS ?= 0

.PHONY: help bench test thorough test-python lint quick perf studies docs format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# make/make/p' Makefile

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version); shardbench needs 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "== setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "== installing shardbench with jax, matplotlib, plotly, wandb (versions of constraints.txt)"
	@$(PIP) install --quiet -c constraints.txt -e '.[jax,report,dashboard,wandb,fit]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.bench
	@echo "== installing the test dependencies (versions of constraints.txt)"
	@$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "== installing the documentation dependencies (versions of constraints.txt)"
	@$(PIP) install --quiet -c constraints.txt -e '.[docs,report]'
	@touch $@

bench: $(VENV)/.bench
	@echo "== 1/4 published measurements and their predictions; PaLM and MT-NLG against FasterTransformer"
	@$(BIN)/shardbench run +sweep=[published,comparison] results_dir=$(RESULTS) print=none
	@echo "== 2/4 PaLM 8B, 62B and 540B over chips, batch and context (predicted)"
	@$(BIN)/shardbench run +sweep=palm results_dir=$(RESULTS) print=none
	@echo "== 3/4 a small model on 8 virtual devices of this machine (measured)"
	@$(BIN)/shardbench run +sweep=virtual-devices results_dir=$(RESULTS) print=none
	@echo "== 4/4 the report"
	@$(BIN)/shardbench report results_dir=$(RESULTS) out=$(REPORT) wandb=auto
	@$(BIN)/shardbench report comparison results_dir=$(RESULTS) out=$(REPORT)
	@$(BIN)/shardbench report paper 'results_dir=[$(RESULTS),results/studies,results/calibration]' out=$(REPORT)

lint: $(VENV)/.test
	@echo "== ruff, mypy"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

test: lint
	@echo "== pytest, the whole suite"
	@$(BIN)/python -m pytest -n $(WORKERS) $(GROUPED) --durations=10 --durations-min=1

test-python:
	@.ci/other-python $(if $(findstring command,$(origin PYTHON)),$(PYTHON))

thorough: $(VENV)/.test
	@$(BIN)/python -m pytest -n $(WORKERS) $(GROUPED) --thorough -m thorough

quick: $(VENV)/.test
	@$(BIN)/python -m pytest -n $(WORKERS) $(GROUPED) -m "not slow"

studies: $(VENV)/.test
	@echo "== study-targets, with traces"
	@$(BIN)/shardbench run +sweep=study-targets results_dir=results/studies engine.trace_dir=results/studies/traces print=none
	@for study in 1d-2d attention block collectives generations prefill weights gpu speculative; do \
	  echo "== study-$$study"; \
	  $(BIN)/shardbench run +sweep=study-$$study results_dir=results/studies print=none || exit; \
	done
	@$(BIN)/shardbench run +sweep=study-attention model=palm-540b-multihead results_dir=results/studies print=none
	@$(BIN)/shardbench report studies results_dir=results/studies out=reports

perf: $(VENV)/.test
	@mkdir -p .benchmarks
	@$(BIN)/python -m pytest perf -q --threads $(THREADS) --benchmark-json=.benchmarks/perf.json --benchmark-columns=median,iqr,rounds

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "documentation in site/index.html; its search needs a server: $(BIN)/python -m http.server --directory site"

format: $(VENV)/.test
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:
	@echo "== removing $(VENV) and caches; results/ and reports/ stay"
	@rm -rf $(VENV) $(VENV)-3.* dist site .mypy_cache .ruff_cache .hypothesis .benchmarks
