"""The gateway example beside `auth-service dev`: a process of its own, which never outlives the one that started it."""

import os
import runpy
import signal
import subprocess
import sys
import threading

import click

from auth_service.settings import PREFIX, Settings

_PATIENCE = 5  # seconds that it has to stop


class Gateway:
    """`python -m gateway_example` on `listen`, for the issuer of `settings`. It may fail: the issuer goes on."""

    def __init__(self, listen: str, settings: Settings) -> None:
        self.url = f"http://{listen}"
        # The server's own settings, secrets among them, are no business of a downstream service.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._environment = environment | {
            "AUTH_ISSUER": settings.issuer,
            "AUTH_AUDIENCE": settings.access_token_audiences[0],
            "GATEWAY_LISTEN": listen,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def start(self) -> None:
        # In a session of its own, so that Ctrl-C in the terminal reaches it only through us.
        self._process = subprocess.Popen(  # noqa: S603 — ourselves
            [sys.executable, "-m", __name__], env=self._environment, stdin=subprocess.PIPE, start_new_session=True
        )
        threading.Thread(target=self._tell_of_its_end, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell_of_its_end(self, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        if not self._stopping:
            click.echo(f"The gateway example at {self.url} has ended (exit code {code}). The issuer goes on.", err=True)


def _end_with_parent() -> None:
    """Wait for the end of standard input, which comes when the starting process is gone, however it went."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        runpy.run_module("gateway_example", run_name="__main__")
    except ImportError as exc:
        sys.exit(f"The gateway example needs the extra `gateway` of this package: {exc}")
