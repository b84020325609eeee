"""The verifier as a downstream service gets it: what importing it loads, and what installing it brings."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def test_importing_the_verifier_loads_nothing_of_the_server() -> None:
    program = "import sys, auth_service.verifier; print(' '.join(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "auth_service.verifier.jws" in loaded
    servers = {"tortoise", "asyncpg", "redis", "uvicorn", "pydantic", "passlib", "structlog", "click"}
    assert servers.isdisjoint(loaded)
    ours = {name for name in loaded if name.startswith("auth_service.")}
    assert all(name.startswith("auth_service.verifier") for name in ours)


def test_installing_without_extras_brings_only_what_the_verifier_imports() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    brought = {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in project["dependencies"]}
    assert brought == {"cryptography", "httpx2", "pyjwt", "starlette"}
