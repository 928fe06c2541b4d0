# `make` lists the targets. Everything happens in .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV   ?= .venv
PRESET ?=
JOBS   ?= 2
PYTEST ?=

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.mlmkit-installed

# The notebooks draw into themselves; a backend from outside would leave them without pictures.
unexport MPLBACKEND

.DEFAULT_GOAL := help
.PHONY: help course test lab exercises syllabus lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

course: $(INSTALLED) ## run every notebook and print what was learned (PRESET=smoke|laptop|gpu JOBS=2)
	$(BIN)/python -m mlmkit course --out build --jobs $(JOBS) $(if $(PRESET),--preset $(PRESET))

test: $(INSTALLED) ## unit tests with coverage, docstrings, every cell of the notebooks (PYTEST="-k masking")
	$(BIN)/python -m pytest tests mlmkit notebooks --cov \
		--nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg $(PYTEST)

lab: $(INSTALLED) ## open the first notebook in JupyterLab
	JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab notebooks/00_start_here.ipynb

exercises: $(INSTALLED) ## write exercises/release, what learners open, from exercises/source
	$(BIN)/python -m mlmkit exercises

syllabus: $(INSTALLED) ## write docs/syllabus.md from exercises/syllabus.yml
	$(BIN)/python -m mlmkit syllabus --out docs/syllabus.md

lint: $(INSTALLED) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mlmkit

format: $(INSTALLED) ## put code and notebooks into ruff's form, and mend what it can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was built and the caches; .venv stays
	rm -rf build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# Python is asked for its version only where an environment is made: later, .venv has its own.
$(INSTALLED): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
			echo "mlmkit needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
				"Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; \
			exit 1; }; \
		$(PYTHON) -m venv $(VENV); }
	@echo "Installing mlmkit and what it needs into $(VENV): a minute, or as long as PyTorch takes to download."
	$(BIN)/python -m pip install $(if $(CI),--quiet) -c constraints.txt -e '.[course,grade,dev]'
	@touch $@
