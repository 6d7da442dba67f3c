# All work from a bare clone on Python 3.11 to 3.13, and are quick the second time:
#   make demo   trains and compares a few models on generated scenes, exports the best one, and
#               scores captions with it through TensorFlow Hub; all lands in demo/
#   make test   installs what tests need and runs them all
#   make test-quick   runs those that take no longer than seconds, in some three minutes
#   make lint   checks style and types
#   make docs   builds the site of docs/ in site/; a broken link is an error

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

.PHONY: demo test test-quick lint docs clean

demo: .venv/installed
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

test: .venv/installed-test
	$(PYTEST)

test-quick: .venv/installed-test
	$(PYTEST) -m 'not slow'

# Types are checked against what the tests use.
lint: .venv/installed-test .venv/installed-dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

.venv/installed: setup.py pyproject.toml
	@echo "Installing into .venv; this takes a few minutes."
	$(PYTHON) -m venv .venv
	$(PIP) $(TENSORFLOW) 'setuptools>=77,<81' -e .
	$(PIP) $(HUB)
	touch $@

.venv/installed-%: .venv/installed
	$(PIP) $(if $(filter test,$*),$(TORCH)) -e '.[$*]'
	touch $@

clean:
	rm -rf .venv .cache demo build site *.egg-info
