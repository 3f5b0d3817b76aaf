# Everything a developer or a newcomer runs. `make` alone prints this list.
.DEFAULT_GOAL := help
.PHONY: help venv setup demo real realproof model stores prometheus test test-fast soak bench learning lint generate docs release krew clean
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# One more than there are processors, at most 4 of these: tests of the control plane wait most of their time.
WORKERS := -n $(shell n=$$(nproc); echo $$(( (n < 4 ? n : 4) + 1 ))) --dist loadgroup
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# What an image is made of goes to the registry beside it (SBOM and provenance).
IMAGE = docker buildx build --push --sbom=true --provenance=mode=max --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD)
SMOLLM2 := .ratchet/models/smollm2

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: .venv/ready ## the virtual environment alone: enough to write, check, train and read jobs

setup: .venv/ready ## make the virtual environment and build the control plane (once; the build alone takes about 5 minutes on two cores)
	@$(BIN)/ratchet cluster build > /dev/null

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Ratchet needs Python 3.11 or newer; call: make PYTHON=/path/to/python3.11 ...")'
	@echo "Installing Python packages into .venv, quietly: a minute on a free machine, several on a busy one"
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

prometheus: .venv/ready ## Prometheus and promtool, built from source (once; 3 minutes on two cores)
	@$(BIN)/ratchet cluster build --prometheus > /dev/null

test: setup stores prometheus ## all tests; long random runs are in `make soak`
	@$(BIN)/python -m pytest -m 'not soak' $(WORKERS) $(ARGS)

test-fast: .venv/ready ## the quick tests, without a cluster: under two minutes on two cores
	@$(BIN)/python -m pytest -q -m 'not soak and not slow' $(WORKERS) $(ARGS)

soak: setup stores ## the long random runs
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
	@$(BIN)/ratchet crd --format json-schema > crds/rltrainingjob.schema.json
	@$(BIN)/ratchet crd --format markdown > docs/api.md
	@$(BIN)/python -m ratchet_operator.decide.reference_page > docs/conditions.md
	@$(BIN)/python -m ratchet_api.metrics.reference_page > docs/metrics.md
	@$(BIN)/python -m ratchet_monitoring.generate
	@$(BIN)/python helm/chart_documents.py
	@$(BIN)/python website/troubleshooting.py > .ratchet-page && mv .ratchet-page docs/troubleshooting.md

docs: .venv/ready ## build the documentation as a site into .ratchet/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build  # not quietly: what is not logged does not count as a warning
	@echo "open .ratchet/site/index.html, or: $(BIN)/python -m http.server --directory .ratchet/site --bind 127.0.0.1 8000"

pictures: ## the dashboards' pictures, drawn by @grafana/ui in Chromium: make pictures ARGS='--prometheus URL --from SECONDS --to SECONDS fleet:dark'
	@cd monitoring/pictures && npm install --no-package-lock --silent && node take.mjs $(ARGS)

release: ## push both images (REGISTRY=ghcr.io/NAME; with RELEASE_URL the kubectl plugin, too; needs docker buildx) and pin chart and examples to their digest
	@test -n '$(REGISTRY)' || { echo 'give the registry to push to: make release REGISTRY=ghcr.io/NAME'; exit 1; }
	@mkdir -p .ratchet
	$(IMAGE) --target operator --tag $(REGISTRY)/ratchet:$(VERSION) --metadata-file .ratchet/operator-image.json .
	$(IMAGE) --target trainer-cpu --tag $(REGISTRY)/ratchet-trainer:$(VERSION)-cpu .
	$(IMAGE) --target trainer --tag $(REGISTRY)/ratchet-trainer:$(VERSION) --metadata-file .ratchet/trainer-image.json .
	@$(PYTHON) release/pin_images.py .ratchet/trainer-image.json
	@$(PYTHON) release/pin_images.py --check
	@if [ -n '$(RELEASE_URL)' ]; then $(MAKE) --no-print-directory krew; else echo 'no RELEASE_URL: the kubectl plugin was not packed for Krew'; fi
	@echo "commit the changed files, then: git tag v$(VERSION)"

krew: .venv/ready ## pack the kubectl plugin and fill Krew's manifest (RELEASE_URL=https://.../releases/download/vX.Y.Z) into .ratchet/release
	@test -n '$(RELEASE_URL)' || { echo 'say where the files of the release will be: RELEASE_URL=https://github.com/NAME/REPOSITORY/releases/download/v$(VERSION)'; exit 1; }
	@rm -rf .ratchet/release
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir .ratchet/release .
	@$(BIN)/python release/krew.py .ratchet/release/ratchet_rl-$(VERSION)-py3-none-any.whl $(VERSION) $(RELEASE_URL) .ratchet/release
	@$(BIN)/python release/krew.py --check .ratchet/release/krew.yaml

clean: ## remove the virtual environment and local runs (the built control plane stays in the user's cache)
	@rm -rf .venv .ratchet
