# Two targets are all a newcomer needs: `make quickstart` and `make test`. `make quickstart-image` is the
# first with pictures.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart quickstart-image test sample format clean

quickstart: $(VENV)/installed
	$(BIN)/python -m adapter4rec.quickstart

quickstart-image: $(VENV)/installed
	$(BIN)/python -m adapter4rec.quickstart image

# SAMPLE="--users 630000 --items 80000 --into Dataset/sample_mind" makes one of the size of MIND, and
# SAMPLE=--images one with pictures.
sample: $(VENV)/installed
	$(BIN)/python -m adapter4rec.sample $(SAMPLE)

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Installed anew when the requirements change; an interrupted installation is never taken for a whole one.
$(VENV)/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: Python 3.10 or newer is needed; name one with make PYTHON=python3.11 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) cache
