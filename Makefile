# make quickstart | make test | make lab   (each sets up first; nothing else is needed than Python, git and make)
PYTHON ?= python3
VENV := .venv
DEFLARE := $(VENV)/bin/deflare
EXTRAS := test
SEED := 1
RUN := runs/pretrained_$(SEED)
STAMP := $(VENV)/.complete-$(EXTRAS)
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
TESTS := $(VENV)/bin/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
.PHONY: help setup quickstart test test-slow test-all lab check benchmark gallery pretrained clean

help:
	@echo "make quickstart   set up, then simulate, train, evaluate and deflare on this machine; report in reports/"
	@echo "make test         set up, then run the tests that a change is likely to break, in a few minutes"
	@echo "make test-slow    set up, then run all other tests"
	@echo "make test-all     both"
	@echo "make lab          set up, then open JupyterLab on the notebooks"
	@echo "make check        lint, format and type check"
	@echo "make benchmark    codec speed against its peers; table in reports/"
	@echo "make gallery      run the notebooks, and take the pictures of reports/gallery anew"
	@echo "make pretrained   train the package's two networks, or go on with them, on a GPU (with EXTRAS=test,gpu; SEED=1)"
	@echo "make clean        remove .venv (data, reports and runs stay)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "deflare needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.11"; exit 1; }
	@rm -f $@
	@if command -v uv >/dev/null; then \
	  echo "Setting up $(VENV) with uv, versions from constraints.txt"; \
	  { test -x $(VENV)/bin/python || uv venv --seed --clear --python $(PYTHON) $(VENV); } && \
	  uv pip install --python $(VENV)/bin/python --constraint constraints.txt --editable '.[$(EXTRAS)]'; \
	else \
	  echo "Setting up $(VENV) with pip, versions from constraints.txt (a few minutes the first time)"; \
	  { $(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); } && \
	  $(VENV)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'; \
	fi
	@# Installers leave modules uncompiled, and where Python may not write, each process would compile a thousand again.
	@env -u PYTHONDONTWRITEBYTECODE $(DEFLARE) doctor >/dev/null || echo "Something does not work; deflare doctor says what"
	@touch $@
	@echo "Set-up complete"

quickstart: $(STAMP)
	$(DEFLARE) notebook 00_quickstart -p num_train 12 -p num_test 4 -p max_steps 120 -p seed 3 -p require_improvement true

test: $(STAMP)
	$(TESTS)

test-slow: $(STAMP)
	$(TESTS) -m slow

test-all: test test-slow

lab: $(STAMP)
	$(VENV)/bin/jupyter lab --notebook-dir=. notebooks/00_quickstart.ipynb

check: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

benchmark: $(STAMP)
	$(VENV)/bin/python tests/benchmarks/codec_speed.py

gallery: $(STAMP)
	PYTHONPATH=tests:. $(VENV)/bin/python -m support.gallery

pretrained: $(RUN)/first/.complete
	$(DEFLARE) train --resume --config configs/pretrained_more_train_config.yaml \
	  trainer.seed=$(SEED) trainer.output_dir=$(RUN)/more trainer.start_from=$(RUN)/first/last
	$(DEFLARE) train --resume --config configs/lamps_train_config.yaml trainer.seed=$(SEED) trainer.output_dir=$(RUN)/lamps
	$(DEFLARE) combine $(RUN)/more/last $(RUN)/lamps $(RUN)/both

$(RUN)/first/.complete: | $(STAMP)
	$(DEFLARE) train --resume --config configs/pretrained_train_config.yaml trainer.seed=$(SEED) trainer.output_dir=$(RUN)/first
	@touch $@

clean:
	rm -rf $(VENV)
