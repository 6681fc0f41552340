# Two commands from a fresh clone: `make demo` and `make test`. Both make the virtual environment themselves.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG := configs/ml-100k.yaml

# in two processes, which tests/conftest.py gives a file at a time, the longest first
PYTEST := $(BIN)/python -X faulthandler -m pytest -n 2

.PHONY: demo test test-all faults guards bench lint clean

demo: $(VENV)/.installed
	$(BIN)/dist-gat data fetch movielens-100k
	$(BIN)/dist-gat prepare $(CONFIG)
	$(BIN)/dist-gat train $(CONFIG)
	$(BIN)/dist-gat compare $(CONFIG) launch.launcher=local
	$(BIN)/dist-gat recommend runs/ml-100k --user 196 --k 10
	@echo
	@echo "Curves:   $(BIN)/tensorboard --logdir runs   (then open http://localhost:6006)"
	@echo "Try next: $(BIN)/dist-gat train $(CONFIG) model.scoring=additive run=runs/gat"
	@echo "          $(BIN)/dist-gat recommend runs/ml-100k --user 42 --json"
	@echo "          your own table: docs/data.md"

test: $(VENV)/.installed-dev
	$(PYTEST)

# with the tests that take long and rarely break
test-all: $(VENV)/.installed-dev
	$(PYTEST) -m ""

faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults

# takes out, in a copy of the source, what each row of `make faults` guards, and expects the row to fall short
guards: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults.guards

# BENCH="--data FOLDER" adds the lines on Gowalla; `python -m benchmarks.NAME` runs one benchmark
bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Where only the CPU build of torch is wanted, install that into the environment beforehand: docs/install.md
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing dist_gat into $(VENV) (the first time takes some minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[baselines]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing dist_gat and its test tools into $(VENV) (the first time takes some minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
