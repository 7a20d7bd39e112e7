# Two commands: `make demo` (the main job, start to finish) and `make test`. Both set up what they need.
# PYTHON picks the interpreter that makes the environment; it needs pip, and neither ensurepip nor write access.

PYTHON ?= python3
HOST_PYTHON := $(shell command -v $(PYTHON))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(HOST_PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python
# Without --no-compile, a minute goes into bytecode of modules that nobody imports.
INSTALL_LOCKED := install --quiet --no-compile --require-hashes --only-binary :all:
NATIVE_SOURCES := CMakeLists.txt pyproject.toml $(wildcard bidml/native/*.h bidml/native/*.cc)
CHECKED := $(wildcard bidml tests training benchmarks notebooks robust docs/*.py)

# Bytecode is kept, below build/, also where the environment forbids it: the tests start hundreds of processes, and
# importing bidml.fit takes 9.4 s of processor time without, 2.6 with it.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache

.PHONY: demo notebooks reference test robust robust-long lint types build env clean lock

demo: $(VENV)/.built
	$(BIN)/bidml demo --out runs/demo

test:
	$(MAKE) --jobs 2 --output-sync=target lint types build $(VENV)-ort-min/.installed
	BIDML_ORT_MIN_PYTHON=$(CURDIR)/$(VENV)-ort-min/bin/python $(BIN)/python -m pytest -q -n auto --dist loadfile $(PYTEST_ARGS)

# Attacks on the runtime: robust in minutes (CI), robust-long in hours. docs/reliability.md says what they try.
robust: $(VENV)/.built
	$(BIN)/python -m robust $(ROBUST_ARGS)

robust-long: $(VENV)/.built
	nice -n 10 $(BIN)/python -m robust --long $(ROBUST_ARGS)
	nice -n 10 $(BIN)/python -m robust.seeded_faults

# Runs the notebooks and writes notebooks/rendered: pages and pictures for readers of the forge.
notebooks: $(VENV)/.built
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m notebooks.render $(NOTEBOOKS)

# The API reference, from the docstrings of what `__all__` names.
reference: $(VENV)/.installed
	$(BIN)/python -m docs.reference

lint: $(VENV)/.installed
	$(BIN)/ruff check --quiet $(CHECKED)
	$(BIN)/ruff format --check --quiet $(CHECKED)

types: $(VENV)/.installed
	$(BIN)/mypy

env: $(VENV)/.installed

build: $(VENV)/.built

$(VENV)/.installed: requirements/dev.lock
	$(HOST_PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "bidml needs Python 3.11 or newer; set PYTHON"'
	$(HOST_PYTHON) -m venv --without-pip --clear $(VENV)
	$(PIP) $(INSTALL_LOCKED) -r requirements/dev.lock
	touch $@

# The environment of the lowest onnxruntime that the artifact promises to run on.
$(VENV)-ort-min/.installed: requirements/ort-min.lock
	$(HOST_PYTHON) -m venv --without-pip --clear $(VENV)-ort-min
	$(HOST_PYTHON) -m pip --disable-pip-version-check --python $(VENV)-ort-min/bin/python $(INSTALL_LOCKED) \
	  -r requirements/ort-min.lock
	touch $@

$(VENV)/.built: $(VENV)/.installed $(NATIVE_SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra train --extra mlflow --extra monitor --extra dev --extra docs pyproject.toml \
	  --output-file requirements/dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements/ort-min.in --output-file requirements/ort-min.lock

clean:
	rm -rf build dist runs $(VENV) $(VENV)-ort-min
