# Two commands do everything on a machine with python3, venv and make:
#   make demo     speak digits into demo.wav with the bundled model, and print how fast
#   make test     lint, types and all tests
# Both create .venv when it is missing, or use the one that is there.
#
#   make demo TORCH=2.13.0      install that torch instead of the newest that fits
#   make test PIP_ARGS="..."    further arguments for pip, such as --index-url or -c constraints.txt

PYTHON   ?= python3
VENV     ?= .venv
TORCH    ?=
PIP_ARGS ?=

# The Python that runs must not be steered by the caller's environment.
unexport PYTHONPATH PYTHONHOME

BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip install $(PIP_ARGS) $(if $(TORCH),torch==$(TORCH))
# A stamp says that pyproject.toml is installed; it is renewed when the file or TORCH changes.
BASE  := $(VENV)/.wavegen-base$(if $(TORCH),-torch-$(TORCH))
DEV   := $(VENV)/.wavegen-dev$(if $(TORCH),-torch-$(TORCH))
COST  := about 3 minutes and 6 GB (torch and its CUDA libraries); only the first time

.PHONY: help demo test lint types tests wheel

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(BASE)
	$(BIN)/wavegen synth digits --label 3,1,4,1,5,9,2,6,5,3 --speaker george --seed 1 -o demo.wav
	@echo "demo.wav says 3 1 4 1 5 9 2 6 5 3"

test: lint types tests

lint: $(DEV)
	$(BIN)/ruff check .

types: $(DEV)
	$(BIN)/mypy

tests: $(DEV)
	$(BIN)/python -m pytest -q

wheel: $(DEV)
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

$(BASE): pyproject.toml | $(BIN)/pip
	@if [ ! -e $(DEV) ]; then echo "Installing wavegen into $(VENV): $(COST)."; fi
	$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/pip
	@echo "Installing wavegen and its test tools into $(VENV): $(COST)."
	$(PIP) -e ".[dev]"
	@touch $(BASE) $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer," \
	    "or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "wavegen needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V);" \
	    "name another: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv module: install it first" \
	    "(Debian, Ubuntu: sudo apt install python3-venv), then run make again"; exit 1; }
	$(PYTHON) -m venv $(VENV)
