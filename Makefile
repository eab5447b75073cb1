# Everything is set up by the target that needs it. GNU make 3.81 is enough.

PROFILE     ?= quick
PIP_OPTIONS ?=
PYTHONS     ?= python3.13 python3.12 python3.11
PYTHON      := .venv/bin/python
STAMP       := .venv/.installed
SOURCES     := $(wildcard notebooks/source/*.md)
SHIPPED     := vae-2d vae-20d vae-8bit digit-classifier gan flow-2d flow-conv flow-conv-uniform
NAMES       := $(basename $(notdir $(SOURCES)))

# Idle threads of PyTorch's OpenMP spin. Left alone they take the cores from every other process; not spinning at all
# makes a training step slower by half or more. 10,000 turns are a compromise that was measured (CONTRIBUTING.md).
export GOMP_SPINCOUNT ?= 10000

.DEFAULT_GOAL := help
.PHONY: help setup figures $(NAMES:%=figures-%) test lint lab notebooks weights bench clean

help:       ## list the targets
	@awk -F ':.*## ' '/^[a-z]+: *.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install what the course needs (PIP_OPTIONS is passed to pip)

figures: $(NAMES:%=figures-%) ## run the notebooks and draw every figure (PROFILE=full: the full-size models)

$(NAMES:%=figures-%): figures-%: $(STAMP)
	$(PYTHON) -m gm_helpers figures $* --profile $(PROFILE)

test: lint ## lint, tests, and every notebook run again and compared with what is committed
	$(PYTHON) -m pytest --durations=15
	$(PYTHON) -m pytest --nbval --nbval-cell-timeout=600 -p no:cacheprovider --durations=5 notebooks

lint: $(STAMP) ## style, types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

lab: $(STAMP) ## open JupyterLab
	$(PYTHON) -m jupyterlab --notebook-dir=notebooks

notebooks: $(STAMP) ## execute notebooks/source/*.md and write the committed notebooks
	$(PYTHON) -m gm_helpers notebooks $(SOURCES)

weights: $(STAMP) ## train the shipped weights again (minutes on a GPU, hours on two cores)
	$(PYTHON) -m gm_helpers train $(SHIPPED) --profile full --out gm_helpers/weights

bench: .venv-bench/.installed ## time training beside the loops and libraries that people use
	.venv-bench/bin/python benchmarks/speed.py

# An environment of its own for the other libraries, which sees the course's too.
.venv-bench/.installed: $(STAMP) benchmarks/requirements.txt
	@$(PYTHON) -m venv .venv-bench
	@purelib='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	    echo "import site; site.addsitedir('$$($(PYTHON) -c "$$purelib")')" > "$$(.venv-bench/bin/python -c "$$purelib")/course.pth"
	@.venv-bench/bin/python -m pip install -q $(PIP_OPTIONS) -r benchmarks/requirements.txt
	@touch $@

clean:      ## remove .venv and all that runs have made
	rm -rf .venv .venv-bench figures/quick figures/smoke runs *.egg-info .pytest_cache .ruff_cache .mypy_cache

$(STAMP): requirements.txt constraints.txt pyproject.toml
	@python=; for name in $(PYTHONS); do \
	    if $$name -c '' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "The course needs Python 3.13, 3.12 or 3.11, and none is on the PATH: install one and run make again." >&2; exit 1; fi; \
	if ! $$python -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "$$python has no venv module: install it (Debian, Ubuntu: apt install $$python-venv) and run make again." >&2; exit 1; fi; \
	$$python -m venv .venv
	@echo "Installing what the course needs into .venv; the first time that takes some minutes."
	@$(PYTHON) -m pip install -q $(PIP_OPTIONS) -c constraints.txt -r requirements.txt
	@touch $@
