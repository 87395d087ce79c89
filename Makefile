# Everything a fresh machine needs: Python 3.11+ with venv, make; Java 17 and Maven for the Kafka tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: replay test test-fast lint format lock clean

replay: $(VENV)/.runtime  ## publish the seed articles, watch them become counts
	$(BIN)/stancewatch replay seeds

test: $(VENV)/.dev  ## all tests; those on Apache Kafka skip without Java 17 or Maven
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev  ## the tier without brokers
	$(BIN)/python -m pytest tests/unit tests/contract

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.runtime: requirements.lock pyproject.toml
	@echo "setting up $(VENV) (once) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	$(PIP) -r requirements-dev.lock
	@touch $@

lock:  ## pin anew, with hashes and without addresses (needs uv)
	uv lock --upgrade
	uv export --quiet --no-default-groups --group build --no-emit-project --no-header --no-annotate -o requirements.lock
	uv export --quiet --only-group dev --no-emit-project --no-header --no-annotate -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
