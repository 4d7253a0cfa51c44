# Hive for Jupyter. `make help` lists the targets.
#
# Everything happens in a virtual environment of the project's own, made when a target needs it and
# cheap to ask for again. Two words may be given on the command line:
#
#   make test VENV=/somewhere/else    keep the environment there instead of in .venv
#   make test PYTHON=python3.12       make the environment with this Python (default: the newest)

VENV = .venv
PYTHON =

# Where the environment for the lowest versions is, and the Python that makes it (default: the oldest).
LOWEST = $(VENV)-lowest
LOWEST_PYTHON =

BIN = $(VENV)/bin

# Passed on, as in: make test PYTEST_ARGS="-k timeout -n 0"; make lab LAB_ARGS="--no-browser --port 9000";
# make bench BENCH_ARGS=--quick; make security SECURITY_ARGS=--write
PYTEST_ARGS =
LAB_ARGS =
BENCH_ARGS =
SECURITY_ARGS =

# One process for each of two cores. The number is fixed: a test is to have about the same company
# everywhere. A third would be quicker still, and made what a worker says as it dies come too late.
PYTEST = -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

# Names of targets with their spaces escaped: the checkout or VENV may be in a folder with a space.
empty :=
space := $(empty) $(empty)
venv := $(subst $(space),\$(space),$(VENV))
lowest := $(subst $(space),\$(space),$(LOWEST))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two targets must not install into one environment at the same time.
.NOTPARALLEL:

# Nothing from outside may leak into the environments.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PYTHONNOUSERSITE = 1
export PIP_USER = 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo lab test browser lowest check docs binder bench security clean

help:
	@echo 'make demo      run the quickstart notebook in this terminal'
	@echo 'make lab       open it in JupyterLab; as root: make lab LAB_ARGS=--allow-root'
	@echo 'make test      run the tests, two at a time'
	@echo 'make browser   run those in a real JupyterLab alone (they need Chromium)'
	@echo 'make lowest    run the tests with the lowest versions that pyproject.toml allows'
	@echo 'make check     style, types, import floors, notebooks, links in the docs'
	@echo 'make docs      build the documentation as a site, in build/docs'
	@echo 'make binder    build what Binder builds, as far as that goes without Docker'
	@echo 'make bench     measure Hive beside its peers'
	@echo 'make security  try what the sandbox is to stop, and print what it stops here'
	@echo 'make clean     remove the environments and all caches'

demo: $(venv)/.installed-demo
	@"$(BIN)/jupyter-hive" demo

lab: $(venv)/.installed-lab
	@"$(BIN)/jupyter-lab" notebooks/01_quickstart.ipynb $(LAB_ARGS)

# Chromium is installed where that can be done unasked: by root, on Debian and its children.
test: $(venv)/.installed-test
	@"$(BIN)/python" $(PYTEST) --ignore tests/browser
ifeq ($(PYTEST_ARGS),)
	@if command -v chromium >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get install -qq -y chromium; }; \
	then \
	  "$(MAKE)" --no-print-directory browser; \
	else \
	  echo 'The tests in a browser were not run, for want of Chromium. Install it (on Debian and'; \
	  echo 'Ubuntu: sudo apt install chromium), then: make browser'; \
	fi
endif

# One after the other: a browser and JupyterLab take both cores.
browser: $(venv)/.installed-browser
	@"$(BIN)/python" -m pytest $(PYTEST_ARGS) tests/browser

# What the sandbox stops is a matter of the kernel, and of no package: it is tried once.
lowest: $(lowest)/.installed-test
	@"$(LOWEST)/bin/python" $(PYTEST) --ignore tests/security/test_probes.py

# The worker may run on an interpreter that is one version older than the oldest host's. Its modules,
# and those that both sides share, are therefore read twice.
WORKER = hive_jupyter/worker hive_jupyter/transfer $(patsubst %,hive_jupyter/%.py,__init__ errors policy procfs project protocol toolbox tools units)

check: $(venv)/.installed-check
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	"$(BIN)/mypy"
	"$(BIN)/mypy" --python-version 3.10 --follow-imports silent $(WORKER)
	"$(BIN)/lint-imports"
	"$(BIN)/python" tools/check_notebooks.py
	"$(BIN)/python" tools/check_links.py

docs: $(venv)/.installed-docs
	@"$(BIN)/python" -m sphinx -c docs -E -W --keep-going -n -q . build/docs
	@echo 'The site is in build/docs: open build/docs/index.html.'

