# Everything a fresh machine needs: `make demo`, `make test`. See README.md.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
# On a machine without a GPU the CPU build saves gigabytes:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format benchmark clean

help:
	@echo "make demo       train on the embedded set; pictures and numbers in demo/"
	@echo "make test       run the tests"
	@echo "make lint       ruff, mypy and import-linter"
	@echo "make format     let ruff put the code in order"
	@echo "make benchmark  measure what mask modulation costs"
	@echo "make clean      remove the virtual environment and demo/"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@$(if $(PYTHON),,$(error Python 3.11 or newer is needed))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends python3-venv; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	rm -rf demo
	$(BIN)/python -m engine.train --preset demo --out demo/smm_v2
	$(BIN)/python -m engine.train --preset demo --modulation.name none --out demo/plain
	$(BIN)/python -m engine.evaluate demo/plain demo/smm_v2
	@echo "figures: demo/smm_v2/report/{curves,panels,masks}.png, demo/plain/report/"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(STAMP)
	$(BIN)/python benchmarks/modulation.py
	$(BIN)/python benchmarks/dilation.py

clean:
	rm -rf $(VENV) demo
