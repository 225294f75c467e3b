# Two targets are all a newcomer needs: `make quickstart` and `make test`. `make quickstart-image` is the
# first with pictures.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ADAPTERHUB := .venv-adapterhub
EXCHANGE := cache/adapterhub
# TORCH=cpu: PyTorch's wheels without CUDA, of the versions in constraints.txt. PyTorch publishes them in an
# index of its own, which pip must be configured to use (PIP_EXTRA_INDEX_URL).
WHEELS := $(if $(filter cpu,$(TORCH)),$(shell sed -n 's/^\(torch\|torchvision\)==.*/&+cpu/p' constraints.txt))
DOWNLOAD := $(if $(WHEELS),at most 2.5 GB on disk,6.6 GB on disk with CUDA)

.PHONY: quickstart quickstart-image test test-all test-faults test-adapterhub bench sample format clean

quickstart: $(VENV)/installed
	$(BIN)/python -m adapter4rec.quickstart

quickstart-image: $(VENV)/installed
	$(BIN)/python -m adapter4rec.quickstart image

# SAMPLE="--users 630000 --items 80000 --into Dataset/sample_mind" makes one of the size of MIND, and
# SAMPLE=--images one with pictures.
sample: $(VENV)/installed
	$(BIN)/python -m Dataset.generate $(SAMPLE)

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Also the long combinations: some minutes more.
test-all: test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m long

# Kills, full disks and damaged files, and a table of what they cost: at most an hour (docs/reliability.md).
# Coverage guides the fuzzing where there is a wheel of atheris.
test-faults: $(VENV)/installed
	-$(BIN)/python -m pip install --quiet --only-binary :all: -c constraints.txt atheris
	$(BIN)/python -m tests.faults

# The project beside the plain data flow of the released code: half an hour on 2 cores. BENCH="ranking pixels"
# names some parts.
bench: $(VENV)/installed
	$(BIN)/python -m adapter4rec.download minilm/all_minilm_l6_v2
	$(BIN)/python -m benchmarks $(BENCH)

# Adapters to AdapterHub's library and back. That needs an older transformers, so an environment of its own.
test-adapterhub: $(VENV)/installed $(ADAPTERHUB)/installed
	$(BIN)/python -m tests.adapterhub.ours export $(EXCHANGE)
	$(ADAPTERHUB)/bin/python -m tests.adapterhub.theirs $(EXCHANGE)
	$(BIN)/python -m tests.adapterhub.ours check $(EXCHANGE)

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Installed anew when the requirements change; an interrupted installation is never taken for a whole one.
$(VENV)/installed: requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; name one with make PYTHON=python3.11 …"; exit 2; }
	@echo "Installing into $(VENV): $(DOWNLOAD), more than a minute. TORCH=cpu installs PyTorch"
	@echo "without CUDA, where pip has an index of such wheels."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(WHEELS) -r requirements-dev.txt -e .
	touch $@

$(ADAPTERHUB)/installed: requirements-adapterhub.txt
	$(PYTHON) -m venv $(ADAPTERHUB)
	$(ADAPTERHUB)/bin/python -m pip install --quiet --upgrade pip
	$(ADAPTERHUB)/bin/python -m pip install --quiet -r requirements-adapterhub.txt
	touch $@

clean:
	rm -rf $(VENV) $(ADAPTERHUB) cache
