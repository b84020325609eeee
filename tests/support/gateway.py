"""The issuer and the gateway example as processes of their own, on loopback, as `auth-service dev` runs them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from auth_service.devstack.process import free_port
from auth_service.settings import Settings
from tests.support.command import environment, spawn, wait_for_status
from tests.support.service import PASSWORD, SignedIn, signed_in


def spawn_gateway(issuer: str, output: int, **environment: str) -> "subprocess.Popen[str]":
    """The gateway example, for the tokens of `issuer`."""
    return subprocess.Popen(
        [sys.executable, "-m", "gateway_example"],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AUTH_")},
            "AUTH_ISSUER": issuer,
            "AUTH_AUDIENCE": issuer,
            **environment,
        },
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class Services:
    """Both processes. `settings` makes the issuer's settings; its addresses are chosen here."""

    def __init__(self, settings: Callable[..., Settings], folder: Path, **changes: Any) -> None:
        issuer_port, internal_port, gateway_port = free_port(), free_port(), free_port()
        self.issuer = f"http://127.0.0.1:{issuer_port}"
        self.gateway = f"http://127.0.0.1:{gateway_port}"
        self.settings = settings(
            issuer=self.issuer,
            listen=f"127.0.0.1:{issuer_port}",
            internal_listen=f"127.0.0.1:{internal_port}",
            allowed_origins=self.gateway,
            **changes,
        )
        self._users = 0
        self._log = folder / f"services-{issuer_port}.log"
        with self._log.open("wb") as output:
            self.issuer_process = spawn(
                "serve", env=environment(self.settings), stdout=output, stderr=subprocess.STDOUT
            )
            self.gateway_process = spawn_gateway(
                self.issuer, output.fileno(), GATEWAY_LISTEN=f"127.0.0.1:{gateway_port}"
            )
        self._internal = f"http://127.0.0.1:{internal_port}"

    def wait_until_started(self) -> None:
        assert wait_for_status(f"{self._internal}/startupz", 200, self.issuer_process) == 200, self._log.read_text()
        assert wait_for_status(f"{self.gateway}/healthz", 200, self.gateway_process) == 200, self._log.read_text()
        # Before its first revocations the gateway answers 503 to every token.
        bearer = self.register().bearer
        until(lambda: httpx2.get(f"{self.gateway}/api/me", headers=bearer).status_code == 200)

    def stop(self) -> None:
        for process in (self.gateway_process, self.issuer_process):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def register(self, **members: str) -> SignedIn:
        """A new user, signed in over the body transport; its password is `PASSWORD`."""
        self._users += 1
        name = f"user{self._users}-{time.monotonic_ns() % 10**6}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, **members}
        answer = httpx2.post(f"{self.issuer}/user/register", json=body)
        assert answer.status_code == 201, answer.text
        return signed_in(answer)

    def login(self, user: SignedIn) -> SignedIn:
        """Another session of `user`."""
        answer = httpx2.post(f"{self.issuer}/user/login", json={"email": user.email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        return signed_in(answer)

    def logout(self, user: SignedIn) -> None:
        assert httpx2.post(f"{self.issuer}/user/logout", headers=user.bearer).status_code == 204


@contextmanager
def serving(settings: Callable[..., Settings], folder: Path, **changes: Any) -> Iterator[Services]:
    """Both, started; stopped when the body ends."""
    services = Services(settings, folder, **changes)
    try:
        services.wait_until_started()
        yield services
    finally:
        services.stop()


def until(holds: Callable[[], bool], *, seconds: float = 10) -> float:
    """Wait until `holds`; the seconds it took. Fails after `seconds`."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it never came true"
        time.sleep(0.01)
    return time.monotonic() - began
