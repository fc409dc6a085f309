# Everything lives inside the checkout: .venv (packages of requirements-dev.lock), .cache (servers for tests), dist.
SHELL := /bin/sh
PYTHON ?= python3
PY := .venv/bin/python
PYTEST_ARGS ?=
ONCE ?=
ROW ?=
RUNS ?= 3

# Tests start many processes, which should not compile everything anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-lowest soak lint format release bench docs servers lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 12

.venv/.runtime: pyproject.toml requirements-dev.lock scripts/venv
	@PYTHON="$(PYTHON)" sh scripts/venv runtime

.venv/.dev: .venv/.runtime
	@PYTHON="$(PYTHON)" sh scripts/venv dev

demo: .venv/.runtime ## See a real cache do real work, in about a minute (ONCE=1: no pause at the end)
	@ONCE="$(ONCE)" $(PY) -m nearcache.demo

# What kills processes, or has to happen in time, is tried last and by itself. The other tests share two cores. Only the
# first are measured for coverage: promises are tried at full speed.
PYTEST := $(if $(CI),$(PY) -m coverage run,$(PY)) -m pytest
QUICK := not slow and not soak
TWO := -n 2 --dist worksteal
# Files whose long tests are about what is right, not about when it happens, and may share the cores.
SHARES := $(wildcard tests/promises/test_*schedules.py tests/promises/test_limit*.py tests/promises/test_sessions*.py) \
	tests/promises/test_model.py tests/promises/test_own_writes.py tests/promises/test_replies.py \
	tests/faults/test_hostile.py tests/unit

test: .venv/.dev servers ## Run the tests (with CI set, also the coverage they reach)
ifdef CI
	$(PY) -m coverage erase
endif
ifeq ($(strip $(PYTEST_ARGS)),)
	$(PYTEST) -m "$(QUICK) and not alone" $(TWO) --ignore tests/promises
	$(PY) -m pytest -m "$(QUICK) and not alone" $(TWO) tests/promises
	$(PY) -m pytest -m "$(QUICK) and alone"
else
	$(PYTEST) -m "$(QUICK)" $(PYTEST_ARGS)
endif
ifdef CI
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report
	$(MAKE) test-lowest
endif

# pytest exits with 5 when no test carries the mark, which is no failure.
test-slow: .venv/.dev servers ## Run the tests that take long
ifeq ($(strip $(PYTEST_ARGS)),)
	$(PY) -m pytest -m "slow and not soak" $(TWO) $(SHARES)
	$(PY) -m pytest -m "slow and not soak" $(addprefix --ignore=,$(SHARES))
else
	$(PY) -m pytest -m "slow and not soak" $(PYTEST_ARGS) || test $$? -eq 5
endif

soak: .venv/.dev servers ## Run the tests that take minutes on purpose
	$(PY) -m pytest -m soak --timeout=0 $(PYTEST_ARGS) || test $$? -eq 5

lint: .venv/.dev ## Check style, types, imports and the rules of the house
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --cache-dir .cache/import-linter
	$(PY) -m tools.lint
	$(PY) -m tools.types
	$(PY) -m tools.release

format: .venv/.dev ## Format the code and sort imports
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

test-lowest: .venv/.dev servers ## Run the tests with the lowest allowed version of every direct dependency
	$(PY) -m tools.release lowest -m "not slow and not soak" $(TWO) tests/unit tests/wire tests/conformance $(PYTEST_ARGS)

release: .venv/.dev ## Build sdist and wheel, and try them in an empty environment
	$(PY) -m tools.release

bench: .venv/.dev servers ## Measure, beside what people use today (ROW=help lists the groups)
	$(PY) -m bench $(ROW) --runs $(RUNS)

docs: .venv/.dev ## Run every example of the README and of docs/
	$(PY) -m pytest tests/docs

servers: ## Bring the servers that tests start on free ports and sockets, inside the checkout
	@if test -e scripts/servers; then scripts/servers; fi

lock: ## Compile requirements-dev.lock anew
	$(PY) -m uv pip compile --quiet --universal --upgrade --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 --all-extras --group dev --no-emit-package nearcache pyproject.toml -o requirements-dev.lock

clean: ## Remove what make has made
	rm -rf .venv .cache dist build .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
