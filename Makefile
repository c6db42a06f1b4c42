# SPDX-License-Identifier: GPL-3.0-or-later
# Two commands do everything on a fresh machine: make demo, make test. Each sets the machine up first.

PYTHON := .venv/bin/python
DEMO_FOLDER ?= demo
SENSOR ?= sentinel2
IMAGE ?=
LABELS ?=
CLASS_FIELD ?=
DATA ?=
CHECKPOINT ?=

.PHONY: help setup demo test test-faults lint docs screenshots zip bench bench-data bench-train bench-map bench-latency bench-tiles bench-accuracy clean

help:
	@echo 'make demo   run all six steps on a scene made for it, or on IMAGE=… LABELS=… [CLASS_FIELD=…]'
	@echo 'make test   run the whole test suite'
	@echo 'make test-faults  run all cases of what can break, fuzz for longer, and 200 jobs in one QGIS'
	@echo 'make lint   check style and types'
	@echo 'make docs   build the documentation'
	@echo 'make screenshots  make the pictures of the documentation anew'
	@echo 'make bench  measure speed and memory: the following three'
	@echo 'make bench-data  measure splitter and dataset maker'
	@echo 'make bench-train  measure the trainer'
	@echo 'make bench-map  measure the mapper'
	@echo 'make bench-latency  measure how late QGIS answers while a network trains'
	@echo 'make bench-tiles IMAGE=… CHECKPOINT=… LABELS=…  what the settings of the mapper cost and bring'
	@echo 'make bench-accuracy DATA=…  train on a scene folder and score on its test labels'
	@echo 'make zip    make a plugin zip in dist/'
	@echo 'make setup  install QGIS where missing, and make .venv'

setup:
	@tools/setup

demo: setup
	@$(PYTHON) tools/demo.py --folder "$(DEMO_FOLDER)" --sensor "$(SENSOR)" --image "$(IMAGE)" --labels "$(LABELS)" --class-field "$(CLASS_FIELD)"

test: setup
	@tools/test

test-faults: setup
	@SPECDEEPMAP_ALL_FAULTS=1 tools/test tests/faults tests/fuzz

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy specdeepmap/core

docs: setup
	$(PYTHON) -m sphinx -W --keep-going -b html docs docs/_build/html

screenshots: setup
	@$(PYTHON) tools/screenshots.py

zip: setup
	$(PYTHON) package.py zip

bench: bench-data bench-train bench-map

bench-accuracy: setup
	@$(PYTHON) benchmarks/accuracy.py "$(DATA)" $(if $(GO_ON),--go-on)

bench-train: setup
	@$(PYTHON) benchmarks/train.py

bench-map: setup
	@$(PYTHON) benchmarks/map.py

bench-tiles: setup
	@$(PYTHON) benchmarks/tiles.py "$(IMAGE)" "$(CHECKPOINT)" "$(LABELS)"

bench-latency: setup
	@QT_XCB_GL_INTEGRATION=none SPECDEEPMAP_PYTHON="$$PWD/$(PYTHON)" xvfb-run --auto-servernum $(PYTHON) benchmarks/latency.py

bench-data: setup
	@$(PYTHON) benchmarks/data.py

clean:
	rm -rf demo dist docs/_build .qgis .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
