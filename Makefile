# Set-up is a step of its own that every target needs, so each works first on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run fast test chaos lint types tests setup clean

run: setup
	$(BIN)/python sweeps/distill_search.py --preset quick

# what a change is tried with: a minute; one thread, for pyright has the other core
fast: lint
	@export OMP_NUM_THREADS=1; $(call with_types,tests/unit)

# all there is: some twenty minutes
test: lint
	@$(call with_types,--durations=25)

# pyright needs one core, and works beside the tests; what it says comes after what they say; either may fail
define with_types
$(BIN)/pyright > $(VENV)/types.log 2>&1 & types=$$!; \
$(BIN)/python -m pytest -q $(1); tests=$$?; \
wait $$types; types=$$?; cat $(VENV)/types.log; exit $$((tests | types))
endef

# interruptions of every kind, again and again: up to an hour
chaos: setup
	$(BIN)/python tests/support/chaos.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

tests: setup
	$(BIN)/python -m pytest -q

setup: $(VENV)/.ready

# torch by its exact version: a range would take the newest build, with gigabytes for CUDA
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train,onnx,openvino,int8,prune,vit,serve,mlflow,s3,dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
