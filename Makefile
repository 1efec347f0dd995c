# Two commands do everything, set-up included: `make demo` and `make test`.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin

# Where it is set, every test file and every process of ours is compiled anew: 20 seconds of `make test`.
unexport PYTHONDONTWRITEBYTECODE

# What the compiled module is built from.
KERNELS := $(shell find csrc -name tests -prune -o -type f -print)

.PHONY: setup demo test lint bench faults clean

setup: $(VENV)/.installed

# The pinned torch goes in first: an unpinned one pulls gigabytes of CUDA packages on a machine without a GPU.
$(VENV)/.installed: pyproject.toml constraints.txt CMakeLists.txt $(KERNELS)
	command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 or 3.12, or say PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

demo: setup
	$(BIN)/aquila demo

test: setup lint
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks.indexing
	$(BIN)/python -m benchmarks.kernels
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.corpus.rules
	$(BIN)/python -m benchmarks.corpus.minhash
	$(BIN)/python -m benchmarks.corpus.decontamination

# Every fault that a run has to survive, many times; writes docs/faults.md.
faults: setup
	$(BIN)/python -m tests.faults --write

clean:
	rm -rf $(VENV) build dist runs demo .pytest_cache .mypy_cache .ruff_cache
