# Two commands are all a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiling every module of every package takes a minute or two more than compiling those that are imported.
PIP_INSTALL := $(BIN)/pip install --quiet --no-compile

.PHONY: demo test install install-dev format clean

demo: install
	$(BIN)/bertsmith run recipes/quickstart.toml

test: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" -n auto --dist loadfile

# The stamps are newer than pyproject.toml exactly when what it asks for is installed.
install: .venv/installed
install-dev: .venv/installed-dev

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	@[ -e .venv/installed-dev ] && [ .venv/installed-dev -nt pyproject.toml ] || $(PIP_INSTALL) --editable .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs
