"""Rotation under load: three processes, clients that never pause, and a verifier that knows nothing but `max-age`.

Time is moved to the moments that count around each rotation. `TEST_CAMPAIGN=1` does a hundred of them.
"""

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import jwt

from auth_service.audit import OPERATOR
from auth_service.jobs import run_step
from auth_service.parts import Parts
from auth_service.settings import Settings
from tests.support.processes import FileClock, ServedProcess, served
from tests.support.service import PASSWORD
from tests.support.tokens import claims_of, header_of

_ROTATIONS = 100 if os.environ.get("TEST_CAMPAIGN") else 8
_MAX_AGE = 300  # seconds, as the JWKS says
_RELOAD = 0.05  # seconds between two readings of the keys: time goes fast here
_CLIENTS = 3
_PATIENCE = 10.0  # seconds


class _MaxAgeVerifier:
    """Fetches the JWKS when what it has is as old as it may be, by the service's time, and for no other reason."""

    def __init__(self, processes: list[ServedProcess], http: httpx2.AsyncClient) -> None:
        self._processes = itertools.cycle(processes)
        self._http = http
        self._keys: dict[str, Any] = {}
        self._fetched_at = float("-inf")
        self._fetching = asyncio.Lock()
        self.fetches = 0

    async def verify(self, access_token: str, *, now: float, issuer: str) -> None:
        """`now`: the service's time at which this is asked. Fails for a `kid` that is not known."""
        async with self._fetching:
            if now - self._fetched_at >= _MAX_AGE:
                answer = await self._http.get(f"{next(self._processes).url}/.well-known/jwks.json")
                assert f"max-age={_MAX_AGE}" in answer.headers["cache-control"]
                self._keys = {key["kid"]: jwt.PyJWK(key) for key in answer.json()["keys"]}
                self._fetched_at = now
                self.fetches += 1
        kid = header_of(access_token)["kid"]
        assert kid in self._keys, f"an unknown kid, {now - self._fetched_at:.0f} s after the last fetch"
        jwt.decode(
            access_token, self._keys[kid], ["RS256"], audience=issuer, issuer=issuer,
            options={"verify_exp": False, "verify_iat": False},
        )  # fmt: skip


@dataclass
class _System:
    """Three processes on one time that is moved, and what was seen of them."""

    processes: list[ServedProcess]
    parts: Parts
    offset_file: Path
    http: httpx2.AsyncClient
    verifier: _MaxAgeVerifier
    late_verifier: _MaxAgeVerifier
    """One that has fetched just before a key began to sign, and will not again for as long as it may."""
    issued: list[tuple[int, str]] = field(default_factory=list)
    """`iat` and `kid` of every access token that was seen."""
    answers: dict[int, int] = field(default_factory=dict)

    @property
    def now(self) -> float:
        return time.time() + float(self.offset_file.read_text())

    def move_to(self, moment: datetime) -> None:
        """Move time forward, for all processes in the same instant."""
        offset = moment.timestamp() - time.time()
        assert offset >= float(self.offset_file.read_text()), "time does not go back"
        written = self.offset_file.with_suffix(".new")
        written.write_text(str(offset))
        written.replace(self.offset_file)

    async def do_what_is_due(self) -> None:
        """One step of the job, whoever does it, and then one reload of every process."""
        await run_step(self.parts.database, self.parts.key_life_cycle.job)
        now, lives = await self.parts.key_life_cycle.list()
        published = {life.kid for life in lives if life.is_published(now)}
        deadline = time.monotonic() + _PATIENCE
        for process in self.processes:
            while {key["kid"] for key in (await self._jwks(process))["keys"]} != published:
                assert time.monotonic() < deadline, "a process does not follow"
                await asyncio.sleep(0.01)

    async def signs_until(self) -> datetime:
        now, lives = await self.parts.key_life_cycle.list()
        [signing] = [life for life in lives if life.state(now) == "signing"]
        assert signing.signs_until is not None
        return signing.signs_until

    async def register(self, name: str) -> str:
        """A new session's refresh token."""
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        answer = await self.http.post(f"{self.processes[0].url}/user/register", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["refresh_token"])

    async def refresh(self, process: ServedProcess, refresh_token: str) -> dict[str, Any]:
        """New tokens, which are good everywhere."""
        body = {"refresh_token": refresh_token}
        tokens = await self._answered("POST", f"{process.url}/user/refresh-token", json=body)
        claims = claims_of(tokens["access_token"])
        self.issued.append((claims["iat"], header_of(tokens["access_token"])["kid"]))
        return tokens

    async def accept(self, process: ServedProcess, access_token: str, verifier: _MaxAgeVerifier) -> None:
        """Have the issuer and a verifier accept it."""
        now = self.now
        await self._answered("GET", f"{process.url}/user/me", headers={"Authorization": f"Bearer {access_token}"})
        await verifier.verify(access_token, now=now, issuer=self.parts.settings.issuer)

    async def _answered(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            answer = await self.http.request(method, url, **options)
            self.answers[answer.status_code] = self.answers.get(answer.status_code, 0) + 1
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            # A request that slept while time leapt over a rotation may be asked to come again; none is refused.
            assert answer.status_code == 503, answer.text
            assert time.monotonic() < deadline

    async def _jwks(self, process: ServedProcess) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get(f"{process.url}/.well-known/jwks.json")).json()
        return found


