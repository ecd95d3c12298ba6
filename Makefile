# Every target installs what it needs by itself, from a fresh clone with no venv. A stamp file per
# kind of installation makes the second run quick; a changed pyproject.toml makes it install again.

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -rfEs

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-long bench lint clean peers

help:
	@echo 'make demo       a volume to tape and back by EXTENDED COPY, on this machine'
	@echo 'make test       all tests, other people'"'"'s programs included (as root it installs them)'
	@echo 'make test-fast  the tests that need nothing but Python, about a minute'
	@echo 'make test-long  minutes of fuzzing and large media'
	@echo 'make bench      ratios against tgt and qemu-img'
	@echo 'make lint       ruff and mypy'
	@echo 'make clean      remove what was built, the venv included'

demo: $(VENV)/.runtime
	@$(BIN)/serverfree demo

# What starts processes of its own has the machine for itself: one test at a time.
test: peers test-fast
	$(PYTEST) -m '(peer or vm or served) and not long'

test-fast: $(VENV)/.test
	$(PYTEST) -n auto --dist worksteal -m 'not (peer or vm or long or served)'

test-long: $(VENV)/.test peers
	$(PYTEST) -m long

bench: $(VENV)/.test peers
	@$(BIN)/python tests/bench/run.py

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The programs that no one here wrote. Root installs the missing ones, anyone else is told.
peers: $(VENV)/.test
	@$(BIN)/python tests/support/peers.py

# Where the distribution ships Python without ensurepip, the pip of that Python fills the venv.
$(BIN)/python:
	@for candidate in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c \
	        'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        "$$candidate" -m venv $(VENV) >/dev/null 2>&1 || { \
	            rm -rf $(VENV) && "$$candidate" -m venv --without-pip $(VENV) && \
	            "$$candidate" -m pip --python $(VENV)/bin/python install -qq pip; }; \
	        exit; \
	    fi; \
	done; \
	echo 'serverfree needs Python 3.11 or newer: install it, or say make PYTHON=/its/path' >&2; \
	exit 1

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo 'installing serverfree into $(VENV)'
	@$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo 'installing serverfree and what its tests need into $(VENV)'
	@$(BIN)/python -m pip install -qq --editable '.[test,trace]'
	@touch $@ $(VENV)/.runtime

-include vm-testbed/rules.mk
