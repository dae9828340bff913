# Everything a developer runs. Needs make and Python 3.11-3.13; `make` alone lists the targets.

BIN := .venv/bin
SOURCES := include plugins dags tests tools $(wildcard benchmarks)
# `make test ARGS="tests/core -k close"`
ARGS :=

# An environment works only in the folder it was created in: a copied tree creates its own.
ifneq ($(shell cat .venv/made-in 2>/dev/null),$(CURDIR))
.PHONY: .venv/locked
endif

.DEFAULT_GOAL := help
.PHONY: help demo up test check lint types format mutants bench lock lowest build clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

.venv/locked: requirements.lock tools/venv.sh
	@PYTHON="$(PYTHON)" sh tools/venv.sh
	@touch $@

.venv/installed: .venv/locked pyproject.toml
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps --no-build-isolation --editable .
	@touch $@

demo: .venv/installed ## run Airflow and a FeedAMP sandbox on this machine: the whole loop once, then a report
	@$(BIN)/python tools/demo

up: .venv/installed ## the same, and keep it running until Ctrl-C
	@$(BIN)/python tools/demo --stay

test: .venv/installed ## run all tests, or some: make test ARGS="tests/core -k close"
	@echo "Tests ..."
	@sh tools/test.sh $(ARGS)

check: .venv/installed ## run what CI runs: format, lint, types, tests
	@echo "Format ..."
	@$(BIN)/ruff format --check $(SOURCES) || { echo "make: run 'make format', then look at what it changed" >&2; exit 1; }
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test

lint: .venv/installed ## run ruff, which also keeps Airflow imports out of include/
	@echo "Lint ..."
	@$(BIN)/ruff check $(SOURCES)

types: .venv/installed ## run mypy, strict, on include and plugins
	@echo "Types ..."
	@$(BIN)/mypy

mutants: .venv/installed ## break one promise at a time in a copy of the code; the tests must fail
	@$(BIN)/python tools/mutants.py $(ARGS)

bench: .venv/installed ## measure this package beside others, in small sizes; in full: make bench ARGS="--rounds 5"
	@$(BIN)/python benchmarks/suite.py $(or $(ARGS),--small --rounds 2)
	@for script in isolation completeness carriers; do \
		echo "$$script ..."; $(BIN)/python benchmarks/$$script.py || exit 1; done

format: .venv/installed ## format the code as `make check` requires
	@$(BIN)/ruff check --fix-only $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

lock: .venv/installed ## write requirements.lock from pyproject.toml; with ARGS=--upgrade the newest of everything
	@echo "Lock ..."
	@$(BIN)/uv --quiet --system-certs pip compile --universal --python-version 3.11 --extra postgres --extra s3 --extra cluster --group dev $(ARGS) \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		pyproject.toml --output-file requirements.lock
	@echo "requirements.lock: $$(grep -c '^[a-z0-9]' requirements.lock) packages"
	@$(BIN)/uv --quiet --system-certs pip compile --universal --python-version 3.11 --extra postgres --group lowest --resolution lowest-direct $(ARGS) \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		pyproject.toml --output-file requirements-lowest.lock
	@echo "requirements-lowest.lock: $$(grep -c '^[a-z0-9]' requirements-lowest.lock) packages"

lowest: .venv/installed ## run core and contract tests on the lowest promised version of each dependency
	@$(BIN)/uv --quiet venv --clear --python $(BIN)/python .venv-lowest
	@$(BIN)/uv --quiet --system-certs pip install --python .venv-lowest/bin/python --require-hashes --no-deps -r requirements-lowest.lock || \
		$(BIN)/python -m pip --quiet --python .venv-lowest/bin/python install --require-hashes --no-deps -r requirements-lowest.lock
	@PYTHONPATH=include:plugins .venv-lowest/bin/python -m pytest -q -p no:cacheprovider tests/core tests/contract \
		tests/engines/test_merge.py -k "not postgres" --ignore tests/contract/test_sandbox_against_openapi.py # needs a tool of its own

build: .venv/installed ## build the wheel and the source distribution into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist .

clean: ## remove what the other targets created
	rm -rf .venv .venv-lowest .venv-peers dist build .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
