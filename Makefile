# `make demo`: see it work. `make test`: everything that must hold. Both set up what they need by themselves.

BIN := .venv/bin
PYTEST_WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

setup: ## build .venv from the lock file
	@tools/bootstrap

demo: setup ## run the demo shop end to end; KEEP=1 leaves it running
	$(BIN)/habeas demo $(if $(KEEP),--keep)

test: lint ## check and test everything, on real servers; ARGS="-k words" narrows it
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## formatting, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy tests/conftest.py tests/support tools deploy/demo benchmarks
	$(BIN)/lint-imports

format: setup ## rewrite the sources as the formatter wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## measure it beside its peers, and write docs/performance.md; ARGS="logs" narrows it
	$(BIN)/python -m benchmarks --write $(ARGS)

lock: setup ## resolve the dependencies anew into requirements.lock; UPGRADE="name ..." upgrades these
	$(BIN)/python tools/lock.py $(UPGRADE)

clean: ## remove what was built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist *.egg-info
