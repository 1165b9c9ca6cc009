# make demo       the simulator, the feed and a live table for 20 s
# make test       the suite, with a seeded share of the long tests, in three processes
# make test-long  the suite, whole
# make lint       ruff, cython-lint, mypy, stubtest, compiler warnings
# make bench      all benchmarks, each with what it is measured beside; numbers into build/bench. Or make bench-decode
# PYTHON=python3.12 make test    another interpreter, 3.11 or newer; ARGS="-k ring" goes to pytest
# make bench ARGS="--rounds 5"   goes to each benchmark

PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
BENCHMARKS := decode inflate latency throughput
# What their C, C++ and Go need: Debian's packages, and a file of each.
NATIVE := g++:/usr/bin/g++ golang-go:/usr/bin/go libboost-dev:/usr/include/boost/version.hpp \
  libdeflate-dev:/usr/include/libdeflate.h libisal-dev:/usr/include/isa-l.h zlib1g-dev:/usr/include/zlib.h
COMPILED := $(wildcard src/* jvq_fast/*.pxd jvq_fast/include/*) setup.py pyproject.toml

# One entry of pyproject.toml's lists a line.
listed = $(BIN)/python -c "import tomllib; t = tomllib.load(open('pyproject.toml', 'rb')); print(*t$(1), sep='\n')"

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: demo test test-long lint bench bench-native $(BENCHMARKS:%=bench-%) clean

demo: $(VENV)/installed
	@$(BIN)/jvq-fast demo --seconds 20

test: $(VENV)/ready
	$(BIN)/python tests/lanes.py $(ARGS)

test-long: $(VENV)/ready
	$(BIN)/pytest --long $(ARGS)

lint: $(VENV)/ready
	$(BIN)/pytest tests/test_lint.py tests/test_types.py $(ARGS)

bench: $(BENCHMARKS:%=bench-%)

$(BENCHMARKS:%=bench-%): bench-%: $(VENV)/bench bench-native
	@mkdir -p build/bench
	$(BIN)/python -m benchmarks.$* --json build/bench/$*.json $(ARGS)

# Installs them where it may, else says what is left out without them.
bench-native:
	@missing=$$(for each in $(NATIVE); do test -e "$${each#*:}" || echo "$${each%%:*}"; done); \
	if test -z "$$missing"; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  echo "installing" $$missing; \
	  { apt-get -qq update; apt-get -qq install -y --no-install-recommends $$missing; } >/dev/null || \
	    echo "could not be installed; what needs them is left out:" $$missing; \
	else echo "what needs these is left out; as root: apt-get install" $$missing; fi

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

$(VENV)/bench: $(VENV)/installed
	@echo "installing what the benchmarks measure beside"
	@$(call listed,['project']['optional-dependencies']['bench']) >$@.txt
	@$(BIN)/python -m pip install -qq -r $@.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info jvq_fast/*.so jvq_fast/_built_with.py
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
