"""openid-client, oauth4webapi and jose, from npm and run by node, accept this service.

Skipped, and said so, where there is no node, no npm, or no way to get the three packages.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import Issuer

_FOLDER = Path(__file__).parent
_SCRIPTS = ("openid_client.mjs", "oauth4webapi.mjs", "jose.mjs")

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest) -> Path:
    """A folder with the scripts and the packages of the lock file, fetched once and kept with pytest's cache."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("NOT RUN: there is no node or no npm on PATH, so no JavaScript client was tried")
    lock = (_FOLDER / "package-lock.json").read_bytes()
    folder = request.config.cache.mkdir(f"interop-{hashlib.sha256(lock).hexdigest()[:16]}")
    for name in (*_SCRIPTS, "package.json", "package-lock.json"):
        shutil.copy(_FOLDER / name, folder)
    if not (folder / "complete").exists():
        fetched = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if fetched.returncode != 0:
            pytest.skip(f"NOT RUN: npm could not fetch the JavaScript clients: {fetched.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return folder


@pytest.fixture
def run(modules: Path, issuer: Issuer) -> Run:
    """Runs a script; answers what it printed. Whatever its library does not accept, it fails with."""

    def run_script(script: str, **variables: str) -> dict[str, Any]:
        environment = {
            "PATH": os.environ["PATH"],
            "ISSUER": issuer.url,
            "CLIENT_ID": issuer.client.client_id,
            "CLIENT_SECRET": issuer.client.client_secret,
            **variables,
        }
        done = subprocess.run(
            ["node", script], cwd=modules, env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    return run_script


@pytest.mark.parametrize("script", ["openid_client.mjs", "oauth4webapi.mjs"])
def test_an_oauth_client_of_npm_accepts_every_endpoint(run: Run, issuer: Issuer, script: str) -> None:
    user = issuer.register()
    for method in ("client_secret_basic", "client_secret_post"):
        found = run(script, METHOD=method, REFRESH_TOKEN=user.refresh_token if method.endswith("basic") else "")
        assert found["scope"] == "orders:read"
        assert found["live"]["active"] is True
        assert found["live"]["client_id"] == issuer.client.client_id
        assert found["revoked"] == {"active": False}
        assert found["wrong_scope"] == "invalid_scope"
        assert found["wrong_secret"] == "401 basic"
        if method.endswith("basic"):
            assert found["refreshed_scope"] == "profile"
            assert found["refreshed_after_revocation"] == "invalid_grant"


def test_jose_verifies_both_kinds_of_access_token_with_the_published_keys(run: Run, issuer: Issuer) -> None:
    user = issuer.register()
    assert run("jose.mjs", ACCESS_TOKEN=user.access_token, AUDIENCE="orders") == {
        "sub": user.id,
        "tampered": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
        "elsewhere": "ERR_JWT_CLAIM_VALIDATION_FAILED",
        "another_type": "ERR_JWT_CLAIM_VALIDATION_FAILED",
    }
