"""The README is true: its session with curl runs as it stands, its settings and its file list are those of the code."""

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from auth_service.devstack.process import free_port
from auth_service.settings import Settings
from auth_service.verifier.testing import FakeIssuer
from tests.support.command import command as command_of

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text("utf-8")
_OPENING = _README.partition("\n## ")[0]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can reach: the one of pytest's own is closed to whom PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="auth-readme-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_the_first_session_runs_as_it_stands(folder: Path) -> None:
    port, internal_port, gateway_port = free_port(), free_port(), free_port()
    dev = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "auth_service",
            "dev",
            "--port",
            str(port),
            "--internal-port",
            str(internal_port),
            "--gateway-port",
            str(gateway_port),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert dev.stdout is not None
        printed = ""
        for line in dev.stdout:  # ends if the process does
            printed += line
            if "Application startup complete" in line:
                break
        else:
            pytest.fail(printed)
        script = "\n".join(re.findall(r"```bash\n(.*?)```", _README, re.S))
        script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        script = script.replace("127.0.0.1:9000", f"127.0.0.1:{internal_port}")
        script = script.replace(".venv/bin/auth-service", f"{sys.executable} -m auth_service")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert '"username":"ada"' in done.stdout
        assert '"current":true' in done.stdout
        assert '"code": "invalid_token"' in done.stdout, "after the logout the access token opens nothing"
        assert not re.search(r"[\]}][\[{]", done.stdout), "each answer ends its line"
        assert '"jwks_uri"' in done.stdout
        assert '"kty":"RSA"' in done.stdout
        of_the_token = re.findall(r'{"active":.*?}', done.stdout)
        assert [answer[:14] for answer in of_the_token] == ['{"active":true', '{"active":fals']
        assert of_the_token[1] == '{"active":false}'
        assert '"granted_scopes":["auth:admin"]' in done.stdout
        assert '"action":"user.login"' in done.stdout
    finally:
        dev.send_signal(signal.SIGINT)
        assert dev.stdout is not None
        dev.stdout.read()
        dev.stdout.close()
        assert dev.wait(30) == 0


def test_the_first_session_goes_on_with_the_refreshed_tokens() -> None:
    session = re.findall(r"```bash\n(.*?)```", _README, re.S)[0]
    after_the_refresh = session.partition("/user/refresh-token")[2].partition("/user/logout")[0]
    for kind in ("access_token", "refresh_token"):
        assert f"| member {kind})" in after_the_refresh, "what comes next would use the tokens that were replaced"


def test_the_three_lines_of_the_opening_are_those_of_the_whole_service() -> None:
    [opening] = re.findall(r"```python\n(.*?)```", _OPENING, re.S)
    [service] = [block for block in _python_blocks() if "from starlette.applications" in block]
    assert opening in service
    for line in ("verifier = Verifier(", "lifespan=verifier.lifespan", "Middleware(BearerMiddleware"):
        assert line in opening


def test_the_lines_for_a_browser_are_those_at_the_head_of_the_client() -> None:
    [block] = re.findall(r"```js\n(.*?)```", _README, re.S)
    imported, *lines = filter(None, block.splitlines())
    assert imported == 'import { AuthClient } from "./auth-client.js";'
    client = (_ROOT / "gateway_example" / "static" / "auth-client.js").read_text("utf-8")
    head = client.partition("*/")[0]
    assert "export class AuthClient " in client
    for line in lines:
        assert line in head


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_three_lines_protect_a_service(framework: str) -> None:
    import_of_the_application = {"starlette": "from starlette.applications", "fastapi": "from fastapi import"}[
        framework
    ]
    [block] = [block for block in _python_blocks() if import_of_the_application in block]
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    issuer = FakeIssuer.of(names["verifier"])
    with TestClient(names["app"]) as client:
        good = issuer.headers(username="ada", scope="orders:read", sid="s1")
        assert client.get("/orders", headers=good).json() == {"for": "ada", "session": "s1"}
        assert client.get("/orders").status_code == 401
        assert client.get("/orders", headers=issuer.headers(scope="profile")).status_code == 403


def test_the_test_of_a_service_runs_as_it_stands(tmp_path: Path) -> None:
    service, test = (block for block in _python_blocks() if "fastapi" not in block)
    (tmp_path / "orders.py").write_text(service, "utf-8")
    (tmp_path / "test_orders.py").write_text(test, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_orders.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_settings_table_is_the_settings() -> None:
    rows = re.findall(r"^\| `AUTH_([A-Z_]+)` \| (?:`(.*?)`)? \| (.*) \|$", _README, re.M)
    described = {name.lower(): (default, text) for name, default, text in rows}
    assert described == {
        name: ("" if field.is_required() else _shown(field.default), field.description)
        for name, field in Settings.model_fields.items()
    }


def test_every_file_it_names_exists() -> None:
    for path in _where_things_are():
        assert path.exists(), path


def test_every_module_is_in_its_list_of_where_things_are() -> None:
    named = _where_things_are()
    for module in sorted((_ROOT / "auth_service").iterdir()):
        if not module.name.startswith("_") and module.suffix in (".py", ""):
            assert any(path.is_relative_to(module) for path in named), module


def test_its_contents_are_its_sections() -> None:
    titles = re.findall(r"^## (.*)$", _README, re.M)
    links = re.findall(r"\]\(#(.*?)\)", _OPENING)
    assert links == [re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_command_it_names_exists() -> None:
    commands = re.findall(r"^auth-service ([a-z -]+?)(?: {2,}| ada| users\.csv| billing| --)", _README, re.M)
    assert len(commands) >= 6
    for command in commands:
        assert command_of(*command.split(), "--help").code == 0, command
    targets = set(re.findall(r"^make ([a-z0-9-]+)", _README, re.M))
    makefile = (_ROOT / "Makefile").read_text("utf-8")
    assert targets >= {"dev", "test", "check"}
    assert all(f"\n{target}:" in makefile for target in targets)


def test_make_dev_hands_its_arguments_on() -> None:
    options = "--port 8100 --internal-port 9100 --gateway-port 8101"
    assert f'make dev ARGS="{options}"' in _README
    done = subprocess.run(
        ["make", "-n", "dev", f"ARGS={options}"], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    assert f"auth-service dev {options}\n" in done.stdout


def _python_blocks() -> list[str]:
    """The whole programs: the lines of the opening are a piece of one."""
    return re.findall(r"```python\n(.*?)```", _README.removeprefix(_OPENING), re.S)


def _where_things_are() -> list[Path]:
    """The files of the list. A name without its folder is of the one before it, or else of the service."""
    section = _README.partition("## Where things are")[2].partition("\n## ")[0]
    paths = []
    for row in re.findall(r"^\| (?!you look for).* \| (.*) \|$", section, re.M):
        folder = _ROOT
        names = re.findall(r"`([A-Za-z_/-]+(?:\.[a-z]+)?/?)`", row)
        assert names, row
        for name in names:
            places = (_ROOT / name, folder / name, _ROOT / "auth_service" / name)
            paths.append(next((place for place in places if place.exists()), folder / name))
            folder = paths[-1].parent
    return paths


def _shown(default: object) -> str:
    if isinstance(default, timedelta):
        return str(int(default.total_seconds()))
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)
