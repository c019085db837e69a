# Everything runs from the lock file in .venv; `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
export PYTHON
# Without bytecode, every process compiles TensorFlow anew: 4 s of 7.
unexport PYTHONDONTWRITEBYTECODE

export NO_MKDOCS_2_WARNING := 1

# In the order of tests/conftest.py, so that the long files are not the last.
PYTEST = $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -q

.PHONY: docs audit release sbom soak test-soak help setup demo test check lint format types bench fuzz lock wire clean conformance
.PHONY: matrix protos up down logs publish test-containers

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup:
	@.ci/setup

demo: setup ## train, index, publish, serve and query: make demo [DATA=...] [SERVER=embedded|docker|binary]
	@exec $(BIN)/shortlist demo $(if $(DATA),--data "$(DATA)") $(if $(SERVER),--server $(SERVER))

test: setup ## all tests but those of `make conformance`, `test-soak`, `matrix` and `test-containers`
	$(PYTEST) -m "not conformance" --ignore tests/soak

test-soak: setup ## a minute each of `make soak` and `make fuzz`, and the commands of the documentation's start and tutorials
	$(BIN)/pytest -q tests/soak

test-containers: setup ## build the images, run the whole stack in containers and test it
	@tests/containers/run.sh

check: setup ## the fast tests, in under two minutes
	$(PYTEST) -m "not slow and not conformance"

matrix: setup ## other Pythons and TensorFlows: make matrix [CELLS="clients tensorflow beam languages python"]
	@tests/matrix/run.sh $(CELLS)

conformance: setup ## replay what a real TensorFlow Serving answered
	$(BIN)/pytest -q -rs tests/conformance

soak: setup ## 100 rollouts under load, then publications at 80 % of capacity: make soak [SERVER=embedded|binary] [MINUTES=10] [FLAGS="--attacks --every 300"]
	$(BIN)/python -m tests.soak.rollouts $(if $(SERVER),--server $(SERVER))
	$(BIN)/python -m tests.soak.soak --minutes $(or $(MINUTES),10) $(FLAGS)

lint: setup ## format, lint, import rules, dependencies, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry clients serving export
	$(BIN)/python -m shortlist.clients.wire.generate --check
	docker/lint.sh

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: setup ## mypy, strict
	$(BIN)/mypy

bench: setup ## measure: make bench [WHAT=client|server|index|export|train|tower|quality] [FLAGS=...]
	$(BIN)/shortlist bench $(or $(WHAT),client) $(FLAGS)

fuzz: setup ## mutated requests and frames against the embedded server: make fuzz [MINUTES=60]
	$(BIN)/python -m tests.soak.fuzz $(if $(MINUTES),--count 10000 --minutes $(MINUTES))

# All extras but tensorflow-cpu, which the images lock in place of tensorflow.
LOCKED = all scann numpy prometheus opentelemetry mlflow tune baselines remote sql dev
# One version of each package for all Pythons.
COMPILE = $(BIN)/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-header

lock: setup ## renew the lock files after a change to pyproject.toml
	$(COMPILE) $(LOCKED:%=--extra %) pyproject.toml -o requirements.lock
	echo uv | $(COMPILE) - -o requirements-setup.lock
	docker/requirements/lock.sh
	$(COMPILE) --no-annotate --extra all --extra tensorflow-cpu --override docker/requirements/overrides.txt \
	    pyproject.toml -o tests/matrix/tensorflow-2.21.lock
	$(COMPILE) --no-annotate --extra all --extra beam pyproject.toml -o tests/matrix/beam.lock

audit: setup ## look the locked packages up among known vulnerabilities
	for lock in requirements.lock docker/requirements/*.lock; do \
	    $(BIN)/pip-audit --disable-pip --require-hashes -r $$lock || exit 1; done

release: setup ## wheel, sdist, SBOM and images of this version, built and checked; nothing is uploaded
	@.ci/release

sbom: setup ## what each image holds, as CycloneDX: build/sbom/*.cdx.json
	docker/requirements/sbom.sh build/sbom

STACK = $(BIN)/shortlist stack
REPOSITORY ?= models

up: setup ## serve in containers: make up [REPOSITORY=models] [PROFILES=scann,sharded,monitoring,tls]
	@$(STACK) up --repository "$(REPOSITORY)" --profiles "$(PROFILES)"

down: setup ## stop and remove those containers
	@$(STACK) down --repository "$(REPOSITORY)"

logs: setup ## what they wrote, and what they go on writing
	@$(STACK) logs --follow --repository "$(REPOSITORY)"

publish: setup ## train and publish in a container: make publish [DATA=sample] [REPOSITORY=models] [FLAGS=...]
	@$(STACK) publish --repository "$(REPOSITORY)" --data "$(or $(DATA),sample)" -- $(FLAGS)

docs: setup ## build the documentation as a site: build/docs/index.html
	$(BIN)/mkdocs build --strict

wire: setup ## make the messages' code from clients/wire/*.proto
	$(BIN)/python -m shortlist.clients.wire.generate

# Relative to src/, whose links lead to the packages.
WIRE = shortlist/clients/wire

protos: ## pack the messages and services for other languages: build/shortlist-protos.tar.gz
	@mkdir -p build
	@tar -C src --dereference --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
	    --transform 's|.*/buf|buf|' -czf build/shortlist-protos.tar.gz \
	    $$(cd src && ls $(WIRE)/*.proto $(WIRE)/services/*) -C .. LICENSE
	@echo build/shortlist-protos.tar.gz

clean: ## remove what the targets made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist demo-output
