"""A revoked key from end to end: an issuer of three processes behind a balancer, verifiers in some of their own."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from auth_service.devstack.process import free_port
from auth_service.settings import Settings
from tests.support.balancer import Balancer
from tests.support.command import environment, spawned
from tests.support.processes import ServedProcess, served
from tests.support.service import PASSWORD
from tests.support.tokens import claims_of, header_of
from tests.support.verifier_fleet import Fleet

_PROMISED = 2.0  # seconds


@dataclass
class _System:
    settings: Settings
    processes: list[ServedProcess]
    fleet: Fleet
    http: httpx2.Client

    def login(self, process: ServedProcess) -> dict[str, Any]:
        body = {"username": "ada", "password": PASSWORD}
        answer = self.http.post(f"{process.url}/user/login", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def system(settings: Callable[..., Settings], tmp_path: Path) -> Iterator[_System]:
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    changed = settings(issuer=issuer)
    with ExitStack() as stack:
        processes = stack.enter_context(served(changed, tmp_path, count=3))
        stack.enter_context(Balancer([process.port for process in processes], port=port))
        fleet = stack.enter_context(Fleet(issuer, issuer, processes=2, each=5))
        http = stack.enter_context(httpx2.Client(timeout=5))
        body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD}
        assert http.post(f"{issuer}/user/register", json=body).status_code == 201
        yield _System(changed, processes, fleet, http)


def test_within_two_seconds_every_verifier_refuses_a_revoked_key_and_every_process_signs_with_the_next(
    system: _System,
) -> None:
    _revoke_the_key_that_signs(system, redis_hears_of_it=True)
    _revoke_the_key_that_signs(system, redis_hears_of_it=False)


def _revoke_the_key_that_signs(system: _System, *, redis_hears_of_it: bool) -> None:
    tokens = [system.login(process) for process in system.processes]
    watched = {claims_of(one["access_token"])["sid"]: one["access_token"] for one in tokens}
    [kid] = {header_of(one["access_token"])["kid"] for one in tokens}
    system.fleet.watch(watched)

    # Whoever revokes may not reach Redis: then the journal alone tells of it.
    unreachable = {} if redis_hears_of_it else {"AUTH_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    done = spawned("keys", "revoke", kid, "--json", env=environment(system.settings, **unreachable))
    answered = time.monotonic()
    assert (done.code, json.loads(done.out)["revoked"]) == (0, True), done.err

    # Processes are asked one after the other, each until it signs with another key.
    signs = {process.port: _signs_with_another_key(system, process, kid) for process in system.processes}
    late = []
    for session, access_token in watched.items():
        refused = system.fleet.refused_at(session, until=answered + _PROMISED + 1)
        assert len(refused) == system.fleet.size
        late.append(max(refused) - answered)
        assert late[-1] <= _PROMISED
        assert system.fleet.outcomes(access_token) == {"RevokedToken": system.fleet.size}
    signed = max(at - answered for at, _ in signs.values())
    assert signed <= _PROMISED
    print(f"\nrefused by all {max(late):.2f} s after the answer, another key signs everywhere {signed:.2f} s")  # noqa: T201
    [heir] = {header_of(token)["kid"] for _, token in signs.values()}
    assert heir != kid
    for _, token in signs.values():
        assert system.fleet.outcomes(token) == {"valid": system.fleet.size}

    for process in system.processes:
        published = system.http.get(f"{process.url}/.well-known/jwks.json").json()["keys"]
        assert kid not in {key["kid"] for key in published}
        for one in tokens:
            bearer = {"Authorization": f"Bearer {one['access_token']}"}
            assert system.http.get(f"{process.url}/user/me", headers=bearer).status_code == 401
            refused_refresh = system.http.post(
                f"{process.url}/user/refresh-token", json={"refresh_token": one["refresh_token"]}
            )
            assert (refused_refresh.status_code, refused_refresh.json()["code"]) == (401, "refresh_token_revoked")


def _signs_with_another_key(system: _System, process: ServedProcess, kid: str) -> tuple[float, str]:
    """When a process was first seen to sign with another key than `kid`, and a token of it."""
    deadline = time.monotonic() + _PROMISED + 5
    while True:
        token: str = system.login(process)["access_token"]
        if header_of(token)["kid"] != kid:
            return time.monotonic(), token
        assert time.monotonic() < deadline
