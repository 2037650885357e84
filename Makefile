# The four commands: run, test, check, bench. Each makes the environment first when it has to.
# The first Python from 3.11 on that was built with its optimisations, which what pyenv compiles was not, else python3:
# a request costs a fifth less on it (docs/decisions/0038).
PYTHON ?= $(shell for each in python3 $$(type -ap python3 python3.{14..11}); do $$each -c $(OPTIMISED) 2>/dev/null && \
	echo $$each && exit; done; echo python3)
OPTIMISED := 'import ensurepip, sys, sysconfig; sys.exit(sys.version_info < (3, 11) or sys.base_prefix != "/usr" \
	and "--enable-optimizations" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""))'
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
NODE_CLIENTS := tests/clients/node
KILLS ?= 200
SEED ?= 1
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: run test check conformance clients kill bench bench-routing lock env clean

run: env                     ## start Weir with a simulated fleet and print how to talk to it
	@$(BIN)/weir demo

# Tests start hundreds of processes: what they import is compiled once, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
test: env                    ## all tests; real servers come from wheels, nothing needs to run
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder tests

check: env                   ## format, lint, types, import layers, sizes
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m pytest -q tests/architecture

conformance: env clients     ## official clients against Weir; writes docs/compatibility.md, exits 1 when it was another
	@$(BIN)/python -m tests.clients.conformance

clients: $(NODE_CLIENTS)/node_modules/.package-lock.json ## the official clients for Node, as locked

$(NODE_CLIENTS)/node_modules/.package-lock.json: $(NODE_CLIENTS)/package-lock.json
	@npm ci --silent --prefix $(NODE_CLIENTS)
	@touch $@

kill: env                    ## kill real processes under load and compare three books; KILLS=200 SEED=1
	@$(BIN)/python -m tests.kill --kills $(KILLS) --seed $(SEED)

screenshots: export PYTHONDONTWRITEBYTECODE :=
screenshots: env            ## pictures of every page and pages.json in build/screenshots; exits 1 on a missed bar
	@$(BIN)/python -m tests.ui.screenshots $(SCREENSHOTS)

bench: env .venv-bench/.made ## the benchmarks beside the peers; writes docs/bench/latest.json, then judge with bench/check.py
	@$(BIN)/python -m bench.run

bench-routing: env          ## what a routing decision costs in CPU; exits 1 on a missed bar
	@$(BIN)/python -m bench.routing

env: .venv/.made

# An environment of another interpreter cannot be made over.
WHICH := 'import sys; print(sys.base_prefix, sys.version_info)'
AFRESH = test "$$($(1)/bin/python -c $(WHICH) 2>&1)" = "$$($(PYTHON) -c $(WHICH))" || rm -rf $(1)

.venv/.made: requirements-dev.lock pyproject.toml
	@$(call AFRESH,.venv)
ifneq ($(UV),)
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	@$(BIN)/python -m dashboards.compiled
	@touch $@

.venv-bench/.made: bench/requirements.lock
	@$(call AFRESH,.venv-bench)
ifneq ($(UV),)
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-bench
	@$(UV) pip install --quiet --python .venv-bench/bin/python --require-hashes -r bench/requirements.lock
else
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements.lock
endif
	@touch $@

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
lock:                        ## make the lock files anew (needs uv)
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra litellm -c requirements-dev.lock -o requirements-image.lock
	$(LOCK) requirements-build.in -c requirements-dev.lock -o requirements-build.lock
	$(LOCK) bench/requirements.in -o bench/requirements.lock

clean:
	rm -rf .venv .venv-bench .weir .mypy_cache .ruff_cache .pytest_cache .hypothesis
