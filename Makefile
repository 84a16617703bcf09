# make help lists what there is. Everything runs in .venv, which `make setup` fills.

PYTHON ?= python3.11
CHECKPOINT ?= weights/mnist
BUNDLE ?= build/mnist
PORT ?= 8080
PY := .venv/bin/python

# Where torch comes from. PyTorch's CPU wheels are a tenth the size of the default ones; where
# their index doesn't answer, the configured index serves. On a GPU host: make setup TORCH_INDEX=
CPU_WHEELS := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell $(PYTHON) -c "import urllib.request; \
	urllib.request.urlopen('$(CPU_WHEELS)/torch/', timeout=3)" 2>/dev/null && echo $(CPU_WHEELS))

.PHONY: help setup demo test lint train export serve clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready  ## create .venv with everything in it

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "setting up .venv: a minute or two, torch is large"
	$(eval INDEX := $(TORCH_INDEX))
	$(PY) -m pip install -q -c constraints.txt torch==2.13.0 $(if $(INDEX),--index-url $(INDEX))
	$(PY) -m pip install -q -c constraints.txt -e '.[train,export,serve,cpu,jobs,dev]'
	touch $@

demo: export  ## real handwriting through the real service: embeddings and reconstructions
	$(PY) clients/examples/demo.py $(BUNDLE) --out build/demo

test: lint  ## the whole suite
	$(PY) -m pytest

lint: setup  ## style, types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

train: setup  ## train on MNIST into runs/mnist; e.g. make train ARGS="--epochs 20"
	$(PY) -m train $(ARGS)

export: setup  ## turn CHECKPOINT (the shipped weights) into BUNDLE
	$(PY) -m export $(CHECKPOINT) --out $(BUNDLE)

serve: export  ## serve BUNDLE on PORT until Ctrl-C
	$(PY) -m serve $(BUNDLE) --port $(PORT)

clean:  ## remove what make made, bar .venv and runs
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
