# What a newcomer and the checks run. Needs Python 3.11 or newer with pip, nothing else; all of it goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
PICTURES ?=
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test setup check test-slow docs bench

help: ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "make %-10s %s\n", $$1, $$2 }'

demo: $(VENV)/installed-demo ## Segment real pictures with the model inside the package; PICTURES="a.jpg b.jpg" takes yours.
	$(BIN)/python examples/demo.py --out demo_output $(PICTURES)

test: $(VENV)/installed-dev ## Run the tests that take seconds.
	$(PYTEST) -n $(WORKERS) --dist loadfile

setup: $(VENV)/installed-dev ## Make .venv with everything for development.

check: $(VENV)/installed-dev ## Format, lint, types, layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(VENV)/installed-dev ## Run the tests that take longer: wheels, fresh environments, whole runs.
	$(PYTEST) -m slow

docs: $(VENV)/installed-docs ## Build the documentation into build/docs; a warning is an error.
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs
	@echo "build/docs/index.html"

bench: $(VENV)/installed-dev ## Run every benchmark; each writes its figures beside itself.
	for script in benchmarks/*.py; do $(BIN)/python "$$script" || exit 1; done

$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python python3.14 python3.13 python3.12 python3.11); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; done; \
	if [ -z "$$python" ]; then echo "no Python 3.11 or newer was found: make ... PYTHON=/path/to/python"; exit 1; fi; \
	echo "$$python -m venv $(VENV)"; \
	"$$python" -m venv $(VENV) || { \
	    "$$python" -m venv --clear --without-pip $(VENV) && \
	    "$$python" -m pip --python $(BIN)/python install pip; }

# One file per extra, newer than pyproject.toml when its dependencies are installed.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip --disable-pip-version-check install --editable ".[$*]"
	@touch $@
