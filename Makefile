# `make` says what there is. Everything is installed into .venv, nothing outside this folder.

PYTHON ?=
TORCH_INDEX ?=
ARGS ?=

BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := .venv/.installed
TOOLS := .venv/.installed-tools

.PHONY: help
help:
	@echo "make train   set up, then train the tutorial's network on CIFAR-10 (ARGS='--epochs 2' changes it)"
	@echo "make test    set up, then lint, check types and run the tests"
	@echo "make docs    set up, then build the documentation into build/site"
	@echo "make setup   make .venv and install Peewit and its developers' tools into it, if that is not done yet"
	@echo "make clean   remove .venv and what tools have cached (not data/ and runs/)"
	@echo
	@echo "PYTHON=python3.12 chooses the Python, 3.11 or newer."
	@echo "TORCH_INDEX=https://download.pytorch.org/whl/cpu takes PyTorch's CPU build (on Linux: 200 MB, not 3 GB)."

.PHONY: train
train: $(INSTALLED)
	@$(BIN)/peewit train cifar10 --recipe tutorial --fallback digits $(ARGS)

.PHONY: test
test: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(ARGS)

.PHONY: docs
docs: $(TOOLS)
	$(BIN)/python scripts/command_reference.py
	$(BIN)/zensical build --clean --strict
	$(BIN)/python scripts/check_site.py
	@echo build/site/index.html

.PHONY: setup
setup: $(TOOLS)

.PHONY: clean
clean:
	rm -rf .venv build dist src/*.egg-info src/peewit/kernels/*.so .cache .mypy_cache .ruff_cache .pytest_cache
	find src tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard src/peewit/kernels/*.[ch])
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making .venv with $$("$$python" -V)" >&2; \
	    "$$python" -m venv .venv && exit 0; \
	    echo "make: $$python cannot make .venv; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "make: Peewit needs Python 3.11 or newer, and $(or $(PYTHON),python3) is not; install one and name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
	@echo "installing (PyTorch is large: some minutes)" >&2
	@$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[digits]'
	@touch $@

# apart, because they take a GB and training needs none of them
$(TOOLS): $(INSTALLED)
	@echo "installing what developers need" >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
