# serve, test, lint, bench. Everything is installed into .venv (peers of `make bench` into .peers), which `make clean` removes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SERVING := $(VENV)/.serving
DEVELOPING := $(VENV)/.developing
# Of the benchmarks. One is enough to see how they go, but is not rendered.
ROUNDS ?= 7

STORES := $(VENV)/.stores
# From npm, with Node.js: Azure's emulator.
AZURITE := .azurite/node_modules/.bin/azurite-blob

# Debian's Prometheus and haproxy, unpacked and not installed, so that no service of theirs is started.
TOOLS := .tools/.unpacked
TOOL_PACKAGES := prometheus haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1
DEPLOYING := $(VENV)/.deploying

.PHONY: serve test test-stores test-clients test-deploy lint format images test-images lock bench bench-quick soak clean help

help:
	@echo "make serve   train the small iris example and serve it on http://127.0.0.1:$${PORT:-8080}"
	@echo "make test    run the test suite"
	@echo "make test-stores   test the sources of models against S3, GCS and Azure emulators and web servers (npm for Azure's)"
	@echo "make test-clients   test with clients that others wrote, each in an environment made with pip"
	@echo "make test-deploy   test the manifests, rules and dashboard of deploy/ (needs kubectl; the rest comes from Debian's packages)"
	@echo "make lint    ruff and mypy"
	@echo "make images  build the base images org/ml-runtime:cpu and :cuda (needs a Docker engine with buildx)"
	@echo "make test-images   test them"
	@echo "make lock    lock what the images install to the newest versions"
	@echo "make soak    reload, stop and kill servers many times under load, and measure their memory (half an hour)"
	@echo "make bench   measure the server beside an empty ASGI application and other servers of models (needs wrk, two hours; ROUNDS=1: half an hour)"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ml-runtime needs Python 3.11 or newer, $$($(PYTHON) --version) is here; choose one with: make PYTHON=python3.13 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "this Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVING): pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (about a minute, the first time only)"
	$(PIP) --editable '.[cpu]'
	@touch $@

$(DEVELOPING): pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute or two, the first time only)"
	$(PIP) --editable '.[cpu,test,dev]'
	@touch $(SERVING) $@

serve: $(SERVING)
	$(BIN)/python examples/iris/train.py
	@HOST=$${HOST:-127.0.0.1} LOG_FORMAT=$${LOG_FORMAT:-text} exec $(BIN)/ml-runtime serve examples/iris/models

test: $(DEVELOPING)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile -m "not long"

$(STORES): pyproject.toml | $(DEVELOPING)
	$(PIP) --editable '.[cpu,test,dev,stores]'
	@touch $(DEVELOPING) $@

$(AZURITE):
	@if command -v npm >/dev/null; then npm install --silent --no-save --no-audit --no-fund --prefix .azurite azurite@3.35.0; fi

test-stores: $(STORES) $(AZURITE)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/stores

test-clients: $(DEVELOPING)
	$(BIN)/python -m pytest tests/clients

$(DEPLOYING): pyproject.toml | $(DEVELOPING)
	$(PIP) --editable '.[cpu,test,dev,deploy]'
	@touch $(DEVELOPING) $@

$(TOOLS):
	@mkdir -p .tools
	@cd .tools && if apt-get download -qq $(TOOL_PACKAGES) && for package in *.deb; do dpkg-deb -x $$package . || exit 1; done; \
	  then rm *.deb && touch .unpacked; \
	  else echo "Prometheus and haproxy cannot be had from Debian 12's packages (apt-get update?); tests that need them are skipped"; fi

test-deploy: $(DEPLOYING) $(TOOLS)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/deploy

lint: $(DEVELOPING)
	$(BIN)/hadolint images/Dockerfile examples/*/Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEVELOPING)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

images:
	REVISION=$$(git describe --always --dirty --abbrev=40 --exclude '*') docker buildx bake

test-images: $(STORES) $(DEPLOYING) $(TOOLS)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/image

lock: $(DEVELOPING)
	PATH=$(CURDIR)/$(BIN):$$PATH images/requirements/lock.sh

bench: $(DEVELOPING)
	$(BIN)/python -m benchmarks.run --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.comparison --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.dialects --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.lifecycle --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.fetch --rounds $(ROUNDS)
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.page

bench-quick: $(DEVELOPING)
	$(BIN)/python -m benchmarks.run --quick

# Reloads, signals, crashes and memory, many times over; the result goes to benchmarks/results.
soak: $(DEVELOPING)
	$(BIN)/python -m benchmarks.soak

clean:
	rm -rf $(VENV) .peers .azurite .tools build *.egg-info
