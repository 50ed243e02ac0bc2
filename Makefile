SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   ?= .venv
BSK    ?= $(VENV)/bin/bsk
SCALE  ?= smoke
OUT    ?= out
DATA   ?= data
DEVICE ?= auto
LAUNCH ?=
PARTIAL ?=
MUTANTS ?=
OTHER  ?=
JOBS   ?= $(shell nproc 2>/dev/null || echo 1)

# The flags of a target are looked up by its name, from which make removes a leading ./; so it is removed here too.
odd := : ; $$ \# ' " \ % = ( ) & | < > * ? [ ] { } ! ^ ` ~
plain = $(patsubst ./%,%,$(patsubst %/,%,$(subst /./,/,$(1))))
unfit = $(if $(word 2,$(1)),no spaces in paths)$(if $(filter . .. %/. %/.. /,$(or $(call plain,$(1)),.)),name a folder of its own)$(foreach \
  c,$(odd),$(if $(findstring $(c),$(1)),no $(c) in paths))
$(foreach v,OUT DATA VENV,$(if $(strip $(call unfit,$(value $(v)))),$(error $(v)=$(value $(v)): $(strip \
  $(call unfit,$(value $(v)))); choose another folder)) \
  $(eval override $(v) := $(call plain,$($(v)))))

help: ## Show the targets
	@grep -hE '^[a-z0-9%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort -u | awk -F'\t' '{printf "  %-16s %s\n", $$1, $$2}'
	@echo "  variables: SCALE=smoke|small|medium|paper SEEDS='1 2 3' OUT= DATA= DEVICE= LAUNCH= JOBS= PARTIAL= CIFAR10= CIFAR100= TINY="

# compat: Python finds bsk in the folder above the checkout too, whose name may be bsk.
editable := $(VENV)/bin/pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable
INSTALLED := $(VENV)/.installed
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(editable) '.[test]'
	touch $@

install: $(INSTALLED) ## Create .venv with bsk and its test tools

checked := bsk benchmarks documentation examples tests torture # not what a user puts beside them

# Modules are compiled once, not by each of the processes that the tests start.
PYTEST = PYTHONDONTWRITEBYTECODE= $(VENV)/bin/pytest --numprocesses $(JOBS) --dist worksteal

test: $(INSTALLED) ## Check the style, and run the tests that take only seconds each
	$(VENV)/bin/ruff check $(checked)
	$(VENV)/bin/ruff format --check --quiet $(checked)
	$(PYTEST) -m 'not slow'

types: $(INSTALLED) ## Check the types
	$(VENV)/bin/mypy

test-all: test types ## Check the types and run the slow tests too: whole pipelines, many processes, slow references
	$(PYTEST) -m slow

coverage: $(INSTALLED) ## Run the tests and report which lines of bsk/ they do not reach
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest --numprocesses $(JOBS) --dist worksteal
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report --show-missing --skip-covered

docs: $(INSTALLED) ## Write the generated pages and build the site in site/index.html
	$(editable) '.[docs]'
	$(VENV)/bin/python -m documentation
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo $(CURDIR)/site/index.html

mutants: $(INSTALLED) ## Mutation testing of methods and attacks: which changes does no test detect? MUTANTS='bsk.perturb.*' selects some
	$(editable) '.[mutants]'
	$(VENV)/bin/mutmut run --max-children $(JOBS) $(MUTANTS)
	$(VENV)/bin/python -m benchmarks.mutants mutants/unnoticed.txt

bench: $(INSTALLED) ## Measure speed as ratios within one run; OTHER=CHECKOUT compares with another build
	$(VENV)/bin/python -m benchmarks $(OTHER)

torture: $(INSTALLED) ## Stress tests: kills, damaged inputs, full disks, concurrent writers, unusual situations; minutes
	$(VENV)/bin/python -m torture

clean: ## Remove the output of the pipelines (not the environment, not the data)
	rm -rf -- '$(OUT)'

# The paper's tables and figures, the most important first.
experiments := table2 figure5 table7 table8 figure1 table6 table9 table10 table3 figure3 table1 table11 figure2 \
  section54 figure4 table5 table4
readmes := demo readme8 readme16 readme-table
others := frontier budget collapse fast fastat fastat-averaged fastat-epochs

paper: $(experiments) ## All tables and figures of the paper at SCALE=smoke (digits, minutes), small, medium or paper (needs a GPU)

report: $(INSTALLED) | $(filter paper $(others) $(experiments),$(MAKECMDGOALS)) ## One HTML page of all results at this SCALE: tables, figures, curves, flags
	$(BSK) report $(OUT)/$(SCALE)

include pipelines/common.mk
include pipelines/demo.mk
include pipelines/scales.mk
include pipelines/readme.mk
include $(experiments:%=pipelines/%.mk)
include pipelines/frontier.mk
include pipelines/collapse.mk
include pipelines/fast.mk
include pipelines/fastat.mk

.PHONY: help install test types test-all coverage docs mutants bench torture clean paper report
