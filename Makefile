# Everything a developer or a newcomer runs. `make` alone prints this list.
.DEFAULT_GOAL := help
.PHONY: help setup demo real realproof model stores test test-fast soak bench learning lint generate release clean
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# One more than there are processors, at most 4 of these: tests of the control plane wait most of their time.
WORKERS := -n $(shell n=$$(nproc); echo $$(( (n < 4 ? n : 4) + 1 ))) --dist loadgroup
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
SMOLLM2 := .ratchet/models/smollm2

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/ready ## make the virtual environment and build the control plane (once; the build alone takes about 5 minutes on two cores)
	@$(BIN)/ratchet cluster build > /dev/null

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ratchet needs Python 3.11 or newer; call: make PYTHON=/path/to/python3.11 ...")'
	@echo "Installing Python packages into .venv (about a minute)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## the whole story: train on a real control plane, lose nodes, recover, prove that nothing was lost
	@$(BIN)/ratchet demo $(ARGS)

real: model ## a real pretrained model learns to do sums: held-out accuracy before and after, samples, the curve (some 30 minutes on two cores)
	@$(BIN)/ratchet train examples/smollm2.yaml --model $(SMOLLM2) $(ARGS)
	@$(BIN)/ratchet samples examples/smollm2.yaml | head -60
	@$(BIN)/ratchet curve examples/smollm2.yaml
	@$(BIN)/ratchet curve examples/smollm2.yaml --metric evaluation/held-out/accuracy

realproof: model ## a few steps of the same, killed three times: every hash is equal
	@$(BIN)/ratchet prove examples/smollm2-short.yaml --model $(SMOLLM2) --kills 3 $(ARGS)

model: .venv/ready
	@$(BIN)/ratchet model fetch smollm2 $(SMOLLM2)

stores: .venv/ready ## the object stores that tests run against: fake-gcs-server is compiled, moto installed (once; 4 minutes on two cores)
	@$(BIN)/python -m ratchet_cluster.object_stores

test: setup stores ## all tests; long random runs are in `make soak`
	@$(BIN)/python -m pytest -m 'not soak' $(WORKERS) $(ARGS)

test-fast: .venv/ready ## the quick tests, without a cluster: under two minutes on two cores
	@$(BIN)/python -m pytest -q -m 'not soak and not slow' $(WORKERS) $(ARGS)

soak: setup ## the long random runs
	@$(BIN)/python -m pytest -m soak $(ARGS)

bench: setup ## benchmarks; they print ratios and write JSON
	@for file in $(filter-out bench/learning.py,$(wildcard bench/*.py)); do $(BIN)/python $$file || exit 1; done

learning: .venv/ready ## methods side by side, several seeds: a table and pictures in .ratchet/learning
	@$(BIN)/python bench/learning.py $(ARGS)

lint: .venv/ready ## style, types and the contracts between packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

generate: .venv/ready ## renew what follows from the API types
	@$(BIN)/ratchet crd > crds/rltrainingjobs.ratchet.dev.yaml
	@cp crds/rltrainingjobs.ratchet.dev.yaml helm/ratchet/files/
	@$(BIN)/ratchet crd --format markdown > docs/api.md
	@$(BIN)/python -m ratchet_operator.decide.reference_page > docs/conditions.md

release: ## push both images (REGISTRY=ghcr.io/NAME; needs docker buildx) and pin chart and examples to their digest
	@test -n '$(REGISTRY)' || { echo 'give the registry to push to: make release REGISTRY=ghcr.io/NAME'; exit 1; }
	@mkdir -p .ratchet
	docker buildx build --target operator --push --tag $(REGISTRY)/ratchet:$(VERSION) .
	docker buildx build --target trainer --push --tag $(REGISTRY)/ratchet-trainer:$(VERSION) --metadata-file .ratchet/trainer-image.json .
	@$(PYTHON) release/pin_images.py .ratchet/trainer-image.json
	@$(PYTHON) release/pin_images.py --check
	@echo "commit the changed files, then: git tag v$(VERSION)"

clean: ## remove the virtual environment and local runs (the built control plane stays in the user's cache)
	@rm -rf .venv .ratchet
