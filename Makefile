# All work from a bare clone on Python 3.11 to 3.13, and are quick the second time; `make help`
# lists them. PIP_CONSTRAINT=$PWD/constraints.txt installs the versions that are tested.

PYTHON ?= python3
# Most modules are never imported: those that are, are compiled then.
PIP := .venv/bin/python -m pip install -q --disable-pip-version-check --no-compile
MMT := .venv/bin/mmt

# Without a GPU, TensorFlow's CPU wheel saves half a gigabyte. TensorFlow Hub asks for the other one
# by name, so it is installed without what it asks for. Other versions of torch bring CUDA along.
ifeq ($(shell uname -sm)$(shell command -v nvidia-smi),Linux x86_64)
TENSORFLOW := tensorflow-cpu
HUB := --no-deps tensorflow-hub tf-keras
TORCH := torch==2.13.0
else
TENSORFLOW := tensorflow
HUB := tensorflow-hub tf-keras
TORCH := torch
endif

.PHONY: help demo test test-quick lint docs lock clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "%-12s%s\n", $$1, $$2 }'

demo: .venv/installed  ## trains and compares six models, exports the best, scores with it: demo/
	$(MMT) ablate --study=demo --workdir=demo
	test -e demo/saved_model || $(MMT) export --workdir=demo/best --out=demo/saved_model
	test -e demo/photo.npz || \
	  $(MMT) record --data=scenes@1 --split=test --index=0 --out=demo/photo.npz > demo/photo.txt
	test -e demo/other.npz || \
	  $(MMT) record --data=scenes@1 --split=test --index=1 --out=demo/other.npz > demo/other.txt
	$(MMT) score --model=demo/saved_model --record=demo/photo.npz \
	  --caption="$$(head -n 1 demo/photo.txt)" --caption="$$(head -n 1 demo/other.txt)"

# Two processes; what a file's tests share is made once, in one of them.
PYTEST := .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/installed-test  ## all tests
	$(PYTEST)

test-quick: .venv/installed-test  ## those of less than a second or so: two minutes
	$(PYTEST) -m 'not slow'

# Types are checked against what the tests use.
lint: .venv/installed-test .venv/installed-dev  ## style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright

# With --quiet mkdocs counts no warnings, and a broken link would pass.
docs: .venv/installed-docs  ## the pages of docs/ as a site in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build

.venv/installed: setup.py pyproject.toml
	@echo "Installing into .venv; this takes a few minutes."
	$(PYTHON) -m venv .venv
	$(PIP) $(TENSORFLOW) 'setuptools>=77,<81' -e .
	$(PIP) $(HUB)
	touch $@

.venv/installed-%: .venv/installed
	$(PIP) $(if $(filter test,$*),$(TORCH)) -e '.[$*]'
	touch $@

# What is pinned stays as it is where it can; delete the file first for the newest of everything.
lock:  ## brings constraints.txt up to pyproject.toml, by uv
	echo 'tensorflow-cpu ; sys_platform == "linux"' | uv pip compile --quiet --universal \
	  --python-version=3.11 --all-extras --no-annotate --no-header pyproject.toml - -o constraints.txt

clean:  ## removes what these made
	rm -rf .venv .cache demo build site *.egg-info
