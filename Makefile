# Everything goes through the one lock file. Needs python3 (3.11 or newer) with venv, and make.
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
RUN := $(UV) run --frozen --all-extras

export UV_PYTHON_DOWNLOADS ?= never
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Containers often forbid Python to keep what it compiled; here hundreds of processes would compile anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test test-arm check bench docs format golden clean

help:  ## what there is to do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(UV)  ## the whole story on this machine; CI=1 ends by itself, GOOD_V3=1 tells the other ending
	$(RUN) edge demo --out demo-out $(if $(CI),--ci) $(if $(GOOD_V3),--good-v3)

test: $(UV)  ## the whole test suite, a process more than cores and four at most; ARGS='-n 0 -k rollout' for some
	$(RUN) pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-arm: $(UV)  ## the agent on an emulated 64-bit ARM; needs root, qemu-user-static, mmdebstrap
	$(RUN) python -m tests.arm

check: $(UV)  ## lint, format, types, import rules
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

bench: $(UV)  ## every benchmark, or ONLY=name; results into benchmarks/README.md
	$(RUN) python -m benchmarks $(ONLY)

docs: $(UV)  ## the documentation as a site, in site/
	$(RUN) python docs/make_reference.py
	$(RUN) zensical build --clean --strict

format: $(UV)  ## format the code
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

golden: $(UV)  ## write the golden files anew (review the diff!)
	$(RUN) python -m tests.contract.golden_documents

clean:  ## forget environments, caches and outputs
	rm -rf .venv .tools demo-out site docs/reference .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.tools/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "python3 is older than 3.11: install Python 3.11 or newer"; exit 1; }
	@python3 -m venv .tools \
	  || { echo "python3 has no venv: on Debian, apt install python3-venv"; exit 1; }
	.tools/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
