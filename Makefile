# Needs python3 >= 3.11 with venv, make and git; everything else goes into .venv. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup demo up test long signals children upgrades large check bench peers chaos disaster lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(READY) ## make .venv with the opstream command

demo: $(READY) ## start everything in a temporary folder and upload a book; leaves nothing behind
	@$(BIN)/opstream demo

up: $(READY) ## run everything on this machine until Ctrl-C; options in ARGS="--port 9000 --nats-port 9001"
	@OPSTREAM_ACTIONS=$${OPSTREAM_ACTIONS:-bookshelf.actions} exec $(BIN)/opstream up $(ARGS)

test: $(READY) ## run all tests, four files at a time; a selection with ARGS="-m unit"
	@$(BIN)/python -m pytest -q -n 4 --dist loadfile $(ARGS)

signals: $(READY) ## send signals before and in their waits, with a kill at each point; `make test` takes every other one
	@$(BIN)/python -m pytest -q --all-signals tests/chaos/test_signal_points.py $(ARGS)

children: $(READY) ## one operation with 10,000 children, in real processes; options in ARGS="--count 1000 --parallel 0"
	@$(BIN)/python -m bench.children $(ARGS)

long: $(READY) ## run the long tests, which `make test` leaves out
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --long $(ARGS)

upgrades: $(READY) ## upgrade under load from every earlier release; `make test` takes the first and the last
	@$(BIN)/python -m pytest -q -n 2 --all-releases tests/e2e/system/test_upgrade.py $(ARGS)

large: $(READY) ## store and read a payload of 5 GiB in flat memory; `make test` takes 96 MiB
	@TMPDIR=$${TMPDIR:-/tmp} $(BIN)/python -m pytest -q --payload-mib 5120 tests/broker/payloads/test_jetstream_store.py -k memory $(ARGS)

check: $(READY) ## lint, formatting, types, imports between packages, house rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_source.py

bench: $(READY) ## measure speed and memory; options in ARGS
	@$(BIN)/python -m bench $(ARGS)

peers: $(READY) ## install what `make bench ARGS="--only peers"` compares opstream with, in .peers
	@$(BIN)/python -m bench.peers.installation

chaos: $(READY) ## kill, stop, cut off and crash everything under load; longer with SECONDS=600, again with SEED=7
	@$(BIN)/python -m tests.chaos $(addprefix --seconds ,$(SECONDS)) $(addprefix --seed ,$(SEED)) \
	  $(addprefix --fsync-us ,$(FSYNC_US))

disaster: $(READY) ## kill servers, fill disks, delete streams, set clocks under load; SCENARIO=full-disk TIMES=5 SEED=7, ARGS=--list
	@$(BIN)/python -m tests.disaster $(addprefix --scenario ,$(SCENARIO)) $(addprefix --times ,$(TIMES)) \
	  $(addprefix --seed ,$(SEED)) $(ARGS)

lock: $(READY) ## write all lock files of Python again; newest versions with ARGS=--upgrade
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(PYTHON) -m venv "$$folder" && "$$folder/bin/python" -m pip install --quiet --quiet uv && \
	lock() { "$$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url "$$@"; } && \
	lock --extra dev $(ARGS) --output-file requirements-dev.lock pyproject.toml && \
	lock --extra postgres --constraint requirements-dev.lock $(ARGS) --output-file requirements.lock pyproject.toml && \
	for peer in celery dbos restate saq; do \
	  lock $(ARGS) --output-file bench/peers/requirements/$$peer.txt bench/peers/requirements/$$peer.in || exit 1; done

clean: ## remove .venv and caches; the data of `make up` in .opstream stays
	rm -rf $(VENV) .peers .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "setup: there is no $(PYTHON): install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: $$($(PYTHON) --version) is too old: install 3.11 or newer, or name one: make PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "setup: $(PYTHON) has no venv: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "setup: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: installing the locked requirements"
	@$(PIP) install --no-compile --require-hashes --requirement requirements-dev.lock
	@echo "setup: installing opstream"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: ready; try 'make demo' or $(BIN)/opstream --help"
