"""The service as processes of its own, on real sockets: for races, faults and signals. Their time can be moved too."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx2

from auth_service.app import create_app
from auth_service.application import Application
from auth_service.devstack.process import free_port
from auth_service.server import serve
from auth_service.settings import Settings, load_settings
from auth_service.stores.clock import Clock

_OFFSET_FILE = "TEST_CLOCK_OFFSET_FILE"
_KEY_INTERVAL = "TEST_KEY_INTERVAL"


class ServedProcess:
    """One `auth-service serve`, with one worker or several."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        ports: tuple[int, int] | None = None,
        offset_file: Path | None = None,
        key_interval: float | None = None,
    ) -> None:
        self.port, self.internal_port = ports or (free_port(), free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.internal_url = f"http://127.0.0.1:{self.internal_port}"
        self.log = folder / f"served-{self.port}.log"
        environment = environment_of(settings) | {
            "AUTH_LISTEN": f"127.0.0.1:{self.port}",
            "AUTH_INTERNAL_LISTEN": f"127.0.0.1:{self.internal_port}",
        }
        if offset_file is not None:
            environment[_OFFSET_FILE] = str(offset_file)
        if key_interval is not None:
            environment[_KEY_INTERVAL] = str(key_interval)
        self._environment = {**os.environ, **environment}
        self.popen = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it, or start it again on the same ports."""
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.support.processes"],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.popen

    def wait_until_started(self, *, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            assert self.popen.poll() is None, self.log.read_text()
            try:
                if httpx2.get(f"{self.internal_url}/startupz", timeout=1).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def stop(self, *, seconds: float = 15) -> int:
        """Ask it to stop; answers its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(seconds)
        return int(self.popen.returncode)


@contextmanager
def served(
    settings: Settings,
    folder: Path,
    *,
    count: int = 1,
    offset_file: Path | None = None,
    key_interval: float | None = None,
) -> Iterator[list[ServedProcess]]:
    """`count` processes that share the stores, all started; stopped when the body ends.

    `key_interval`: seconds between two readings of the signing keys, for a test whose time goes fast.
    """
    processes = [
        ServedProcess(settings, folder, offset_file=offset_file, key_interval=key_interval) for _ in range(count)
    ]
    try:
        for process in processes:
            process.wait_until_started()
        yield processes
    finally:
        for process in processes:
            process.stop()


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that gives a process these settings."""
    environment = {}
    for name, value in settings.model_dump().items():
        if isinstance(value, timedelta):
            text = str(int(value.total_seconds()))
        elif isinstance(value, tuple):
            text = ",".join(_plain(item) for item in value)
        else:
            text = _plain(value)
        environment[f"AUTH_{name.upper()}"] = text
    return environment


def _plain(value: object) -> str:
    secret = getattr(value, "get_secret_value", None)
    return secret() if secret is not None else str(value)


class FileClock(Clock):
    """A clock whose offset, in seconds, is read from a file each time: every process sees it move."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def now(self, reading: datetime) -> datetime:
        return reading + timedelta(seconds=float(self._file.read_text() or 0))


def _create(settings: Settings) -> Application:
    file = os.environ.get(_OFFSET_FILE)
    app = create_app(settings, FileClock(Path(file)) if file else None)
    if seconds := os.environ.get(_KEY_INTERVAL):
        app.key_follower.interval = timedelta(seconds=float(seconds))
    return app


if __name__ == "__main__":
    serve(load_settings(), factory=_create)
