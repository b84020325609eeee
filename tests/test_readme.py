"""The README is true: its session with curl runs as it stands, its settings and its file list are those of the code."""

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from auth_service.devstack.process import free_port
from auth_service.settings import Settings

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can reach: the one of pytest's own is closed to whom PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="auth-readme-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_the_first_session_runs_as_it_stands(folder: Path) -> None:
    port, internal_port = free_port(), free_port()
    dev = subprocess.Popen(
        [sys.executable, "-m", "auth_service", "dev", "--port", str(port), "--internal-port", str(internal_port)],
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
        [script] = re.findall(r"```bash\n(.*?)```", _README, re.S)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert '"username":"ada"' in done.stdout
        assert '"current":true' in done.stdout
        assert '"code": "invalid_token"' in done.stdout, "after the logout the access token opens nothing"
        assert '"jwks_uri"' in done.stdout
        assert '"kty":"RSA"' in done.stdout
    finally:
        dev.send_signal(signal.SIGINT)
        assert dev.stdout is not None
        dev.stdout.read()
        dev.stdout.close()
        assert dev.wait(30) == 0


def test_the_settings_table_is_the_settings() -> None:
    rows = re.findall(r"^\| `AUTH_([A-Z_]+)` \| (?:`(.*?)`)? \| (.*) \|$", _README, re.M)
    described = {name.lower(): (default, text) for name, default, text in rows}
    assert described == {
        name: ("" if field.is_required() else _shown(field.default), field.description)
        for name, field in Settings.model_fields.items()
    }


def test_every_file_it_names_exists() -> None:
    section = _README.partition("## Where things are")[2].partition("##")[0]
    for row in section.splitlines():
        folder = _ROOT
        for name in re.findall(r"`([a-z_/]+(?:\.[a-z]+)?/?)`", row.rpartition(" | ")[2]):
            path = _ROOT / name if (_ROOT / name).exists() else folder / name
            if not path.exists():
                path = _ROOT / "auth_service" / name
            assert path.exists(), name
            folder = path.parent


def test_every_command_it_names_exists() -> None:
    commands = re.findall(r"^auth-service ([a-z -]+?)(?: {2,}| ada| users\.csv| --)", _README, re.M)
    assert len(commands) >= 6
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "auth_service", *command.split(), "--help"], capture_output=True, check=False
        )
        assert done.returncode == 0, command
    targets = set(re.findall(r"^make ([a-z]+)", _README, re.M))
    makefile = (_ROOT / "Makefile").read_text("utf-8")
    assert targets >= {"dev", "test", "check"}
    assert all(f"\n{target}:" in makefile for target in targets)


def _shown(default: object) -> str:
    if isinstance(default, timedelta):
        return str(int(default.total_seconds()))
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)
