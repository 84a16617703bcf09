# make help lists what there is. Everything runs in .venv, which `make setup` fills.

PYTHON ?= python3.11
CHECKPOINT ?= weights/mnist
BUNDLE ?= build/mnist
PORT ?= 8080
PY := .venv/bin/python
CLIENTS := .venv-clients-$(notdir $(PYTHON))
override BUNDLE := $(BUNDLE:%/=%)
export ORT_DISABLE_TELEMETRY = 1

# Where torch comes from. PyTorch's CPU wheels are a tenth the size of the default wheels; where
# their index doesn't answer, pip uses its own. On a GPU host: make setup TORCH_INDEX=
CPU_WHEELS := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(shell $(PYTHON) -c "import urllib.request; \
	urllib.request.urlopen('$(CPU_WHEELS)/torch/', timeout=3)" 2>/dev/null && echo $(CPU_WHEELS))

.PHONY: help setup demo test test-clients test-openvino test-faults browser-test lint train export serve bench \
	bench-openvino bench-online bench-jobs bench-train bench-scale bench-limit bench-framing \
	docker-test audit clean always

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready  ## create .venv with everything in it

# Each build of onnxruntime needs its own environment, since the builds overwrite each other.
.venv/ready: EXTRAS = train,export,serve,granian,cpu,jobs,ray,completion,explore,dev
.venv-openvino/ready: EXTRAS = train,export,serve,openvino,dev
$(CLIENTS)/ready: EXTRAS = train,export,local,jobs,ray,completion,explore,dev

.venv/ready .venv-openvino/ready $(CLIENTS)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	@echo "setting up $(@D): a minute or two, torch is large"
	$(eval INDEX := $(TORCH_INDEX))
	$(@D)/bin/pip install -q -c constraints.txt torch==2.13.0 $(if $(INDEX),--index-url $(INDEX))
	$(@D)/bin/pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

demo: export  ## handwriting and a photograph through the real service: numbers and pictures
	$(PY) clients/examples/demo.py $(BUNDLE) --out build/demo

test: lint  ## style, types and tests; for the others: test-faults, browser-test, docker-test
	$(PY) -m pytest

test-clients: $(CLIENTS)/ready  ## test client and jobs alone, on another Python: PYTHON=python3.13
	$(CLIENTS)/bin/python -m pytest tests/clients

test-openvino: .venv-openvino/ready  ## test export and engines with OpenVINO, in .venv-openvino
	.venv-openvino/bin/python -m pytest tests/export tests/serve/test_engine.py

test-faults: setup  ## load, faults and hostile callers on both servers; PINHOLE_FAULTS_MINUTES=10
	$(PY) -m pytest tests/faults

browser-test: setup  ## test the explorer in Chromium; as root, apt-get installs Chromium
	@command -v chromium > /dev/null || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null; } || \
		{ echo "browser-test needs Chromium: apt-get install chromium"; exit 1; }
	@command -v chromium > /dev/null || { apt-get update -q && apt-get install -y -q chromium; }
	$(PY) -m pytest tests/browser

docker-test: setup  ## test docker compose; needs Docker Engine with Compose v2
	PINHOLE_SERVER=torchserve docker compose build
	PINHOLE_SERVER=granian docker compose build service
	$(PY) -m pytest tests/docker

lint: setup  ## check style and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

train: setup  ## train on MNIST into runs/mnist; e.g. make train ARGS="--epochs 20"
	$(PY) -m train $(ARGS)

export: $(BUNDLE)/manifest.json  ## turn CHECKPOINT (the shipped weights) into BUNDLE

# Written anew when the checkpoint, its name or the code that exports has changed.
EXPORTER := $(wildcard $(addsuffix /*.py,export train serve/bundle serve/bundle/*))
$(BUNDLE)/manifest.json: .venv/ready $(BUNDLE).from $(wildcard $(CHECKPOINT)/*) $(EXPORTER)
	$(PY) -m export $(CHECKPOINT) --out $(BUNDLE)

$(BUNDLE).from: always
	@mkdir -p $(@D)
	@echo '$(CHECKPOINT)' | cmp -s - $@ || echo '$(CHECKPOINT)' >$@

serve: export  ## serve BUNDLE on PORT until Ctrl-C; e.g. make serve ARGS="--runtime torchscript"
	$(PY) -m serve $(BUNDLE) --port $(PORT) $(ARGS)

bench: setup  ## images/s of the engines, beside bare onnxruntime
	$(PY) -m bench.engines $(CHECKPOINT)

bench-openvino: .venv-openvino/ready  ## the same with OpenVINO among the engines
	.venv-openvino/bin/python -m bench.engines $(CHECKPOINT)

bench-online: export  ## requests/s, beside what others would serve with; needs wrk; ARGS=--help
	$(PY) -m bench.online $(BUNDLE) $(ARGS)

bench-jobs: export  ## files/s of batch jobs, beside their limits and what others would write
	$(PY) -m bench.jobs $(BUNDLE) $(ARGS)

bench-train: setup  ## images/s in training, beside a plain loop and Lightning
	$(PY) -m bench.train $(ARGS)

bench-scale: export  ## where each curve bends: images a request, connections, widths; needs wrk
	$(PY) -m bench.scale $(BUNDLE) $(ARGS)

bench-limit: export  ## what these cores can do, and how much of it each way uses; needs wrk
	$(PY) -m bench.limit $(BUNDLE) $(ARGS)

bench-framing: export  ## digits recognised from photographs; needs MNIST
	$(PY) -m bench.framing $(BUNDLE)

.venv-audit/ready: Makefile
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install -q pip-audit==2.10.1 pip-licenses==5.5.5
	touch $@

audit: setup .venv-audit/ready  ## licences and known vulnerabilities of what make setup installs
	@.venv-audit/bin/pip-licenses --python=$(PY)
	@if found=$$(.venv-audit/bin/pip-audit --vulnerability-service=osv --progress-spinner=off \
		--skip-editable --path=$$($(PY) -c "import numpy; print(numpy.__path__[0])")/.. 2>/dev/null); \
	then echo "no known vulnerability"; \
	elif test -n "$$found"; then echo "$$found"; exit 1; \
	else echo "vulnerabilities are not checked: their database, OSV, doesn't answer"; fi

clean:  ## remove what make made, except environments and runs
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
