.DEFAULT_GOAL := help
# The first Python that is 3.11 or 3.12; only needed to make .venv.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { echo $$p; break; }; done)
# For commands that run without .venv: finds our packages in their folders.
ON_PLAIN_PYTHON = PYTHONPATH=container_src:scripts $(PYTHON)
# The image's name, tag and base. GPU=0 takes the base without CUDA; TORCH=cpu or cuda is for a base without torch.
REPOSITORY ?= sagemaker-monai
TAG ?= $(shell git describe --always --dirty 2>/dev/null || echo latest)
GPU ?= 1
DLC := public.ecr.aws/deep-learning-containers/pytorch
BASE_IMAGE ?= $(DLC):2.13-$(if $(filter 0,$(GPU)),cpu,cu133)-amzn2023-sagemaker
TORCH ?= base
# Local commands run the newest build, unless a TAG is given.
LOCAL_IMAGE = $(REPOSITORY):$(if $(filter file undefined,$(origin TAG)),latest,$(TAG))
OUTPUT ?= ml
# SageMaker targets take REGION, BUCKET, ROLE, and the variables that `make help` names; config.env can hold settings,
# which variables given here override. OPTIONS are passed to the command: OPTIONS=--help lists them, OPTIONS=--dry-run
# prints the requests and the cost and changes nothing.
BACK_END ?= venv

# A flag if its variable is set, and the flags that several commands share.
flag = $(if $($2),$1 "$($2)")
AWS_FLAGS = $(call flag,--region,REGION) $(call flag,--bucket,BUCKET) $(call flag,--role,ROLE) \
	$(if $(filter file undefined,$(origin REPOSITORY)),,--repository $(REPOSITORY)) \
	$(if $(filter file undefined,$(origin TAG)),,--image $(TAG)) $(OPTIONS)
HYPERPARAMETER_WORDS = $(if $(EPOCHS),epochs=$(EPOCHS)) $(if $(IMAGE_SIZE),image_size=$(IMAGE_SIZE)) \
	$(if $(NETWORK),network=$(NETWORK)) $(HYPERPARAMETERS)
HYPERPARAMETER_FLAGS = $(if $(strip $(HYPERPARAMETER_WORDS)),--hyperparameters $(HYPERPARAMETER_WORDS))

# Former variables are errors: ignoring one would run something other than what the user meant.
$(foreach name,RUNS CONTENT_TYPE EVALUATION ARGUMENTS SAVE NAME FOLLOW,$(if $(filter command line,$(origin $(name))), \
	$(error $(name) is an option of the command: OPTIONS="--...", which OPTIONS=--help lists)))

NEED = $(if $($1),,$(error $1 is needed: make $(MAKECMDGOALS) $1=...))

help:  ## list every target
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed  ## make or update .venv from the hashed pins

.venv/installed: scripts/develop/install.py pyproject.toml $(wildcard docker/requirements*.txt)
	@$(if $(PYTHON),,$(error Python 3.11 or 3.12 is needed: name one with PYTHON=...))
	$(PYTHON) scripts/develop/install.py

demo: .venv/installed  ## photographs to answers here: [DATA=path/to/dataverse] [EPOCHS=] [IMAGE_SIZE=] [NETWORK=]
	@.venv/bin/python -m develop.demo $(call flag,--data,DATA) $(call flag,--epochs,EPOCHS) \
		$(call flag,--image-size,IMAGE_SIZE) $(call flag,--network,NETWORK) $(call flag,--port,PORT) $(DEMO_OPTIONS)

demo-volume: .venv/installed  ## CT series to answers here, as DICOM and 3-D: [EPOCHS=] [DEMO_OPTIONS=--help]
	@.venv/bin/python -m develop.demo_volume $(call flag,--epochs,EPOCHS) $(call flag,--port,PORT) $(DEMO_OPTIONS)

demo-segmentation: .venv/installed  ## CT series and masks to served masks and pictures here: [EPOCHS=] [DEMO_OPTIONS=--help]
	@.venv/bin/python -m develop.demo_segmentation $(call flag,--epochs,EPOCHS) $(call flag,--port,PORT) $(DEMO_OPTIONS)

