# `make` lists the targets. Everything is installed into .venv, nothing outside this folder.

PYTHON ?=
TORCH_INDEX ?=
ARGS ?=

BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := .venv/.installed
TOOLS := .venv/.installed-tools

.PHONY: help
help:
	@echo "make train   set up, then train the tutorial's network on CIFAR-10 (options: ARGS='--epochs 2')"
	@echo "make test    set up, then run the linter, the type checker and the tests"
	@echo "make docs    set up, then build the documentation into build/site"
	@echo "make wheel   set up, then build the wheel and the source archive into dist"
	@echo "make setup   create .venv and install Peewit and the development tools, unless that is done"
	@echo "make clean   remove .venv, build results and tool caches (keeps data/ and runs/)"
	@echo
	@echo "PYTHON=python3.12 selects the Python interpreter (3.11 or newer)."
	@echo "TORCH_INDEX=https://download.pytorch.org/whl/cpu installs PyTorch's CPU build (on Linux: 200 MB instead of 3 GB)."

.PHONY: train
train: $(INSTALLED)
	@$(BIN)/peewit train cifar10 --fallback digits $(ARGS)

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

.PHONY: wheel
wheel: $(TOOLS)
	@rm -f dist/peewit-*
	@$(BIN)/python scripts/build_wheel.py dist

.PHONY: setup
setup: $(TOOLS)

.PHONY: clean
clean:
	rm -rf .venv build dist src/*.egg-info src/peewit/kernels/*.so .cache .mypy_cache .ruff_cache .pytest_cache
	find src tests benchmarks notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard src/peewit/kernels/*.[ch])
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "creating .venv with $$("$$python" -V)" >&2; \
	    "$$python" -m venv .venv && exit 0; \
	    echo "make: $$python could not create .venv; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo "make: $(or $(PYTHON),python3) is missing or older than Python 3.11; install Python 3.11 or newer and name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
	@echo "installing (PyTorch is large: this takes a few minutes)" >&2
	@$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[digits]'
	@touch $@

# separate, because they take 1 GB and training does not need them
$(TOOLS): $(INSTALLED)
	@echo "installing the development tools" >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
