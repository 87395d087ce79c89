# Everything a fresh machine needs: Python 3.11+ with venv, make; Java 17 and Maven for the Kafka tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: replay discover test test-fast chaos lint format dashboards check-dashboards audit-deps lock clean

replay: $(VENV)/.runtime  ## publish the seed articles, watch them become counts
	$(BIN)/stancewatch replay seeds

discover: $(VENV)/.discover  ## emerging topics of the seed articles; BERTopic without torch
	$(BIN)/stancewatch discover seeds

# Several processes at once; all tests of a file in one of them, so that they share their broker; in the order of
# tests/conftest.py, where xdist would begin with the files that have most tests.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

test: $(VENV)/.dev  ## all tests; those on Apache Kafka skip without Java 17 or Maven, those of the page without Chromium
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(VENV)/.dev  ## the tier without brokers
	$(BIN)/python -m pytest $(PARALLEL) tests/unit tests/contract

chaos: $(VENV)/.dev  ## random faults on three Kafka brokers for MINUTES (10), every count checked after each
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dashboards: $(VENV)/.dev  ## write monitoring/grafana/dashboards/*.json from the code beside them
	$(BIN)/python -m monitoring.grafana.build

check-dashboards: $(VENV)/.dev  ## compare them with Grafana's published types (needs Node.js)
	$(BIN)/python -m monitoring.grafana.typecheck

audit-deps: $(VENV)/audit/.installed  ## known vulnerabilities of what the locks pin
	$(VENV)/audit/bin/python .ci/audit_deps.py requirements.lock requirements-discover.lock requirements-dev.lock requirements-audit.lock

$(VENV)/audit/.installed: requirements-audit.lock
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.lock
	@touch $@

$(VENV)/.runtime: requirements.lock pyproject.toml
	@echo "setting up $(VENV) (once) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The lock is whole, and BERTopic's own list asks for torch (see tool.uv): hence --no-deps.
$(VENV)/.discover: $(VENV)/.runtime requirements-discover.lock
	$(PIP) --no-deps -r requirements-discover.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.discover requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	@touch $@

lock:  ## pin anew, with hashes and without addresses (needs uv)
	uv lock --upgrade
	uv export --quiet --no-default-groups --group build --no-emit-project --no-header --no-annotate -o requirements.lock
	uv export --quiet --no-default-groups --extra discover --no-emit-project --no-header --no-annotate -o requirements-discover.lock
	uv export --quiet --only-group dev --no-emit-project --no-header --no-annotate -o requirements-dev.lock
	uv export --quiet --only-group audit --no-emit-project --no-header --no-annotate -o requirements-audit.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
