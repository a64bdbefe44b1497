# Everything runs in .venv, which these targets make. pip uses whatever configuration this machine has.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lab report book clean

OLD_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.11 python3; do \
	if $$name -c '$(OLD_ENOUGH)' 2>/dev/null; then command -v $$name; break; fi; done)
INSTALLED_BY := settings.ini setup.py pyproject.toml constraints.txt
BIN := .venv/bin

help:
	@echo "make demo    install, train and compare five models on the demo dataset, render the report"
	@echo "make test    install the development tools and run every check"
	@echo "make lab     open the notebooks in JupyterLab"
	@echo "make report  render the report of all finished runs"
	@echo "make book    execute all notebooks and render them with their pages: half an hour the first time"
	@echo "make clean   remove the environment, caches and rendered report; data/ and runs/ stay"

demo: .venv/installed
	@$(BIN)/asm-mapping demo

test: .venv/installed-dev
	@PATH="$(CURDIR)/$(BIN):$$PATH" .ci/checks

lab: .venv/installed-lab
	@$(BIN)/jupyter lab --notebook-dir nbs

report: .venv/installed
	@$(BIN)/asm-mapping report

book: .venv/installed-lab
	@$(BIN)/python -c "from asm_mapping.book import run_book; run_book()"

clean:
	rm -rf .venv build asm_mapping.egg-info _proc ._proc.asm _docs ._docs.asm reports/pages reports/_site .quarto
	rm -rf .pytest_cache .ruff_cache .mypy_cache nbs/.ipynb_checkpoints
	find nbs asm_mapping tests .ci -name __pycache__ -prune -exec rm -rf {} +

# One stamp for each set of extras, written when pip has succeeded; each set includes the base.
.venv/installed: EXTRAS :=
.venv/installed-dev: EXTRAS := [dev,lab,tensorboard,onnx,openvino,tune,cluster]
.venv/installed-lab: EXTRAS := [lab,tensorboard,onnx,openvino,tune,cluster]
.venv/installed .venv/installed-dev .venv/installed-lab: $(INSTALLED_BY)
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer is needed. Say where it is: make PYTHON=/path/to/python3.11"; \
		exit 1; \
	fi
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv .venv
	@echo "Installing into .venv: about 4 minutes the first time, 6 GB on disk"
	@$(BIN)/pip install --quiet -c constraints.txt -e '.$(EXTRAS)'
	@touch .venv/installed $@