# One process per core; WORKERS=0 runs all in this process, for a debugger. `worksteal` hands out long runs of
# consecutive tests, so that most module fixtures are made once.
WORKERS ?= logical
PYTEST = .venv/bin/python -m pytest -q --numprocesses $(WORKERS) --dist worksteal --ignore=tests/image

test: .venv/installed  ## run the quick tests: [WORKERS=]
	$(PYTEST) -m "not long and not attacks"

test-long: .venv/installed  ## run the exhaustive tests: fuzzing, every network, kills, other programs: [WORKERS=]
	$(PYTEST) -m long

test-all: test test-long  ## run the quick and the exhaustive tests

lint: .venv/installed  ## run ruff, mypy and the word list
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m develop.words
	.venv/bin/mypy

format: .venv/installed  ## format the code with ruff
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

check: lint test-all  ## run lint and all tests, as CI does before the demo

doctor: .venv/installed  ## examine a data set: DATA=folder, zip or tar [OUTPUT=doctor] [OPTIONS=--help]
	$(call NEED,DATA).venv/bin/python -m sagemaker_monai.entrypoints.doctor "$(DATA)" \
		--output "$(if $(filter file undefined,$(origin OUTPUT)),doctor,$(OUTPUT))" $(OPTIONS)

real-runs: .venv/installed  ## real data from import to answers, with baselines: DATA=folder [OPTIONS=--quick]
	@$(call NEED,DATA).venv/bin/python -m develop.real_runs "$(DATA)" $(OPTIONS)

bench-io: .venv/installed  ## time reading volumes against MONAI and others: [OPTIONS=--help]
	.venv/bin/python -m develop.bench_io $(OPTIONS)

bench-input: .venv/installed  ## time the training input against MONAI's own pipelines
	.venv/bin/python -m develop.bench_input

bench-masks: .venv/installed  ## measure memory, answers and training of segmentation at full size: [OPTIONS=--help]
	.venv/bin/python -m develop.bench_masks $(OPTIONS)

bench-attacks: .venv/installed  ## run the long attacks and print the results: [KIND="pixels jpeg ..."] [OPTIONS=--short]
	@.venv/bin/python -m tests.attacks $(KIND) $(OPTIONS)

docs: .venv/installed  ## write the generated tables of docs/, from the code and, if present, the odd files
	.venv/bin/python -m develop.write_tables
	.venv/bin/python -m tests.support.formats

lock: .venv/installed  ## resolve pyproject.toml into the hashed pins of docker/ (needs uv)
	.venv/bin/python scripts/develop/lock.py

# With RELEASE=1, as in buildspec.yml, refuse at once what `make push` would refuse after an hour.
RELEASED = $(if $(filter 1,$(RELEASE)),$(if $(findstring @sha256:,$(BASE_IMAGE)),,$(error a release is built on a digest, \
	and BASE_IMAGE is $(BASE_IMAGE): give BASE_IMAGE=NAME@sha256:... - docs/image.md says how to find it)))

build:  ## build the image REPOSITORY:TAG: [BASE_IMAGE=] [GPU=0] [TORCH=cpu] [BUILD_OPTIONS=]
	$(RELEASED)BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build $(BUILD_OPTIONS) --build-arg BASE_IMAGE="$(BASE_IMAGE)" --build-arg TORCH=$(TORCH) \
		--build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
		--build-arg SOURCE="$$(git config --get remote.origin.url | sed 's|//[^/@]*@|//|' | grep . || echo unknown)" \
		--build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' container_src/sagemaker_monai/__init__.py)" \
		--tag $(REPOSITORY):$(TAG) --tag $(REPOSITORY):latest .

test-image: .venv/installed  ## test the image with the local Docker engine: [TAG=] [BASE_IMAGE=] [WORKERS=]
	IMAGE=$(LOCAL_IMAGE) BASE_IMAGE="$(BASE_IMAGE)" .venv/bin/python -m pytest -q tests/image \
		--numprocesses $(WORKERS) --dist loadfile

