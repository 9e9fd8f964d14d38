# Each target sets up what it needs, on a fresh machine too. PYTHON picks the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# What is not imported need not be compiled.
PIP := -m pip install --quiet --no-compile

.PHONY: train docs test slow nightly venv lint types contracts wheel oldest bench bench-jflow

train: venv  ## Real NVP on handwritten digits, into runs/digits/
	$(BIN)/python -m experiments.train digits_real_nvp --resume

test: venv  ## all tests but the slow ones
	.ci/cached $(VENV) -m pytest -n 2 --dist worksteal

docs: $(VENV)/documented  ## the site, into site/; `make docs WHOLE=--whole` runs notebooks in all steps
	.ci/cached $(VENV) -m docs.site $(WHOLE)

$(VENV)/documented: $(STAMP)
	$(BIN)/python $(PIP) --editable '.[docs]' --constraint constraints.txt
	touch $@

slow: venv  ## the slow tests
	.ci/cached $(VENV) -m pytest -m slow

nightly: venv $(VENV)/bridged  ## before a release: slow tests, oldest versions, all optimisations; no cache
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow
	JFLOW_OPTIMIZE=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/test_bijectors.py
	.ci/test-oldest $(PYTHON) "not slow"
	$(MAKE) docs WHOLE=--whole

$(VENV)/bridged: $(STAMP)  # the libraries whose trained flows are read
	$(BIN)/python $(PIP) nflows normflows torch zuko --constraint constraints.txt
	touch $@

venv: $(STAMP)  ## .venv with jflow, its tests and its tools, in pinned versions

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --editable '.[dev]' --constraint constraints.txt
	touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/basedpyright

contracts: venv
	$(BIN)/lint-imports

wheel: venv  ## builds the wheel and tests it outside the repository
	.ci/test-wheel $(BIN)/python

oldest:  ## the core tests with the oldest versions that pyproject.toml allows
	.ci/test-oldest $(PYTHON)

bench: venv .venv-jax/installed .venv-torch/installed  ## jflow beside seven other libraries, into docs/benchmarks.md
	$(BIN)/python -m benchmarks.compare --output docs/benchmarks.md

.venv-%/installed: benchmarks/peers/requirements-%.txt constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --requirement $< --constraint constraints.txt
	touch $@

bench-jflow: venv  ## jflow alone: what its design rests on
	$(BIN)/python -m benchmarks.glow
	$(BIN)/python -m benchmarks.vectors
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.fit
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.convolution
	$(BIN)/python -m benchmarks.invertible_convolutions
	$(BIN)/python -m benchmarks.linear
	$(BIN)/python -m benchmarks.residual inverse memory time
