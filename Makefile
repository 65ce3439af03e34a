# The words of this project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/dev.lock

.DEFAULT_GOAL := help
.PHONY: help setup dev test tools check nightly bench lock docs clean

help: ## List these words
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

# The stamp names what the environment was made from, so that a changed lock makes a new one.
$(VENV)/.made-from-lock: $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Hupan needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(VENV)/.made-from-lock ## Make .venv with everything, and the command .venv/bin/hupan

dev: setup ## Start the server on loopback with fixed people and data (Ctrl-C stops it)
	$(BIN)/hupan dev

check: setup ## Lint, types and the arrows between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages are tested in a real browser, and curl is one of the clients that the sandbox reaches;
# both come from Debian. Where nothing may be installed, those tests say that they are skipped.
tools:
	@command -v chromium >/dev/null && command -v curl >/dev/null && command -v xxd >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	            chromium curl xxd fonts-noto-cjk >/dev/null; } \
	  || echo "chromium, curl or xxd is missing; the tests that need it are skipped"

test: check tools ## Check, then run the tests on SQLite and on PostgreSQL
	$(BIN)/python -m pytest -m "not nightly" -n 2 --dist loadfile

nightly: setup ## The long campaigns (noise, postings, state machine)
	$(BIN)/python -m pytest -m nightly --timeout=7200

# The others are installed apart from us. The generator is C, and its compiler comes from Debian.
$(VENV)-bench/.made: benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench: setup $(VENV)-bench/.made ## Measure beside a ceiling and two others (BENCH=--quick for a look)
	@command -v cc >/dev/null || command -v gcc >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	            gcc libc6-dev >/dev/null; } \
	  || { echo "a C compiler is missing and cannot be installed here: gcc libc6-dev"; exit 1; }
	PYTHONPATH=src $(BIN)/python -m benchmarks $(BENCH)

docs: setup ## Write the derived pages, proto/hupan.proto and the OpenAPI document anew
	$(BIN)/hupan protocol --write .
	$(BIN)/python -m tests.test_docs

lock: ## Resolve the newest versions into the lock (needs uv)
	uv pip compile pyproject.toml --extra sandbox --group dev --universal --python-version 3.11 \
	  --prerelease if-necessary-or-explicit --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade -o $(LOCK)

clean: ## Remove what setup and the tests made
	rm -rf $(VENV) $(VENV)-bench benchmarks/.data .mypy_cache .ruff_cache .pytest_cache .hypothesis
