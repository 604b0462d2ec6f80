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

CODE := cli db deployments load k8s tools tests hatch_build.py
# Installs the missing programs of the system, or says what to type. SYSTEM_PACKAGES=no: installs none.
SYSTEM := sh tools/system_packages.sh

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(VENV)/.created:
	@$(SYSTEM) run
	@echo "Creating the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Compiled once for this machine's processor; the wheel is kept in the user's cache. What is downloaded comes meanwhile.
$(VENV)/.llama: $(VENV)/.created pyproject.toml constraints.txt $(wildcard tools/*llama* tools/amx_tile_config.h)
	@$(SYSTEM) compiler
	@echo "Installing $(LLAMA): it is compiled for this machine, once, which takes two to five minutes on two cores."
	@$(BIN)/python tools/install.py dependencies >$(VENV)/dependencies.log 2>&1 & dependencies=$$!; \
	  $(BIN)/python tools/build_llama.py "$(LLAMA)" $(VENV)/wheels || { kill $$dependencies; exit 1; }; \
	  wait $$dependencies || { cat $(VENV)/dependencies.log; exit 1; }
	@touch $@

# The package's own kernels are compiled with it, in seconds.
$(VENV)/.run: $(VENV)/.llama hatch_build.py $(wildcard deployments/model/engine/native/*.cpp deployments/model/engine/native/*.h)
	@echo "Installing the pinned dependencies"
	@$(PIP) install --quiet --no-deps --force-reinstall $(VENV)/wheels/llama_cpp_python-*.whl
	@$(PIP) install --quiet -c constraints.txt -e .
	@[ -f deployments/model/engine/native/own_products.so ] || echo "The engine's own kernels were not compiled (Linux and a C++ compiler only): llama.cpp computes, slower."
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing the tools for tests and checks"
	@$(BIN)/python tools/install.py dependencies dev
	@touch $@

.PHONY: help setup run chat test check fmt bench products-bench build-bench engine-bench api-bench routing-bench profile-api append-bench history-bench fanout-bench idle-readers start-bench wheels chaos load clean

setup: $(VENV)/.run ## creates the environment

run: $(VENV)/.run ## serves the product until Ctrl-C; PORT=8000
	@exec $(BIN)/rustygpt serve $(if $(PORT),--port $(PORT))

chat: $(VENV)/.run ## talks with the model in this terminal
	@exec $(BIN)/rustygpt chat

# The programs of the system come first: nothing else has been done when one cannot be had.
test: ## runs the tests; ARGS="-k name" chooses some
	@$(SYSTEM) $(if $(wildcard $(VENV)/.created),,run) test
	@$(MAKE) --no-print-directory $(VENV)/.dev
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

build-bench: $(VENV)/.dev ## measures two builds of llama.cpp in turns; FOLDERS="one other", by default the installed one
	@$(BIN)/python -m load.build_bench $(or $(FOLDERS),$(error FOLDERS=folder is needed)) $(ARGS)

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

start-bench: $(VENV)/.dev ## measures from git clone to the first token, and from make run; ARGS=--warm-only
	@$(BIN)/python -m load.start_bench $(ARGS)

wheels: $(VENV)/.created ## builds wheels into dist/ that run on any x86-64 processor
	@$(BIN)/python tools/build_llama.py "$(LLAMA)" dist all
	@$(PIP) wheel --quiet --no-deps --wheel-dir dist .

chaos: $(VENV)/.dev ## kills and stops every part of the product while people use it, and checks what they saw; QUICK=1: once each
	@$(SYSTEM) postgresql
	@$(BIN)/python -m tests.chaos $(if $(QUICK),--quick) $(ARGS)

load: $(VENV)/.dev ## Locust against a running service; HOST=http://127.0.0.1:8000
	@$(BIN)/locust -f load/locustfile.py --headless -u 8 -r 4 -t 30s --host $(or $(HOST),http://127.0.0.1:8000)

clean: ## removes the environment; data stay
	rm -rf $(VENV)
