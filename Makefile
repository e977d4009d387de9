# Everything a contributor runs. `make` alone lists it.

PYTHON  ?= python3
VENV    := .venv
PY      := $(VENV)/bin/python
PIP     := $(PY) -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
SEEDS   ?= 100
START   ?= 0
REPO    ?=
ARGS    ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test proofs simulate bench observe check k8s-check format docs servers clean distclean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.dev ## Create .venv with everything for development (PYTHON=python3.12 to choose)
	@echo "$(VENV) is ready"

demo: $(VENV)/.demo ## Run the demo (REPO=path/to/a/git/repository)
	@$(VENV)/bin/millstream demo $(if $(REPO),--repo "$(REPO)") $(ARGS)

test: $(VENV)/.dev servers ## Run all tests but the slow ones (ARGS="-k lease" to choose)
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup -m "not slow and not k8s" $(ARGS)

proofs: $(VENV)/.dev servers ## Run the slow tests: kills, floods, long histories, the image
	$(PY) -m pytest -m "slow and not k8s" -o timeout=600 -n $(WORKERS) --dist loadgroup tests/store tests/simulation $(ARGS)
	$(PY) -m pytest -m "slow and not k8s" -o timeout=600 --ignore tests/simulation --ignore tests/store $(ARGS)

simulate: $(VENV)/.dev ## Simulate clients, workers and faults on virtual time (SEEDS=100)
	$(PY) -m tests.simulation --seeds $(SEEDS) --start $(START) $(ARGS)

bench: $(VENV)/.dev ## Measure against the peers, half an hour (ARGS="--measures drain --repeat 3")
	$(PY) -m benchmarks $(ARGS)

observe: $(VENV)/.dev servers ## A real Prometheus on real processes: targets, rules, an alert that fires
	$(PY) -m pytest -q -s -m slow tests/monitoring/test_observe.py $(ARGS)

check: $(VENV)/.dev ## The one gate: format, lint, types, layers, generated docs, house rules
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports
	$(PY) scripts/docs.py --check
	$(PY) scripts/dashboards.py --check
	$(PY) -m pytest -q -m "not slow" -o verbosity_assertions=2 tests/house

k8s-check: $(VENV)/.k8s servers ## Render every manifest, validate and judge it, and run its pods as processes
	@sh scripts/k8s_models.sh
	$(VENV)/bin/hadolint Dockerfile
	$(PY) -m k8s.check
	$(PY) -m pytest -q -m k8s -o verbosity_assertions=2 tests/k8s $(ARGS)

format: $(VENV)/.dev ## Format, and repair what the linter can repair
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: $(VENV)/.dev ## Write the generated pages again
	$(PY) scripts/docs.py
	$(PY) scripts/dashboards.py

servers: # Redis, Valkey where it is at hand, Prometheus, kubectl, and the public MCP servers that npm brings
	@sh scripts/redis.sh
	@sh scripts/prometheus.sh
	@sh scripts/mcp_servers.sh
	@PY=$(PY) sh scripts/kubectl.sh

clean: ## Remove caches and build outputs; .venv and .tools stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './.tools/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv and .tools too
	rm -rf $(VENV) .tools

# The development set contains the demo's, so one install serves both.
$(VENV)/.dev: pyproject.toml $(VENV)/bin/pip
	@echo "installing millstream[dev] into $(VENV) (a minute or two) ..."
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.demo $@

$(VENV)/.k8s: $(VENV)/.dev
	@echo "installing millstream[k8s] into $(VENV) ..."
	@$(PIP) --editable '.[k8s]'
	@touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/bin/pip
	@echo "installing millstream[all,demo] into $(VENV) (a minute or two) ..."
	@$(PIP) --editable '.[all,demo]'
	@touch $@

# pip is the last thing that `venv` writes: when it is there, the environment is whole.
$(VENV)/bin/pip:
	@$(PYTHON) -c '' 2>/dev/null || \
	  { echo "millstream needs Python 3.11 or newer; '$(PYTHON)' does not run: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "millstream needs Python 3.11 or newer; '$(PYTHON)' is older: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' comes without its venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