async def test_rotations_under_load_refuse_no_good_token(settings: Callable[..., Settings], tmp_path: Path) -> None:
    offset_file = tmp_path / "offset"
    offset_file.write_text("0")
    # An access token lives as long as the ceiling allows, so that each is used long after its key has ended.
    hourly = settings(key_rotation_interval=3600, access_token_ttl=3600, log_level="warning")
    parts = Parts(hourly, FileClock(offset_file))
    await parts.open()
    try:
        with served(hourly, tmp_path, count=3, offset_file=offset_file, key_interval=_RELOAD) as processes:
            async with httpx2.AsyncClient(timeout=10) as http:
                verifiers = [_MaxAgeVerifier(processes, http) for _ in range(2)]
                system = _System(processes, parts, offset_file, http, verifiers[0], verifiers[1])
                await _rotate_under_load(system)
    finally:
        await parts.close()
    assert set(system.answers) <= {200, 503}
    assert system.answers.get(503, 0) <= system.answers[200] / 100
    _no_two_keys_signed_at_once(system.issued)
    assert system.late_verifier.fetches == _ROTATIONS
    print(f"{_ROTATIONS} rotations, {system.answers}")  # noqa: T201


def _no_two_keys_signed_at_once(issued: list[tuple[int, str]]) -> None:
    """Whoever issued: one key has ceased by the second in which another begins."""
    spans: dict[str, tuple[int, int]] = {}
    for issued_at, kid in issued:
        first, last = spans.get(kid, (issued_at, issued_at))
        spans[kid] = min(first, issued_at), max(last, issued_at)
    assert len(spans) > _ROTATIONS
    for (_, last), (first, _) in itertools.pairwise(sorted(spans.values())):
        assert last <= first


async def _rotate_under_load(system: _System) -> None:
    # The keys of the template were made under another setting: begin with one that signs for as long as this one asks.
    system.move_to(datetime.now(UTC) + timedelta(seconds=1200))
    await system.do_what_is_due()
    switch = await system.parts.key_life_cycle.rotate(by=OPERATOR)
    sleeping, steady = [await system.register(name) for name in ("sleeping", "steady")]
    stop = asyncio.Event()
    clients = [asyncio.create_task(_client(system, number, stop)) for number in range(_CLIENTS)]
    system.move_to(switch.signs_from + timedelta(seconds=65))
    await system.do_what_is_due()
    kept: str | None = None
    try:
        for _ in range(_ROTATIONS):
            end = await system.signs_until()
            if kept is not None:
                # Signed before the last rotation, it has a minute to live.
                system.move_to(end - timedelta(seconds=350))
                for process in system.processes:
                    await system.accept(process, kept, system.verifier)
            # Who fetches here does not fetch again before the key has changed.
            system.move_to(end - timedelta(seconds=290))
            steady, kept = await _issue_everywhere(system, steady)
            system.move_to(end - timedelta(seconds=30))
            await system.do_what_is_due()
            system.move_to(end + timedelta(seconds=5))
            steady, _ = await _issue_everywhere(system, steady)
            system.move_to(end + timedelta(seconds=65))
            await system.do_what_is_due()
            for client in clients:
                assert not client.done(), client.exception()
    finally:
        stop.set()
        await asyncio.gather(*clients)
    for process in system.processes:
        sleeping = (await system.refresh(process, sleeping))["refresh_token"]


async def _client(system: _System, number: int, stop: asyncio.Event) -> None:
    """One session, refreshed at one process after the other, its access tokens used at the next."""
    refresh_token = await system.register(f"user{number}")
    for turn in itertools.count(number):
        if stop.is_set():
            return
        tokens = await system.refresh(system.processes[turn % 3], refresh_token)
        refresh_token = tokens["refresh_token"]
        await system.accept(system.processes[(turn + 1) % 3], tokens["access_token"], system.verifier)


async def _issue_everywhere(system: _System, refresh_token: str) -> tuple[str, str]:
    """The last refresh and access token, after every process has issued, and accepted what the others did."""
    for turn, process in enumerate(system.processes):
        tokens = await system.refresh(process, refresh_token)
        refresh_token = tokens["refresh_token"]
        await system.accept(system.processes[turn - 1], tokens["access_token"], system.late_verifier)
    return refresh_token, tokens["access_token"]
