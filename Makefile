# Every command a person needs here. On a machine with Python >= 3.11, git and make, each does its own set-up.

PYTHON ?= python3
UV_VERSION := 0.13.9
export UV_PYTHON_DOWNLOADS := never

.DEFAULT_GOAL := help
.PHONY: help dev test check bench format lock clean

help: ## list these commands
	@grep -E '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

dev: .venv/installed-dev ## the issuer on :8000, on a private PostgreSQL and Redis, with a demo user
	@exec .venv/bin/auth-service dev

test: .venv/installed-all ## the whole suite, on a real PostgreSQL and a real Redis (ARGS="-k name" narrows it)
	.venv/bin/pytest -n auto --dist loadfile $(ARGS)

check: .venv/installed-all ## format, lint, types, layers, lock file
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@! grep -oE 'https?://[^/"]*' uv.lock | grep -vE '^https://(pypi\.org|files\.pythonhosted\.org)$$' \
		|| { echo 'uv.lock names a host that is not public: run make lock'; exit 1; }

bench: .venv/installed-all ## what a refresh costs, and the share of it that the signatures are (printed, not asserted)
	.venv/bin/python -m tests.benchmarks.refresh

format: .venv/installed-all ## format the code and mend what ruff can mend
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock: .venv/uv ## resolve the dependencies anew, from the public index
	env -u UV_INDEX_URL -u UV_DEFAULT_INDEX .venv/bin/uv lock --default-index https://pypi.org/simple

clean: ## remove what the commands above made
	rm -rf .venv .auth-service dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# --inexact: uv itself lives in .venv and is not in the lock.
.venv/installed-dev: .venv/uv uv.lock pyproject.toml
	.venv/bin/uv sync --quiet --frozen --inexact --extra server --group stack
	@touch $@

.venv/installed-all: .venv/uv uv.lock pyproject.toml
	.venv/bin/uv sync --quiet --frozen --inexact --extra server --all-groups
	@touch $@ .venv/installed-dev
