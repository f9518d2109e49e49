# Everything runs in a virtual environment of this checkout. `make demo` and `make test` set it up from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := models/digits_resnet.onnx
TARGET ?= 0.6x
SOURCES := onnxprune passes runtime_bench tests models benchmarks
TESTS ?= tests
# Two test processes: latencies are measured in alternation, so that one neighbour does not change a verdict.
JOBS ?= 2

.PHONY: demo test test-slow fuzz lint format install install-test clean lock
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'error: Python 3.11 or newer is needed; set PYTHON=...' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable . --constraint requirements.lock
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]' --constraint requirements.lock
	@touch $@

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

demo: $(VENV)/.installed
	mkdir -p build
	$(BIN)/onnxprune $(MODEL) -o build/digits_resnet.small.onnx --target-latency $(TARGET) \
	  --calib-data models/digits_calib.npz --eval-data models/digits_eval.npz --labels label --metric top1 \
	  --threads 1 --report build/digits_resnet.report.json --overwrite

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(TESTS) -m 'not slow and not fuzz' -q -n $(JOBS) --dist worksteal

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(TESTS) -m 'not fuzz' -q

fuzz: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(TESTS) -m fuzz -q --timeout 0

lint: $(VENV)/.installed-test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# Writes the versions that are installed now as the new lock file, without the builds that their names may tell.
lock: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable '.[recipes,report,sklearn,torch,zoo]'
	$(BIN)/python -m pip freeze --exclude-editable | sed -n 's/^\([A-Za-z0-9._-]*==[0-9][^+ ]*\).*/\1/p' \
	  | LC_ALL=C sort --ignore-case > requirements.lock

clean:
	rm -rf build $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
