# Everything is set up by the target that needs it. GNU make 3.81 is enough.

PROFILE     ?= quick
PIP_OPTIONS ?=
PYTHONS     ?= python3.13 python3.12 python3.11
PYTHON      := .venv/bin/python
STAMP       := .venv/.installed
SOURCES     := $(wildcard notebooks/source/*.md)
SETTINGS    := .venv/share/jupyter/lab/settings/overrides.json
LAB_OPTIONS ?=
# What `make sweep` runs, sweeps/SWEEP.yaml, and where: sweeps/ON/config.yaml.
SWEEP       ?= demo
ON          ?= local
SWEEP_OPTIONS ?=
# Tests run side by side, in as many processes as there are cores, each with one thread.
TESTS       := OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses=auto --dist=worksteal
NBVAL       := $(PYTHON) -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 -p no:cacheprovider
# The chapters; BOOKS also has the page where the course starts.
NAMES       := $(filter-out 0_%,$(basename $(notdir $(SOURCES))))
CHAPTERS    := $(NAMES:%=notebooks/%.ipynb)
SOLUTIONS   := $(wildcard $(NAMES:%=notebooks/solutions/%.ipynb))
BOOKS       := $(SOURCES:notebooks/source/%.md=notebooks/%.ipynb)

# Idle threads of PyTorch's OpenMP spin. Left alone they take the cores from every other process, and wait for each other
# in vain; hardly spinning makes a training step slower by half or more. 1,000 turns were measured (CONTRIBUTING.md).
export GOMP_SPINCOUNT ?= 1000

# A relative GM_DATA is meant from here, also in kernels, which work in notebooks/.
ifneq ($(GM_DATA),)
override GM_DATA := $(if $(filter /% ~%,$(firstword $(GM_DATA))),,$(CURDIR)/)$(GM_DATA)
export GM_DATA
endif

.DEFAULT_GOAL := help
.PHONY: help setup figures $(NAMES:%=figures-%) test test-all check lint lab notebooks html site assignments sweep weights bench clean

help:       ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+: *.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install what the course needs (PIP_OPTIONS is passed to pip)

figures: $(NAMES:%=figures-%) ## run the notebooks and draw every figure (PROFILE=full: the full-size models)

$(NAMES:%=figures-%): figures-%: $(STAMP)
	$(PYTHON) -m gm_helpers figures $* --profile $(PROFILE)

test: lint ## lint, tests, and every notebook run again and compared with what is committed
	$(TESTS) -m "not rare" --durations=15
	$(NBVAL) --durations=5 $(CHAPTERS) $(SOLUTIONS)

test-all: lint .venv-graders/.installed .venv-site/.installed .venv-sweep/.installed ## the same, and the tests that are slow and rarely fail; says at the end what was skipped, and why
	$(NBVAL) $(CHAPTERS) $(SOLUTIONS)
	$(TESTS)

check: lint ## lint, and the tests that take no time: while you work
	$(TESTS) -q -m "not slow and not rare"

lint: $(STAMP) ## style, types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff check --line-length 100 $(BOOKS) $(SOLUTIONS)
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff format --check --line-length 100 $(BOOKS)
	$(PYTHON) -m mypy

lab: $(SETTINGS) ## open JupyterLab (LAB_OPTIONS is passed to it)
	@case "$$(id -u) $(LAB_OPTIONS)" in \
	    *--allow-root* | [1-9]*) ;; \
	    *) echo "JupyterLab doesn't start as root: work as another user, or run make lab LAB_OPTIONS=--allow-root." >&2; exit 1 ;; \
	esac
	JUPYTER_PREFER_ENV_PATH=1 $(PYTHON) -m jupyterlab --notebook-dir=notebooks --LabApp.default_url=/lab/tree/0_start.ipynb $(LAB_OPTIONS)

# Without their state saved widgets are shown as errors; JupyterLab keeps it only when asked to. Nor does it ask for news.
$(SETTINGS): $(STAMP)
	@mkdir -p $(@D)
	@echo '{"@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true}, "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > $@

notebooks: $(STAMP) ## execute notebooks/source/*.md and write the committed notebooks
	$(PYTHON) -m gm_helpers notebooks $(SOURCES)

html: $(STAMP) ## export the notebooks, or others as BOOKS, as pages that need nothing: build/html
	$(PYTHON) site/export.py $(BOOKS)

site: .venv-site/.installed ## make the course a site that needs no server: _site/index.html
	.venv-site/bin/python site/gather.py build/site
	.venv-site/bin/python -m sphinx -b html -W --keep-going -q build/site build/pages/site
	@mkdir -p _site
	cp -R build/pages/site/. _site

assignments: $(STAMP) .venv-graders/.installed ## write the exercises for nbgrader and otter-grader into build/, and install both
	$(PYTHON) -m gm_helpers assignments --out build

sweep: .venv-sweep/.installed ## train what sweeps/SWEEP.yaml names, SWEEP=demo, and draw it with error bars (ON=slurm: on a cluster)
	@test -f sweeps/$(ON)/config.yaml || { echo "There is no sweeps/$(ON)/config.yaml: say ON=local or ON=slurm." >&2; exit 1; }
	@mkdir -p runs/sweeps
	.venv-sweep/bin/python -m snakemake --snakefile sweeps/Snakefile --directory runs/sweeps --workflow-profile sweeps/$(ON) \
	    --config sweep=$(SWEEP) $(SWEEP_OPTIONS)

weights: $(STAMP) ## train the shipped weights again (minutes on a GPU, hours on two cores)
	$(PYTHON) -m gm_helpers train --shipped --profile full --out gm_helpers/weights

bench: .venv-bench/.installed ## time training beside the loops and libraries that people use
	.venv-bench/bin/python benchmarks/speed.py

# Environments of their own for the other libraries, the graders and the site, which see the course's packages too.
.venv-bench/.installed: benchmarks/requirements.txt
.venv-graders/.installed: graders/requirements.txt
.venv-site/.installed: site/requirements.txt
.venv-bench/.installed .venv-graders/.installed .venv-site/.installed: $(STAMP)
	@$(PYTHON) -m venv $(@D)
	@$(PYTHON) -c 'import sysconfig; print("import site; site.addsitedir(%a)" % sysconfig.get_path("purelib"))' \
	    > "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/course.pth"
	@$(@D)/bin/python -m pip install -q $(PIP_OPTIONS) --upgrade pip
	@$(@D)/bin/python -m pip install -q $(PIP_OPTIONS) -r $(filter %.txt,$^)
	@touch $@

# Snakemake can't have all versions that the course has, so it doesn't see them: its jobs call the course's Python.
.venv-sweep/.installed: sweeps/requirements.txt $(STAMP)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -q $(PIP_OPTIONS) --upgrade pip
	@$(@D)/bin/python -m pip install -q $(PIP_OPTIONS) -r $<
	@touch $@

clean:      ## remove the environments and the tools' caches; figures and trained models stay
	rm -rf .venv .venv-bench .venv-graders .venv-site .venv-sweep gm_helpers.egg-info .pytest_cache .ruff_cache .mypy_cache

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
	@$(PYTHON) -m pip install -q $(PIP_OPTIONS) --upgrade pip
	@$(PYTHON) -m pip install -q $(PIP_OPTIONS) -c constraints.txt -r requirements.txt
	@touch $@
