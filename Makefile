# Everything a fresh machine needs: `make demo`, `make gui`, `make test`. See README.md.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
# On a machine without a GPU the CPU build saves gigabytes:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# What the X11 plugins of Qt 5 and Qt 6 link to and OpenGL without a graphics card, as far as one of these does
# not bring another; and the X server without a screen in which the tests of the window run.
DEBIAN := xvfb xauth libgl1 libgl1-mesa-dri libegl1 libglib2.0-0 libdbus-1-3 libfontconfig1 libxkbcommon-x11-0 \
	libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxcb-xinerama0
# Names that a package provides count too: libglib2.0-0 is libglib2.0-0t64 from Debian 13 and Ubuntu 24.04 on.
INSTALLED = $(shell dpkg-query -W -f '$${db:Status-Status} $${Package} $${Provides}\n' 2>/dev/null | sed -n 's/^installed //p' | tr ',' ' ')
MISSING = $(filter-out $(INSTALLED),$(DEBIAN))
# A server where one may not install these still trains.
define SYSTEM
if ! command -v dpkg-query >/dev/null; then \
	echo "This is not Debian: the window needs what these Debian packages hold, and its tests Xvfb: $(DEBIAN)"; \
elif [ -n "$(MISSING)" ]; then \
	{ $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends $(MISSING); } \
	|| echo "Without these packages the window and its tests will not start: $(MISSING)"; \
fi
endef
XVFB = $(if $(shell command -v xvfb-run),xvfb-run -a -s "-screen 0 1280x800x24")
# With a choice of tests, none of them may be in one of the two folders.
NONE_IS_FINE = $(if $(PYTEST),|| [ $$? = 5 ])
# When both bindings are tested, PyQt6 runs all tests of the window, and PyQt5 these.
WITH_BOTH_pyqt5 := -m both_bindings

.DEFAULT_GOAL := help
.PHONY: help install demo gui test test-logic test-window test-pyqt5 test-pyqt6 lint format benchmark clean

help:
	@echo "make demo       train on the embedded set; pictures and numbers in demo/"
	@echo "make gui        open the workbench in napari; OPEN=\"PATH ...\" opens runs and images in it"
	@echo "make test       run the tests, those of the window with PyQt6, and with PyQt5 those of what bindings differ in (test-logic, test-window, test-pyqt5, test-pyqt6)"
	@echo "make lint       ruff, mypy and import-linter"
	@echo "make format     let ruff put the code in order"
	@echo "make benchmark  measure speed and growth against what one would use instead; docs/performance.md (an hour)"
	@echo "make clean      remove the virtual environment and demo/"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt Makefile
	@$(if $(PYTHON),,$(error Python 3.11 or newer is needed))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends python3-venv; }
	@if [ "$$(uname -s)" = Linux ]; then $(SYSTEM); fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	rm -rf demo
	$(BIN)/python -m engine.train --preset demo --out demo/smm_v2
	$(BIN)/python -m engine.train --preset demo --modulation.name none --out demo/plain
	$(BIN)/python -m engine.evaluate demo/plain demo/smm_v2
	$(BIN)/python -m engine.report demo/plain demo/smm_v2
	@echo "figures: demo/smm_v2/report/{curves,panels,masks,reliability,thresholds}.png, demo/plain/report/"

# Without Qt in the environment variable, qtpy would take PyQt5, which napari is about to leave.
gui: $(STAMP)
	QT_API=$${QT_API:-pyqt6} $(BIN)/napari-smm $(OPEN)

# Else each process of the tests would compile anew what pytest makes of napari, and all of this package.
test test-logic test-window test-pyqt5 test-pyqt6: export PYTHONDONTWRITEBYTECODE =

# Side by side. The tests of the window go one after another, so they have a processor each; those of the logic,
# of which as many run at once as there are processors, get what is left, and at the end all of them.
SIDE_BY_SIDE := --no-print-directory --jobs=3 --output-sync=target BOTH=yes

test: $(STAMP)
	@echo "The tests run side by side; each part is shown when it has ended."
	@$(MAKE) $(SIDE_BY_SIDE) NICE="nice -n 10" test-pyqt6 test-pyqt5 test-logic

test-window: $(STAMP)
	@$(MAKE) $(SIDE_BY_SIDE) test-pyqt6 test-pyqt5

test-logic: $(STAMP)
	OMP_NUM_THREADS=1 $(NICE) $(BIN)/python -m pytest -n auto --dist worksteal --ignore=tests/qt \
		-p no:pytest-qt -p no:napari $(PYTEST) $(NONE_IS_FINE)

# One test at a time: windows that share a screen take the keyboard from each other.
test-pyqt5 test-pyqt6: test-%: $(STAMP)
	@$(if $(XVFB),:,[ -n "$$DISPLAY" ] || [ "$$(uname -s)" != Linux ]) || { echo "The tests of the window need a display: install xvfb and xauth."; exit 1; }
	OMP_NUM_THREADS=1 LIBGL_ALWAYS_SOFTWARE=1 QT_API=$* $(XVFB) \
		$(BIN)/python -m pytest tests/qt $(if $(BOTH),$(WITH_BOTH_$*)) $(PYTEST) $(NONE_IS_FINE)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Those of the window need a display; MAPIE, against which thresholds are measured, is installed apart.
BENCHMARKS := training modulation dilation arithmetic losses tiled_prediction conformal startup settings processes growth
benchmark: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .benchmarks --no-deps mapie scikit-learn joblib threadpoolctl narwhals
	for name in $(BENCHMARKS); do PYTHONPATH=.benchmarks $(BIN)/python benchmarks/$$name.py --keep || exit 1; done
	for name in window long_run; do $(XVFB) $(BIN)/python benchmarks/$$name.py --keep || exit 1; done
	$(BIN)/python benchmarks/page.py

clean:
	rm -rf $(VENV) demo
