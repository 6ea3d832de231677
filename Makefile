# Portable to macOS and Linux: POSIX sh recipes, no GNU-only options. `make help` lists what there is.
# The Python of new environments: `make PYTHON=python3.11` names one. Otherwise the first that runs of python3.13,
# python3.12, pyenv's newest 3.12 or 3.13, python3: those get JAX 0.12, which trains convolutions faster on CPUs. (A shim
# of pyenv is found and does not run, so each is tried.)
ifndef PYTHON
PYTHON := $(shell runs() { "$$1" -c 'import ensurepip, venv' > /dev/null 2>&1; }; \
	version='import sys; print("%03d%03d" % sys.version_info[1:3], sys.executable)'; \
	pyenv=$$(for p in "$$(pyenv root 2> /dev/null)"/versions/3.1[23].*/bin/python3; do "$$p" -c "$$version"; done 2> /dev/null \
		| sort -r | head -n 1 | cut -d ' ' -f 2); \
	for p in python3.13 python3.12 $$pyenv python3; do if runs "$$p"; then echo "$$p"; break; fi; done)
endif
# cpu, cuda or tpu: which of the pinned requirement sets goes into .venv
ACCELERATOR ?= cpu
# the data set that `make data` prepares, and where
DATA ?= cifar10
ARGS ?=
# what `make test` and `make check` run
TESTS ?= tests

VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/installed-$(ACCELERATOR)
EXTRAS_STAMP := $(VENV)/installed-extras
DATA_VENV := .venv-data
DATA_STAMP := $(DATA_VENV)/installed
LOCKS := $(wildcard third_party/requirements-*.txt)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: help install extras table1 bench test check lint types data clean clean-results

help:
	@echo "make table1 [ARGS=--full|--smoke]   classical against quantum-assisted training: table, summary, figures"
	@echo "make test                           the tests, but for those marked slow"
	@echo "make check                          lint, format, types, all tests"
	@echo "make bench                          bench-build, bench-bqm and bench-refine, with the peers they compare with"
	@echo "make data [DATA=cifar10]            prepare a data set once, in an environment of its own"
	@echo "make install [ACCELERATOR=cuda|tpu] the environment alone"
	@echo "make extras                         peers, Qiskit, tensorboardX and Playwright, for some benchmarks and tests"
	@echo "make clean, make clean-results      environments and caches; what experiments have computed"
	@echo "PYTHON=python3.11 VENV=.venv-py311  another Python, another environment (now: $(PYTHON))"

install: $(STAMP)

# The set is chosen by the environment's own Python, so an existing .venv of another version keeps working.
$(STAMP): $(LOCKS) pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit("qjax needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PY) -m pip --version > /dev/null 2>&1 || { \
	echo "making $(VENV) with $(PYTHON), $$("$(PYTHON)" --version)"; "$(PYTHON)" -m venv --clear $(VENV); }
	@minor=$$($(PY) -c 'import sys; print("py311" if sys.version_info < (3, 12) else "py312")'); \
	set=third_party/requirements-$(ACCELERATOR)-$$minor.txt; \
	test -f $$set || { echo "no pinned set $$set: see third_party/README.md"; exit 1; }; \
	echo "installing $$set (about two minutes)"; \
	$(PY) $(PIP_INSTALL) -r $$set
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Without network or data the run says so in one line and goes on with the embedded digits; a smoke run does not prepare any.
table1: $(STAMP)
	@case " $(ARGS) " in *" --smoke "*) ;; *) \
	$(PY) experiments/data/prepare.py --check $(DATA); \
	if [ $$? -eq 3 ]; then $(MAKE) --no-print-directory data || echo "going on without $(DATA)"; fi;; esac
	@$(PY) -m experiments table1 $(ARGS)

# What a few tests and benchmarks compare with; without it those tests skip.
$(EXTRAS_STAMP): $(STAMP)
	@minor=$$($(PY) -c 'import sys; print("py311" if sys.version_info < (3, 12) else "py312")'); \
	$(PY) $(PIP_INSTALL) -r third_party/requirements-bench-$$minor.txt -r third_party/requirements-qiskit-$$minor.txt
	@touch $@

extras: $(EXTRAS_STAMP)

bench: $(EXTRAS_STAMP)
	@$(PY) -m experiments bench-build $(ARGS)
	@$(PY) -m experiments bench-bqm $(ARGS)
	@$(PY) -m experiments bench-refine $(ARGS)

test: $(STAMP)
	@$(PY) -m pytest -m "not slow" $(TESTS)

lint: $(STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(STAMP)
	@$(PY) -m mypy

check: lint types
	@$(PY) -m pytest $(TESTS)

# Exit codes of `prepare --check`: 0 prepared already, 3 to be prepared and the archive answers, 1 it does not (one line said why).
data: $(STAMP)
	@$(PY) experiments/data/prepare.py --check $(DATA); code=$$?; \
	if [ $$code -eq 3 ]; then $(MAKE) --no-print-directory $(DATA_STAMP) && $(DATA_VENV)/bin/python experiments/data/prepare.py $(DATA); \
	else exit $$code; fi

$(DATA_STAMP): third_party/requirements-data.txt
	@$(DATA_VENV)/bin/python -m pip --version > /dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(DATA_VENV)
	@echo "installing $< (TensorFlow, only for preparing data)"
	@$(DATA_VENV)/bin/python $(PIP_INSTALL) -r $<
	@touch $@

# Environments and caches; results take hours to make again.
clean:
	rm -rf .venv .venv-py311 $(VENV) $(DATA_VENV) .mypy_cache .ruff_cache .pytest_cache

clean-results:
	rm -rf results
