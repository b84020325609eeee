"""A server process that we started: waiting until it answers, stopping it, and saying why it did not start."""

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class StackError(Exception):
    """A server cannot be found or does not start; the text says what to do."""


class ServerProcess:
    """One child process, in a session of its own: a Ctrl-C in the terminal reaches it only through us."""

    def __init__(self, command: Sequence[str | Path], *, log: Path, user: str | None = None) -> None:
        self._log = log
        self._name = Path(command[0]).name
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                **as_user(user),  # type: ignore[call-overload]
            )

    @property
    def pid(self) -> int:
        pid: int = self.popen.pid
        return pid

    def wait_until(self, answers: Callable[[], bool], *, seconds: float = 30) -> None:
        """Wait until `answers`. Raises StackError with the end of the server's own log."""
        deadline = time.monotonic() + seconds
        while not answers():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self.stop()
                log = self._log.read_text("utf-8", "replace")[-2000:] if self._log.exists() else ""
                raise StackError(f"{self._name} did not start:\n{log}")
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 10) -> None:
        """Ask it to stop, and end it if it does not."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(seconds)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False


def unprivileged_user() -> str | None:
    """Whom to run a server as that refuses to run as root; None where we are not root ourselves."""
    return "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None


def as_user(name: str | None) -> dict[str, object]:
    """Arguments for `subprocess` that run a child as `name`."""
    if name is None:
        return {}
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