train-local:  ## train in the image: DATA=folder [OUTPUT=ml] [EPOCHS=] [HYPERPARAMETERS="name=value ..."]
	$(call NEED,DATA)$(ON_PLAIN_PYTHON) -m develop.local train --image $(LOCAL_IMAGE) "$(DATA)" --output "$(OUTPUT)" --checkpoints \
		$(HYPERPARAMETER_FLAGS)

serve-local:  ## serve an artifact in the image: MODEL=folder or model.tar.gz [PORT=8080]
	$(call NEED,MODEL)$(ON_PLAIN_PYTHON) -m develop.local serve --image $(LOCAL_IMAGE) "$(MODEL)" $(call flag,--port,PORT)

predict-local:  ## post a picture or a folder of pictures to serve-local: IMAGE=file [PORT=8080]
	$(call NEED,IMAGE)$(ON_PLAIN_PYTHON) -m develop.local predict "$(IMAGE)" $(call flag,--port,PORT) $(OPTIONS)

shell:  ## open a shell in the image
	$(ON_PLAIN_PYTHON) -m develop.local shell --image $(LOCAL_IMAGE)

push: .venv/installed  ## push the image to ECR, print its digest: [REGION=] [PUSH_OPTIONS="--create --dry-run"]
	@.venv/bin/sagemaker-monai push --image $(REPOSITORY):$(TAG) $(call flag,--region,REGION) $(PUSH_OPTIONS) $(OPTIONS)

scan: .venv/installed  ## look for known vulnerabilities in the image
	@.venv/bin/python -m develop.scan --image $(LOCAL_IMAGE)

sbom:  ## print the image's bill of materials (CycloneDX)
	@docker run --rm --network none $(LOCAL_IMAGE) cat /opt/sagemaker-monai/sbom.cdx.json

iam: .venv/installed  ## print least-privilege policies: [KIND="training hosting ..."] [OPTIONS="--account=... --trust"]
	@.venv/bin/sagemaker-monai iam $(KIND) $(call flag,--region,REGION) $(OPTIONS)

infra: .venv/installed  ## create bucket, repository, roles and build as one stack: [SOURCE=https://github.com/...]
	@.venv/bin/sagemaker-monai infra $(call flag,--source,SOURCE) $(call flag,--region,REGION) $(OPTIONS)

prepare-s3: .venv/installed  ## upload a data set: DATA=folder
	@$(call NEED,DATA).venv/bin/sagemaker-monai prepare-s3 "$(DATA)" $(AWS_FLAGS)

train: .venv/installed  ## train on SageMaker, follow the job: [DATA=s3://...] [EPOCHS=] [HYPERPARAMETERS="name=value ..."]
	@.venv/bin/sagemaker-monai train $(call flag,--data,DATA) $(HYPERPARAMETER_FLAGS) $(AWS_FLAGS)

tune: .venv/installed  ## search hyperparameters: RANGES="learning_rate=1e-4:1e-2:log ..." [DATA=s3://...]
	@$(call NEED,RANGES).venv/bin/sagemaker-monai tune --ranges $(RANGES) $(call flag,--data,DATA) \
		$(HYPERPARAMETER_FLAGS) $(AWS_FLAGS)

process: .venv/installed  ## prepare or evaluate as a processing job: KIND=evaluate|prepare [MODEL=] [DATA=s3://...]
	@$(call NEED,KIND).venv/bin/sagemaker-monai process $(KIND) $(call flag,--model,MODEL) $(call flag,--data,DATA) $(AWS_FLAGS)

deploy: .venv/installed  ## host a model: [MODE=realtime|serverless|async|batch|multi-model] [MODEL=job or s3://...]
	@.venv/bin/sagemaker-monai deploy $(call flag,--mode,MODE) $(call flag,--model,MODEL) $(call flag,--endpoint,ENDPOINT) $(AWS_FLAGS)

predict: .venv/installed  ## send images to an endpoint: IMAGE=file, folder or s3://... [ENDPOINT=] [TARGET=]
	@$(call NEED,IMAGE).venv/bin/sagemaker-monai predict "$(IMAGE)" $(call flag,--endpoint,ENDPOINT) \
		$(call flag,--target,TARGET) $(AWS_FLAGS)

