# `make` alone lists the targets. Everything runs in .venv, which `make setup` makes.

VENV   ?= .venv
# The environment's own Python once there is one, else the first that can make one.
PYTHON ?= $(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import venv, ensurepip' 2>/dev/null && command -v $$p && break; done))
# Kind of torch: cpu, cu126, cu129 or cu130 (NVIDIA), rocm72 (AMD), mps (Apple). Empty: as before, else mps on a Mac, else cpu.
TORCH  ?=
# Stage of an image: plain, cloud (with sshd, for pods) or, for cuda, sage (with SageAttention).
STAGE  ?= plain
# Processes that share the tests; each may take 2 GB. JOBS=0 runs them in one, for a debugger.
JOBS   ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n > 4 ? 4 : n)))
# Where PyTorch's builds are served, for those who have a mirror.
TORCH_INDEX ?= https://download.pytorch.org/whl

BIN := $(VENV)/bin
# Images are built without .venv, by any Python from 3.11 on.
IMAGE_PYTHON := $(or $(PYTHON),python3)
# One thread: with two, small models spend their time waiting for each other.
OFFLINE := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 WANDB_MODE=offline

.DEFAULT_GOAL := help
.PHONY: help setup demo smoke test lint format bench gpu-check docs lock clean image-cuda image-rocm image-cpu image-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv and install the locked packages (TORCH=cu126, cu129, cu130, rocm72 or mps; PYTHON=python3.12)
	@"$(PYTHON)" scripts/setup.py --venv $(VENV) --torch-index $(TORCH_INDEX) $(if $(TORCH),--torch $(TORCH))

demo: setup ## train a LoRA for a tiny model on clips that it makes itself; under a minute
	@$(OFFLINE) $(BIN)/ltxtrain train --preset smoke

smoke: setup ## the demo in a temporary folder; checks that the files are there
	@$(OFFLINE) $(BIN)/python scripts/smoke.py

test: setup ## the tests, offline (ARGS="-k cache" to choose)
	@$(OFFLINE) $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

lint: setup ## format, rules, types, floors and doors, sizes
	@PATH="$(abspath $(BIN)):$$PATH" scripts/lint.sh

format: setup ## let ruff format the code and mend what it can
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .

bench: setup ## measure against a bare loop, side by side; prints ratios
	@$(OFFLINE) $(BIN)/python -m bench $(ARGS)

# Of an environment of one's own: make gpu-check PYTHON=path/to/python, which is taken as it is.
GPU_PYTHON := $(if $(filter file,$(origin PYTHON)),$(BIN)/python,$(PYTHON))
gpu-check: $(if $(filter file,$(origin PYTHON)),setup) ## measure the presets on this GPU with random weights, in stages (ARGS="--list" names them)
	@$(filter-out OMP_NUM_THREADS=1,$(OFFLINE)) "$(GPU_PYTHON)" -m bench.gpu_check $(ARGS)

docs: setup ## write the reference: docs/options.md, docs/names.md, docs/presets.md
	@$(BIN)/python scripts/reference.py

lock: setup ## resolve again and rewrite lock.txt, dev.txt and sbom.txt in requirements (needs the network)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python scripts/lock.py

image-cuda: ## build the image for NVIDIA (STAGE=cloud with sshd, for pods; TORCH=cu126 or cu130 for other drivers)
image-rocm: ## build the image for AMD
image-cpu: ## build the image without a GPU
image-cuda image-rocm image-cpu:
	@$(IMAGE_PYTHON) scripts/image/build.py $(@:image-%=%) --stage $(STAGE) $(if $(TORCH),--torch $(TORCH)) \
		$(if $(filter-out file,$(origin TORCH_INDEX)),--build-arg TORCH_INDEX=$(TORCH_INDEX)) $(ARGS)

image-test: ## build the images and run them: users, kills, read-only, no network (needs Docker, or root on Debian 12)
	@$(IMAGE_PYTHON) scripts/image/test.py $(ARGS)

clean: ## remove what the targets made, but not .venv, output or cache
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
