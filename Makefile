# A fresh machine needs Python >= 3.11 and make; `make demo` and `make test` install the rest into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types check clean

demo: $(VENV)/.installed
	$(BIN)/actionvit demo

# One single-threaded process per core; tests of one file share fixtures and stay together. Tests marked `timing` run
# afterwards, alone. The many processes that tests start are quicker with compiled modules on disk.
test: lint types
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu and not timing"
	$(BIN)/pytest -m timing

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy needs the package under its import name; the repository's folder may have another.
types: $(VENV)/.installed-dev
	rm -rf build/types && mkdir -p build/types/actionvit
	cp -r *.py py.typed api commands evaluation features heads pipeline build/types/actionvit/
	MYPYPATH=build/types $(BIN)/mypy -p actionvit

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml setup.cfg constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
