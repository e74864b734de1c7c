# Everything works on a machine with Python 3.11 (or 3.12, 3.13) and make:
#   make demo    install into .venv, render a clip, follow an object through it, say where the video lies
#   make test    install, lint, run the tests
VENV ?= .venv
EXTRAS ?= test,openvino,eval,mot,quant
JOBS ?= 2
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: demo test unit test-slow faults lint format wheel install clean

demo: install
	$(BIN)/visionkit demo

test: lint unit

# JOBS: processes that share the test files out; each may take 5 GB.
unit: install
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: install
	$(BIN)/python -m pytest -m slow --timeout 3000

faults: install
	$(BIN)/python -m pytest -m "faults or not faults" tests/faults

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: install
	$(BIN)/python -m build --wheel

install:
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11, 3.12 or 3.13 found; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) tools/setup_env.py --venv $(VENV) --extras "$(EXTRAS)"

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
