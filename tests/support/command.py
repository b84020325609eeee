"""The command line as a test uses it: in this process, or as a process where signals, pipes and terminals count."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from click.testing import CliRunner

from auth_service.cli.main import main
from auth_service.settings import Settings
from tests.support.processes import environment_of


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command answered."""

    code: int
    out: str
    err: str


def command(
    *arguments: str,
    settings: Settings | None = None,
    given: Mapping[str, str] | None = None,
    stdin: str | bytes = "",
) -> Outcome:
    """Run `auth-service` in this process, without a terminal. `given` are settings too, by their full names."""
    nothing: dict[str, str | None] = {name: None for name in os.environ if name.startswith("AUTH_")}
    found = environment_of(settings) if settings is not None else {}
    done = CliRunner().invoke(
        main, arguments, input=stdin, env=nothing | found | dict(given or {}), prog_name="auth-service"
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Outcome(done.exit_code, done.stdout, done.stderr)


def environment(settings: Settings | None = None, **changes: str) -> dict[str, str]:
    """The environment of a process with these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTH_")}
    return inherited | (environment_of(settings) if settings is not None else {}) | changes


def spawn(*arguments: str, env: Mapping[str, str], **options: Any) -> "subprocess.Popen[str]":
    """Start `auth-service` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "auth_service", *arguments],
        env=dict(env),
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "start_new_session": True,
            **options,
        },
    )


def spawned(
    *arguments: str, env: Mapping[str, str], stdin: str = "", cwd: Path | None = None, seconds: float = 60
) -> Outcome:
    """Run `auth-service` as a process to its end."""
    process = spawn(*arguments, env=env, stdin=subprocess.PIPE, cwd=cwd)
    try:
        out, err = process.communicate(stdin, timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return Outcome(process.returncode, out, err)


def wait_for_status(url: str, status: int, process: "subprocess.Popen[str]", *, seconds: float = 30) -> int:
    """Ask `url` until it answers `status`; the last status if it does not, 0 for none. Fails if the process ends."""
    deadline, answered = time.monotonic() + seconds, 0
    while answered != status and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            answered = httpx2.get(url, timeout=1).status_code
        except httpx2.TransportError:
            answered = 0
        time.sleep(0.02)
    return answered
