# Two commands: `make run` opens the window with a sample network, `make test` runs every test.
# Both create the environment in .venv first; nothing needs to be installed by hand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NUMBER_OF_WORKERS ?= 2
# Names of benchmarks to run, all if empty.
BENCHMARKS ?=
# As the tests have it: a build for the processor.
TORCH := torch==2.13.0
# Releases to install, known to work; empty for the newest.
VERSIONS ?= .ci/versions.txt
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(if $(VERSIONS),-c $(VERSIONS))

.PHONY: run test check bench screenshots samples clean

run: $(VENV)/.run
	@$(BIN)/python -m quantgui.demo

test: $(VENV)/.test
	@.ci/system-libraries test
	$(BIN)/python -m pytest -n $(NUMBER_OF_WORKERS) --dist loadfile -m "not x11" --doctest-modules quantgui/spec quantgui/numerics tests
	$(BIN)/python -m pytest -m x11 tests

# Without the networks of packages: minutes less, for working.
check: $(VENV)/.test
	$(BIN)/python -m pytest -n $(NUMBER_OF_WORKERS) --dist loadfile -m "not x11 and not network" tests

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks $(BENCHMARKS)

screenshots: $(VENV)/.test
	QUANTGUI_WRITE_SCREENSHOTS=1 $(BIN)/python -m pytest -m screenshots tests

samples: $(VENV)/.test
	$(BIN)/python sample_models/make_samples.py

clean:
	rm -rf $(VENV) build dist *.egg-info tests/.networks

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("quantgui needs Python 3.11 or newer; set PYTHON=... to one.") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) || { echo "Cannot create an environment: install Python's venv module (Debian: python3-venv)."; exit 1; }

$(VENV)/.run: pyproject.toml $(VERSIONS) | $(VENV)/bin/python
	@.ci/system-libraries run
	@echo "Making the environment $(VENV), about 1.2 GB with PyTorch: once, and it takes a minute or several."
	$(PIP_INSTALL) -e '.[pytorch]' '$(TORCH)'
	@touch $@

$(VENV)/.test: pyproject.toml tests/network-packages.txt $(VERSIONS) | $(VENV)/bin/python
	@.ci/system-libraries test
	$(PIP_INSTALL) --quiet -e '.[test]'
	$(PIP_INSTALL) --quiet --no-deps -r tests/network-packages.txt
	@touch $@ $(VENV)/.run
