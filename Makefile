# make run    sets up all that is needed and serves the product
# make test   sets up all that is needed and runs the tests
# make help   names the rest

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LLAMA := $(shell grep -i '^llama.cpp.python==' constraints.txt)
# The vision library of llama.cpp is not used: leaving it out shortens the compilation.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

CODE := cli db deployments load k8s tests hatch_build.py

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Creating the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Compiled once for this machine's processor; pip keeps the result in its cache.
$(VENV)/.llama: $(VENV)/.created constraints.txt
	@echo "Installing $(LLAMA): it is compiled for this machine, once, which takes about ten minutes on two cores."
	@$(PIP) install -v --no-deps "$(LLAMA)" 2>&1 | tee $(VENV)/llama.log \
	  | awk '{ if (match($$0, /\[[0-9]+\/[0-9]+\]/)) { printf "\r  compiling %s   ", substr($$0, RSTART, RLENGTH); fflush(); seen = 1 } } END { if (seen) print "" }' \
	  || { tail -30 $(VENV)/llama.log; echo "Compiling llama-cpp-python failed: a C/C++ compiler is needed (g++ or clang)."; exit 1; }
	@touch $@

# The package's own kernels are compiled with it, in seconds.
$(VENV)/.run: $(VENV)/.llama pyproject.toml constraints.txt hatch_build.py $(wildcard deployments/model/engine/native/*.cpp deployments/model/engine/native/*.h)
	@echo "Installing the pinned dependencies"
	@$(PIP) install --quiet -c constraints.txt -e .
	@[ -f deployments/model/engine/native/own_products.so ] || echo "The engine's own kernels were not compiled (Linux and a C++ compiler only): llama.cpp computes, slower."
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing the tools for tests and checks"
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: help setup run chat test check fmt bench products-bench engine-bench api-bench routing-bench profile-api append-bench history-bench fanout-bench idle-readers chaos load clean

setup: $(VENV)/.run ## creates the environment

run: $(VENV)/.run ## serves the product until Ctrl-C; PORT=8000
	@exec $(BIN)/rustygpt serve $(if $(PORT),--port $(PORT))

chat: $(VENV)/.run ## talks with the model in this terminal
	@exec $(BIN)/rustygpt chat

test: $(VENV)/.dev ## runs the tests; ARGS="-k name" chooses some
	@for tool in chromium prometheus promtool; do command -v $$tool >/dev/null || missing="$${missing:-} $$tool"; done; \
	  [ -z "$${missing:-}" ] || echo "Not found:$$missing. The tests that need them will fail; on Debian: apt-get install chromium prometheus"
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## format, lint, types, import rules
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/basedpyright --pythonpath $(BIN)/python --level error
	@$(BIN)/lint-imports --no-cache

fmt: $(VENV)/.dev ## formats the code
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

bench: $(VENV)/.dev ## measures the product beside the bare engine; ARGS=--quick
	@$(BIN)/python -m load.bench $(ARGS)

products-bench: $(VENV)/.dev ## measures the engine's own matrix products beside llama.cpp's
	@$(BIN)/python -m load.products_bench

engine-bench: $(VENV)/.dev ## measures the engine beside llama.cpp's server; RIVALS=folder of load/build_rivals.sh
	@$(BIN)/python -m load.engine_bench --rivals $(or $(RIVALS),$(error RIVALS=folder is needed: load/build_rivals.sh fills it)) $(ARGS)

api-bench: $(VENV)/.dev ## measures the API beside llama.cpp's server and LiteLLM's proxy; RIVALS=folder, ARGS=--quick
	@$(BIN)/python -m load.api_bench --rivals $(or $(RIVALS),$(error RIVALS=folder is needed: load/build_rivals.sh and load/install_litellm.sh fill it)) $(ARGS)

routing-bench: $(VENV)/.dev ## measures routing by prefix to several replicas beside Serve's own; ARGS=--quick
	@$(BIN)/python -m load.routing_bench $(ARGS)

profile-api: $(VENV)/.dev ## where the time of a request to the API goes
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m load.profile_api $(ARGS)

append-bench: $(VENV)/.dev ## measures how text gets into the log, and what that takes from the engine; ARGS=--quick
	@$(BIN)/python -m load.append_bench $(ARGS)

history-bench: $(VENV)/.dev ## measures reads of long histories in a full database; ARGS=--quick
	@$(BIN)/python -m load.history_bench $(ARGS)

fanout-bench: $(VENV)/.dev ## measures event streams to many readers beside nginx with nchan; ARGS=--quick
	@$(BIN)/python -m load.fanout_bench $(ARGS)

idle-readers: $(VENV)/.dev ## measures what waiting readers cost, and how soon a reader beside them has an event; ARGS=--quick
	@$(BIN)/python -m load.idle_readers $(ARGS)

chaos: $(VENV)/.dev ## kills and stops every part of the product while people use it, and checks what they saw; QUICK=1: once each
	@$(BIN)/python -m tests.chaos $(if $(QUICK),--quick) $(ARGS)

load: $(VENV)/.dev ## Locust against a running service; HOST=http://127.0.0.1:8000
	@$(BIN)/locust -f load/locustfile.py --headless -u 8 -r 4 -t 30s --host $(or $(HOST),http://127.0.0.1:8000)

clean: ## removes the environment; data stay
	rm -rf $(VENV)