binder: $(venv)/.installed-test
	@"$(BIN)/python" -m tests.binder

bench: $(venv)/.installed-bench
	@"$(BIN)/python" -m tests.bench $(BENCH_ARGS)

security: $(venv)/.installed-test
	@"$(BIN)/python" -m tests.security $(SECURITY_ARGS)

clean:
	@for venv in "$(VENV)" "$(LOWEST)"; do \
	  if [ -e "$$venv/pyvenv.cfg" ]; then rm -rf "$$venv"; fi; \
	done
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find hive_jupyter tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments ---

# Find a Python: the one asked for, or else the first of the candidates that can make environments.
# Usage: $(call find_python,asked,candidates), which sets $python in the shell.
define find_python
python=; \
if [ -n "$(1)" ]; then set -- "$(1)"; else set -- $(2) python3 python; fi; \
for candidate in "$$@"; do \
  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
  then \
    python="$$candidate"; break; \
  fi; \
done; \
if [ -z "$$python" ]; then \
  echo 'Hive for Jupyter needs Python 3.11 or newer with its venv module, and none was found.' >&2; \
  for candidate in "$$@"; do \
    if found=$$("$$candidate" -V 2>/dev/null); then echo "  $$candidate is $$found" >&2; fi; \
  done; \
  echo 'Install one (on Debian and Ubuntu also python3-venv), or name it: make PYTHON=/path/to/python3.12' >&2; \
  exit 1; \
fi
endef

# Make an environment, in place of an older one if there is one, but never of anything else.
define make_venv
if [ -e "$(1)/pyvenv.cfg" ]; then \
  rm -rf "$(1)"; \
elif [ -n "$$(ls -A "$(1)" 2>/dev/null)" ]; then \
  echo '$(1) holds something else than an environment. Name another folder.' >&2; exit 1; \
fi; \
echo "Making $(1) with $$("$$python" -V)"; \
"$$python" -m venv "$(1)"; \
pwd > "$(1)/.made-for"
endef

# Bytecode is compiled here and now: where PYTHONDONTWRITEBYTECODE is set, every process would
# otherwise compile its imports anew, and a worker would start several times slower. A file that
# does not compile is somebody's template, hence the "|| true".
define compile
"$(1)/bin/python" -m compileall -q -j 0 "$(1)/lib" hive_jupyter >/dev/null 2>&1 || true
endef

$(venv)/pyvenv.cfg:
	@$(call find_python,$(PYTHON),python3.14 python3.13 python3.12 python3.11); \
	set -e; $(call make_venv,$(VENV))

# An environment whose Python is gone, or whose checkout was moved, is of no use any more: it is made
# anew. One that somebody made by hand has no .made-for, and is taken as it is.
stale = $(shell test -x "$(1)/bin/python" || echo stale; \
  test ! -e "$(1)/.made-for" || pwd | cmp -s - "$(1)/.made-for" || echo stale)
.PHONY: stale
ifneq ($(call stale,$(VENV)),)
$(venv)/pyvenv.cfg: stale
endif
ifneq ($(call stale,$(LOWEST)),)
$(lowest)/.installed-test: stale
endif

# One stamp for each extra. It lies in the environment and goes with it.
$(venv)/.installed-demo $(venv)/.installed-lab $(venv)/.installed-test $(venv)/.installed-browser $(venv)/.installed-check $(venv)/.installed-docs $(venv)/.installed-bench: pyproject.toml $(venv)/pyvenv.cfg
	@target="$@"; extra="$${target##*-}"; \
	echo "Installing Hive for Jupyter with its $$extra extra into $(VENV) ..."; \
	"$(BIN)/python" -m pip install --quiet --editable ".[$$extra]"
	@$(call compile,$(VENV))
	@touch "$@"

# pip cannot resolve to the lowest versions, uv can. The environment is always made anew: versions
# of yesterday's pyproject.toml would stay otherwise.
$(lowest)/.installed-test: pyproject.toml
	@$(call find_python,$(LOWEST_PYTHON),python3.11 python3.12 python3.13 python3.14); \
	set -e; $(call make_venv,$(LOWEST))
	@echo "Installing the lowest versions that pyproject.toml allows into $(LOWEST) ..."
	@"$(LOWEST)/bin/python" -m pip install --quiet uv
	@"$(LOWEST)/bin/uv" pip install --quiet --python "$(LOWEST)/bin/python" \
	  --resolution lowest-direct --editable ".[test]"
	@$(call compile,$(LOWEST))
	@touch "$@"
