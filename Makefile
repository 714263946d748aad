# Every verb sets up what it needs: a fresh clone, Python 3.10 or newer and make are enough.
PYTHON ?= python3
VENV   := .venv
WIRE   := .venv-wire
VENV_GPU := .venv-gpu
# What `make gpu-check` checks, and the extras that it is installed with: a Jetson has its own TensorRT, so that
# `make gpu-check DEVICE=tensorrt RUNTIME=cpu` is right there.
DEVICE ?= cuda
RUNTIME ?= gpu
BIN    := $(VENV)/bin
MINUTES ?= 10
# Many tests wait for processes: two at a time take little more than half as long. More than four disturb each other.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal
PIP    := -m pip --disable-pip-version-check --quiet install

.PHONY: help demo test faults soak bench gpu-check check wire clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/installed  ## draw parts, fit a model on good ones, serve it, inspect more, one picture of it all
	$(BIN)/edge-agent demo --output demo

test: $(VENV)/installed $(WIRE)/installed  ## all tests, but for slow ones that need frameworks
	WIRE_PYTHON=$(CURDIR)/$(WIRE)/bin/python $(BIN)/python -m pytest $(PARALLEL) -m 'not slow' $(TESTS)

faults: $(VENV)/installed  ## inject faults for MINUTES minutes, print what was counted
	$(BIN)/python -m tests.faults --minutes $(MINUTES) --record docs/reliability.json $(if $(ROWS),--rows $(ROWS))

soak: $(VENV)/installed  ## load for MINUTES minutes, watching memory, descriptors and answers
	$(BIN)/python -m tests.faults --soak --minutes $(MINUTES) --record docs/reliability.json $(if $(ROWS),--rows $(ROWS))

bench: $(VENV)/installed $(if $(PEERS),$(VENV)/peers)  ## what serving costs against a bare loop; PEERS=1: and against FastAPI
	$(BIN)/python -m benchmarks.serving $(if $(PEERS),--peers) $(if $(QUICK),--quick)

gpu-check: $(VENV_GPU)/installed  ## what the agent does on this machine's GPU, into docs/gpu-checks.md; DEVICE=cuda RUNTIME=gpu
	$(VENV_GPU)/bin/python -m benchmarks.gpu_check --device $(DEVICE) --record docs/gpu-checks.md $(if $(PACKAGES),--packages $(PACKAGES)) $(if $(QUICK),--quick)

check: $(VENV)/installed  ## style, types, the import ladder
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wire: $(VENV)/installed $(WIRE)/installed  ## generate what is derived: stubs, the manifest's JSON Schema, README's settings table
	$(WIRE)/bin/python protos/generate.py .
	$(BIN)/python docs/generate.py .

clean:  ## remove environments and outputs
	rm -rf $(VENV) $(WIRE) $(VENV_GPU) demo build dist

# The stamps are older than pyproject.toml when it has changed: then the environment is brought up to date.
$(VENV)/installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) --upgrade 'pip>=25.1'
	$(BIN)/python $(PIP) --editable '.[cpu,greengrass,workbench]' --group dev
	touch $@

# With the system's packages: JetPack's TensorRT is one of them.
$(VENV_GPU)/installed: pyproject.toml Makefile
	$(PYTHON) -m venv --system-site-packages $(VENV_GPU)
	$(VENV_GPU)/bin/python $(PIP) --upgrade 'pip>=25.1'
	$(VENV_GPU)/bin/python $(PIP) --editable '.[$(RUNTIME),workbench]' --group test
	touch $@

$(VENV)/peers: $(VENV)/installed
	$(BIN)/python $(PIP) --group peers
	touch $@

$(WIRE)/installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(WIRE)
	$(WIRE)/bin/python $(PIP) --upgrade 'pip>=25.1'
	$(WIRE)/bin/python $(PIP) --group wire
	touch $@
