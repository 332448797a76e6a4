# SPDX-License-Identifier: Apache-2.0
# Needs Python 3.11+ and make; everything else is installed into .venv.

PYTHON ?= python3
VENV   ?= .venv
# Tests wait more than they compute.
TESTERS ?= 4
BIN    := $(VENV)/bin
SPECTRAL ?= 6.16.3
ESLINT   ?= 10.15.0
PAGE_SCRIPTS := airflow_provider_ibm_sessions/plugins/_page/static
# airflow standalone starts `airflow` by name.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help demo test announce lint types contract pytest faults fuzz kill-tests cluster-tests ui-tests spectral docs dist compat bench env clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: env  ## Run two Qiskit examples through Airflow on the emulator (UI=1: run all, leave Airflow running)
	@$(BIN)/python -m scripts.demo $(if $(UI),--ui)

test: announce lint types contract pytest $(if $(FAST),,faults)  ## Everything that CI checks (FAST=1: without what needs an Airflow)

announce:
	@echo "$(if $(FAST),make test FAST=1 takes about 3 minutes on two cores: lint, types and contracts; tests without an Airflow,make test takes about 20 minutes on two cores; FAST=1 is for the loop between)"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

contract: env
	$(BIN)/lint-imports --no-logo

pytest: env  ## All tests (COVER=1: and what of the package they run, which takes half as long again)
	$(BIN)/python -m pytest -n $(TESTERS) --dist worksteal -m "not ui$(if $(FAST), and not airflow and not standalone)" \
	  $(if $(COVER),--cov --cov-report=term)

faults: env  ## Run every operation under every fault; print what is lost (ONLY='create | 503': these cells)
	@$(if $(ONLY),,$(BIN)/python -m tests.integration.fault_matrix.mutation_check)
	@$(BIN)/python -m tests.integration.fault_matrix $(if $(ONLY),"$(ONLY)")

fuzz: env  ## Read 10,000 random responses in each way, and arguments (COUNT=500 SEED=1: so many, of that seed)
	@$(BIN)/python -m tests.client.fuzz $(or $(COUNT),10000) $(SEED)
	@$(BIN)/python -m tests.client.fuzz_arguments $(or $(COUNT),10000) $(SEED)

ui-tests: env  ## Look at the page in Airflow's UI with a browser (needs Chromium, node; pictures go to .ui, or SHOTS=folder)
	node --test tests/plugins/js/
	npx --yes eslint@$(ESLINT) -c scripts/eslint.config.mjs $(PAGE_SCRIPTS) tests/plugins/js
	UI_SHOTS=$(or $(SHOTS),.ui) $(BIN)/python -m pytest -m ui tests/integration/ui

kill-tests: env  ## Kill workers, schedulers and triggerers under airflow standalone
	@$(BIN)/python -m tests.integration.process_kills

cluster-tests: env  ## Kill, stop and cut off the parts of a Celery cluster (needs PostgreSQL and Redis; ONLY=ac: these scenarios)
	@$(BIN)/python -m tests.integration.cluster $(if $(ONLY),--only $(ONLY))

spectral: env  ## Check the OpenAPI description with Spectral (needs npx and its network)
	@mkdir -p .spectral && $(BIN)/python -m scripts.openapi > .spectral/openapi.json
	npx --yes @stoplight/spectral-cli@$(SPECTRAL) lint --fail-severity hint --ruleset scripts/spectral.yaml \
	  .spectral/openapi.json

docs: env  ## Build the documentation site into .site/html; a warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -c docs -b html . .site/html

dist: env  ## Build wheel and source distribution into dist/, and check them
	rm -rf dist && $(BIN)/python -m build --quiet --outdir dist && $(BIN)/python -m twine check --strict dist/*

compat:  ## Test on another Airflow (AIRFLOW=3.1, 3.2, 3.3, lowest or pre); needs uv and the cell's Python
	@$(firstword $(wildcard $(BIN)/python) $(PYTHON)) -m scripts.compat $(or $(AIRFLOW),3.1)

bench: env  ## Measure: import cost, a thousand sensors, one GET, paid idle seconds, the services, sweep, submission
	@AIRFLOW_HOME=$(abspath .bench) $(BIN)/python -m benchmarks $(ONLY)

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@echo "Installing Airflow, Qiskit and the tools into $(VENV), which takes 1 to 4 minutes the first time"
	@# uv is several times as fast as pip; where it cannot be had, pip does the same. Both are silent in a pipe.
	@(while sleep 8 > /dev/null && kill -0 $$$$; do echo "  ... still installing into $(VENV)"; done) 2> /dev/null & \
	  trap "kill $$!" EXIT; \
	  $(PYTHON) -m venv $(VENV) \
	  && { $(BIN)/python -m pip install --quiet --disable-pip-version-check uv \
	  && $(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev,docs,local]' \
	  || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs,local]'; }
	@touch $@

clean:  ## Remove everything that make has created
	rm -rf $(VENV) .venv-* .demo .bench .spectral .site .ui .coverage .hypothesis .*_cache dist
