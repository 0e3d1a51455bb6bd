.DEFAULT_GOAL := help
# The first Python that is 3.11 or 3.12; only needed to make .venv.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo $$p; break; }; done)
DATA ?=
EPOCHS ?=
IMAGE_SIZE ?=
NETWORK ?=
PORT ?=
DEMO_OPTIONS ?=
# The image: its name, its tag, and what it is built on. GPU=0 takes the base without CUDA; TORCH=cpu or cuda is for a
# base without torch.
REPOSITORY ?= sagemaker-monai
TAG ?= $(shell git describe --always --dirty 2>/dev/null || echo latest)
GPU ?= 1
DLC := public.ecr.aws/deep-learning-containers/pytorch
BASE_IMAGE ?= $(DLC):2.13-$(if $(filter 0,$(GPU)),cpu,cu133)-amzn2023-sagemaker
TORCH ?= base
BUILD_OPTIONS ?=
# What runs here is the newest build, unless a TAG is given.
LOCAL_IMAGE = $(REPOSITORY):$(if $(filter file undefined,$(origin TAG)),latest,$(TAG))
HYPERPARAMETERS ?=
MODEL ?=
IMAGE ?=
OUTPUT ?= ml
REGION ?=

NEED = $(if $($1),,$(error $1 is needed: make $(MAKECMDGOALS) $1=...))

help:  ## list every target
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed  ## make or update .venv from the hashed pins

.venv/installed: scripts/install.py pyproject.toml $(wildcard docker/requirements*.txt)
	@$(if $(PYTHON),,$(error Python 3.11 or 3.12 is needed: name one with PYTHON=...))
	$(PYTHON) scripts/install.py

demo: .venv/installed  ## photographs to answers here: [DATA=path/to/dataverse] [EPOCHS=] [IMAGE_SIZE=] [NETWORK=]
	@.venv/bin/python -m scripts.demo $(if $(DATA),--data "$(DATA)") $(if $(EPOCHS),--epochs $(EPOCHS)) \
		$(if $(IMAGE_SIZE),--image-size $(IMAGE_SIZE)) $(if $(NETWORK),--network $(NETWORK)) \
		$(if $(PORT),--port $(PORT)) $(DEMO_OPTIONS)

test: .venv/installed  ## run the tests
	.venv/bin/python -m pytest -q --ignore=tests/image

lint: .venv/installed  ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed  ## let ruff order and lay out the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

check: lint test  ## what CI runs before the demo

bench-input: .venv/installed  ## time the training input against MONAI's own pipelines
	.venv/bin/python -m scripts.bench_input

docs: .venv/installed  ## write the README's generated tables from the code
	.venv/bin/python -m scripts.write_tables

lock: .venv/installed  ## resolve pyproject.toml into the hashed pins of docker/ (needs uv)
	.venv/bin/python scripts/lock.py

build:  ## build the image REPOSITORY:TAG: [BASE_IMAGE=] [GPU=0] [TORCH=cpu] [BUILD_OPTIONS=]
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build $(BUILD_OPTIONS) --build-arg BASE_IMAGE="$(BASE_IMAGE)" --build-arg TORCH=$(TORCH) \
		--build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
		--build-arg SOURCE="$$(git config --get remote.origin.url | sed 's|//[^/@]*@|//|' | grep . || echo unknown)" \
		--build-arg VERSION="$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" \
		--tag $(REPOSITORY):$(TAG) --tag $(REPOSITORY):latest .

test-image: .venv/installed  ## test the image with the engine that is there: [TAG=] [BASE_IMAGE=]
	IMAGE=$(LOCAL_IMAGE) BASE_IMAGE="$(BASE_IMAGE)" .venv/bin/python -m pytest -q tests/image

train-local:  ## train in the image: DATA=folder [OUTPUT=ml] [EPOCHS=] [HYPERPARAMETERS="name=value ..."]
	$(call NEED,DATA)$(PYTHON) -m scripts.local train --image $(LOCAL_IMAGE) "$(DATA)" --output "$(OUTPUT)" --checkpoints \
		--hyperparameters $(if $(EPOCHS),epochs=$(EPOCHS)) $(if $(IMAGE_SIZE),image_size=$(IMAGE_SIZE)) \
		$(if $(NETWORK),network=$(NETWORK)) $(HYPERPARAMETERS)

serve-local:  ## serve an artifact in the image: MODEL=folder or model.tar.gz [PORT=8080]
	$(call NEED,MODEL)$(PYTHON) -m scripts.local serve --image $(LOCAL_IMAGE) "$(MODEL)" $(if $(PORT),--port $(PORT))

predict-local:  ## post a picture, or a folder of them, to serve-local: IMAGE=file [PORT=8080]
	$(call NEED,IMAGE)$(PYTHON) -m scripts.local predict "$(IMAGE)" $(if $(PORT),--port $(PORT))

shell:  ## a shell in the image
	$(PYTHON) -m scripts.local shell --image $(LOCAL_IMAGE)

push: .venv/installed  ## push the image to ECR, print its digest: [REGION=] [PUSH_OPTIONS="--create --dry-run"]
	@.venv/bin/python -m scripts.push --image $(REPOSITORY):$(TAG) $(if $(REGION),--region $(REGION)) $(PUSH_OPTIONS)

scan: .venv/installed  ## look for known vulnerabilities in the image
	@.venv/bin/python -m scripts.scan --image $(LOCAL_IMAGE)

sbom:  ## print the image's bill of materials (CycloneDX)
	@docker run --rm --network none $(LOCAL_IMAGE) cat /opt/sagemaker-monai/sbom.cdx.json

clean:  ## remove .venv, .demo and caches
	rm -rf .venv .sdk .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist container_src/*.egg-info
	find container_src scripts tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help install demo test lint format check bench-input docs lock build test-image \
	train-local serve-local predict-local shell push scan sbom clean
