# make demo       the simulator, the feed and a live table for 20 s
# make test       the suite, with a seeded share of the long tests, in three processes
# make test-long  the suite, whole
# make fuzz       the fuzz targets, for long; ARGS="--runs 10000000 decode" for one
# make lint       ruff, cython-lint, mypy, stubtest, compiler warnings
# make bench      microseconds per message beside the official client, inflating beside the C libraries, and scaling
# PYTHON=python3.12 make test    another interpreter, 3.11 or newer; ARGS="-k ring" goes to pytest

PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(wildcard src/* jvq_fast/*.pxd jvq_fast/include/*) setup.py pyproject.toml

# One entry of pyproject.toml's lists a line.
listed = $(BIN)/python -c "import tomllib; t = tomllib.load(open('pyproject.toml', 'rb')); print(*t$(1), sep='\n')"

.DELETE_ON_ERROR:
.PHONY: demo test test-long fuzz lint bench clean

demo: $(VENV)/installed
	@$(BIN)/jvq-fast demo --seconds 20

test: $(VENV)/ready
	$(BIN)/python tests/lanes.py $(ARGS)

test-long: $(VENV)/ready
	$(BIN)/pytest --long $(ARGS)

fuzz: $(VENV)/ready
	$(BIN)/python tests/fuzz/long.py $(ARGS)

lint: $(VENV)/ready
	$(BIN)/pytest tests/test_lint.py tests/test_types.py $(ARGS)

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.decode $(ARGS)
	$(BIN)/python -m benchmarks.inflate
	$(BIN)/python -m benchmarks.scaling

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jvq_fast needs Python 3.11 or newer: PYTHON=python3.12 make ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "no venv in $(PYTHON). Debian, Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "making a virtual environment in $(VENV), for this directory alone"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/tools: pyproject.toml | $(BIN)/python
	@command -v $(firstword $(CC)) >/dev/null || \
	  { echo "no C compiler. Debian, Ubuntu: apt-get install gcc   Fedora: dnf install gcc" >&2; exit 1; }
	@echo "installing what compiles jvq_fast"
	@$(call listed,['build-system']['requires']) >$@.txt
	@$(BIN)/python -m pip install -qq --upgrade pip -r $@.txt
	@touch $@

$(VENV)/installed: $(VENV)/tools $(COMPILED)
	@echo "compiling and installing jvq_fast: a minute or two"
	@$(BIN)/python -m pip install -qq --no-build-isolation --editable '.[rich,uvloop]'
	@touch $@

$(VENV)/ready: $(VENV)/installed
	@echo "installing what the tests need"
	@$(call listed,['project']['optional-dependencies']['test']) >$@.txt
	@$(BIN)/python -m pip install -qq -r $@.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info jvq_fast/*.so jvq_fast/_built_with.py
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
