# Workshop of isic: `make help`. Every target works on a fresh clone; `make setup` is instant when
# nothing changed. PYTHON=python3.12 chooses the interpreter that .venv is made from.

PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
DEMO_ROOT := .demo/isic2024

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow test-slurm lint format bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv with pinned dependencies and check its imports

# One resolve for everything: torch first and timm second would swap torch for another build.
$(STAMP): pyproject.toml constraints.txt environment/check_imports.py environment/torchvision_ops.py
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(PY) environment/check_imports.py
	@touch $@

demo: $(STAMP)  ## generate an archive, train two folds, stack, write submissions (3 min)
	$(PY) -m isic synth data=isic2024 data.root=$(DEMO_ROOT) n_images=2000 seed=0
	$(PY) train.py -m fold=0,1 data=isic2024 data.root=$(DEMO_ROOT) experiment=demo name=demo
	$(PY) -m isic stack data=isic2024 data.root=$(DEMO_ROOT) split.n_folds=2 runs=[demo] name=demo-stack

test: $(STAMP)  ## run the suite, on two processes, without the tests marked slow (3 to 7 min)
	$(PY) -m pytest -q -m "not slow and not slurm" -n 2 --dist loadfile

test-slow: $(STAMP)  ## run the tests marked slow: kills, DDP, full-size archives
	$(PY) -m pytest -q -m slow

test-slurm: $(STAMP)  ## five folds and two ranks on a SLURM started here (root, Debian)
	tests/slurm/run.sh $(PY)

lint: $(STAMP)  ## ruff, mypy --strict, import contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo

format: $(STAMP)  ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(STAMP)  ## measure against the baselines, one line a bar
	$(PY) benchmarks/run.py

clean:  ## delete the demo and every cache; .venv, data and runs stay
	rm -rf .demo .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