transform: .venv/installed  ## batch transform: INPUT=s3://... or manifest [MODEL=]
	@$(call NEED,INPUT).venv/bin/sagemaker-monai transform --input "$(INPUT)" $(call flag,--model,MODEL) $(AWS_FLAGS)

register: .venv/installed  ## add a model to the model registry: [MODEL=job or s3://...]
	@.venv/bin/sagemaker-monai register $(call flag,--model,MODEL) $(AWS_FLAGS)

pipeline: .venv/installed  ## create or update the pipeline prepare, train, evaluate, register: [OPTIONS=--start]
	@.venv/bin/sagemaker-monai pipeline $(call flag,--data,DATA) $(call flag,--source,SOURCE) $(HYPERPARAMETER_FLAGS) $(AWS_FLAGS)

status: .venv/installed  ## list what this project has in the account, and its cost by the hour
	@.venv/bin/sagemaker-monai status $(call flag,--region,REGION) $(OPTIONS)

logs: .venv/installed  ## print the log of a job or an endpoint: [JOB=name] [OPTIONS=--follow]
	@.venv/bin/sagemaker-monai logs $(JOB) $(call flag,--region,REGION) $(OPTIONS)

delete: .venv/installed  ## delete what costs money: ENDPOINT=, JOB=, MODEL=, PIPELINE=name or OPTIONS=--all
	@.venv/bin/sagemaker-monai delete $(call flag,--endpoint,ENDPOINT) $(call flag,--job,JOB) \
		$(call flag,--model,MODEL) $(call flag,--pipeline,PIPELINE) $(call flag,--region,REGION) $(OPTIONS)

prices: .venv/installed  ## fetch a region's instance prices from AWS: [REGION=]
	@.venv/bin/sagemaker-monai prices $(call flag,--region,REGION) $(OPTIONS)

simulate: .venv/installed  ## run an offline SageMaker until Ctrl-C: [PORT=] [BACK_END=venv|docker]
	@.venv/bin/python -m simulate serve $(call flag,--port,PORT) $(SIMULATE_FLAGS)

# Each takes a model through a whole life cycle: [DATA=folder] [EPOCHS=] [BACK_END=venv|docker]
SIMULATE_FLAGS = --back-end $(BACK_END) --image $(LOCAL_IMAGE) $(OPTIONS)
SIMULATE = .venv/bin/python -m simulate $(@:simulate-%=%) $(call flag,--data,DATA) \
	$(HYPERPARAMETER_FLAGS) $(SIMULATE_FLAGS)

simulate-train: .venv/installed  ## offline: train
	@$(SIMULATE)

simulate-spot: .venv/installed  ## offline: train on a spot instance that vanishes
	@$(SIMULATE)

simulate-endpoint: .venv/installed  ## offline: train, deploy, predict, delete
	@$(SIMULATE)

simulate-async: .venv/installed  ## offline: the same with an asynchronous endpoint
	@$(SIMULATE)

simulate-batch: .venv/installed  ## offline: train, batch transform, delete
	@$(SIMULATE)

simulate-multi-model: .venv/installed  ## offline: the same with a multi-model endpoint
	@$(SIMULATE)

simulate-masks: .venv/installed  ## offline: train on masks, evaluate, register, deploy, ask for masks, delete
	@$(SIMULATE)

simulate-all: .venv/installed  ## offline: all of these but the last with one model
	@$(SIMULATE)

clean:  ## remove .venv, .demo and caches
	rm -rf .venv .sdk .sdk3 .demo .simulate .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info container_src/*.egg-info
	find container_src scripts tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help install demo demo-volume demo-segmentation test test-long test-all lint format check doctor real-runs bench-io bench-input bench-masks bench-attacks \
	docs lock build test-image train-local serve-local predict-local shell push scan sbom iam infra prepare-s3 train tune \
	process deploy predict transform register pipeline status logs delete prices simulate simulate-train simulate-spot \
	simulate-endpoint simulate-async simulate-batch simulate-multi-model simulate-masks simulate-all clean
