# make demo: the quick study and its report, from nothing.   make test: the tests.   make check: what CI adds.
PYTHON ?= python3.11
VENV   ?= .venv
# Where torch comes from: empty for the default index, or e.g. https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
# One thread a process: results depend on the number, and two processes share two cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: demo test check docs browser lint types imports wheel bench clean

demo: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/smoothness run activation-ablation --scale quick --workers 2 --out runs/activation-ablation --report runs/activation-ablation-report

test: $(INSTALLED_DEV)
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not browser"

check: lint types imports wheel
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# The pages that are made from the package; a test fails when they are stale.
docs: $(INSTALLED)
	$(ONE_THREAD) $(BIN)/smoothness activations --plot docs/activations

# A report in a real browser: needs chromium and chromedriver. REPORT names one that exists; else the demo makes it.
browser: $(INSTALLED_DEV) $(if $(REPORT),,demo)
	REPORT=$(abspath $(or $(REPORT),runs/activation-ablation-report)) $(BIN)/python -m pytest tests/browser -m browser

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED_DEV)
	$(BIN)/mypy

imports: $(INSTALLED_DEV)
	$(BIN)/lint-imports

# The built wheel, alone in a fresh environment outside the checkout, finds its studies and data, and runs the
# command that the README starts with.
wheel: $(INSTALLED_DEV)
	rm -rf build/wheel && $(PIP) wheel --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv --clear build/wheel/venv
	build/wheel/venv/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	build/wheel/venv/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt build/wheel/*.whl
	cd build/wheel && $(ONE_THREAD) venv/bin/python -I ../../tests/wheel_smoke.py
	cd build/wheel && $(ONE_THREAD) venv/bin/smoothness run activation-ablation --workers 2 --report reports/activation-ablation

bench: $(INSTALLED_DEV)
	$(ONE_THREAD) $(BIN)/python -m tests.benchmarks.bench_attacks
	$(ONE_THREAD) $(BIN)/python tests/benchmarks/bench_kinks.py
	$(ONE_THREAD) $(BIN)/python tests/benchmarks/bench_activations.py
	$(ONE_THREAD) $(BIN)/python -m tests.benchmarks.bench_swapping
	$(ONE_THREAD) $(BIN)/python -m tests.benchmarks.bench_lipschitz
	$(ONE_THREAD) $(BIN)/python tests/benchmarks/bench_engine.py
	$(ONE_THREAD) $(BIN)/python -m tests.benchmarks.bench_report
	$(BIN)/python tests/benchmarks/bench_import.py

# torch first and pinned: an unpinned torch may bring gigabytes of CUDA.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install --constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(PIP) install --constraint constraints.txt --group test --group lint
	touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
