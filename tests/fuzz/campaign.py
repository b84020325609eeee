"""A campaign: so many attacks on one served process, what it answered, and what it cost it."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

from auth_service.settings import Settings
from tests.fuzz.attack import Attacker, Credentials
from tests.fuzz.client import AttackClient
from tests.fuzz.operations import targets
from tests.support.command import command
from tests.support.oauth import added_client
from tests.support.processes import ServedProcess
from tests.support.service import PASSWORD

_CLIENTS = 32
_WARM_UP = 0.1  # of the attacks
_LOGINS = 16  # at once
_RENEWED_EVERY = 20_000  # attacks
_SETTLED = 15.0  # seconds for the last connections to be given back


@dataclass(slots=True)
class Outcome:
    """What came of it. Everything in `problems` is a fault of the service."""

    seed: int
    sent: int = 0
    seconds: float = 0.0
    answers: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    memory_before: int = 0
    memory_after: int = 0

    @property
    def growth(self) -> float:
        """Of the resident memory since the warm-up; 0.1 is ten per cent."""
        return self.memory_after / self.memory_before - 1

    def __str__(self) -> str:
        counts = ", ".join(f"{status}: {count:,}" for status, count in sorted(self.answers.items()))
        return (
            f"seed {self.seed}: {self.sent:,} malformed requests in {self.seconds:.0f} s"
            f" ({self.sent / self.seconds:,.0f}/s); answers {counts}; memory {self.memory_before / 1e6:.1f} MB after"
            f" the warm-up, {self.memory_after / 1e6:.1f} MB at the end ({self.growth:+.1%});"
            f" {len(self.problems)} problems"
        )


class Campaign:
    """`say` is told of the progress, twice a minute."""

    def __init__(
        self,
        settings: Settings,
        process: ServedProcess,
        *,
        seed: int,
        say: Callable[[str], object] = lambda _text: None,
    ) -> None:
        self._process = process
        self._attacker = Attacker(targets(process), seed=seed)
        self._sessions = _Sessions(settings, process)
        self._server = psutil.Process(process.popen.pid)
        self._outcome = Outcome(seed)
        self._say = say

    async def run(self, *, count: int, first: int = 0, seconds: float = float("inf")) -> Outcome:
        """Send the attacks from number `first` on, at most `count` of them and for at most `seconds`."""
        outcome = self._outcome
        numbers = itertools.count(first)
        await self._sessions.use_every_hash_thread()
        credentials = await self._sessions.credentials()
        began = time.monotonic()
        said = began
        measure_at = int(count * _WARM_UP)

        async def work(client: AttackClient) -> None:
            nonlocal credentials, said
            while (number := next(numbers)) < first + count and time.monotonic() - began < seconds:
                if number % _RENEWED_EVERY == _RENEWED_EVERY - 1:
                    credentials = await self._sessions.credentials()
                await self._attack(client, number, credentials)
                if outcome.sent == measure_at:
                    outcome.memory_before = self._server.memory_info().rss
                if time.monotonic() - said > 30:
                    said = time.monotonic()
                    outcome.seconds, outcome.memory_after = said - began, self._server.memory_info().rss
                    outcome.memory_before = outcome.memory_before or outcome.memory_after
                    self._say(str(outcome))

        clients = [AttackClient(self._process, number=number) for number in range(_CLIENTS)]
        try:
            await asyncio.gather(*map(work, clients))
        finally:
            for client in clients:
                client.close()
        outcome.seconds = time.monotonic() - began
        outcome.memory_after = self._server.memory_info().rss
        await self._expect_connections_given_back()
        outcome.problems += complaints(self._process.log)
        return outcome

    async def _attack(self, client: AttackClient, number: int, credentials: Credentials) -> None:
        attack = self._attacker.attack(number, credentials)
        try:
            statuses = await client.send(attack)
        except (TimeoutError, ConnectionError) as exc:
            statuses = []
            self._outcome.problems.append(f"number {number}: {exc!r} for {attack.data[:2000]!r}")
        self._outcome.sent += 1
        self._outcome.answers.update(statuses)
        # 503 is what a full queue for password hashes says; the summary tells how often.
        if any(status >= 500 and status != 503 for status in statuses):
            self._outcome.problems.append(f"number {number}: {statuses} for {attack.data[:2000]!r}")

    async def _expect_connections_given_back(self) -> None:
        deadline = time.monotonic() + _SETTLED
        names = ("auth_public_connections", "auth_revocation_feed_clients")
        async with httpx2.AsyncClient() as http:
            while True:
                lines = (await http.get(f"{self._process.internal_url}/metrics")).text.splitlines()
                held = [line for line in lines if line.startswith(names) and not line.endswith(" 0.0")]
                if not held:
                    return
                if time.monotonic() > deadline:
                    self._outcome.problems += held
                    return
                await asyncio.sleep(0.1)


def complaints(log: Path) -> list[str]:
    """Lines of a log that are no JSON object each, or tell of a fault of the service's own."""
    found = []
    with log.open(encoding="utf-8") as lines:
        for line in lines:
            if not _is_calm(line):
                found.append(line[:2000])
    return found


def _is_calm(line: str) -> bool:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return False
    return "event" in event and "frames" not in event and event.get("level") in ("debug", "info", "warning")


class _Sessions:
    """Signs in anew, so that the attacks always hold good credentials to spoil."""

    def __init__(self, settings: Settings, process: ServedProcess) -> None:
        self._url = process.url
        self._numbers = itertools.count(1)
        client = added_client(
            settings, "fuzz", "--scope", "orders:read", "--scope", "auth:introspect", "--audience", "orders"
        )
        self._client = f"{client.client_id}:{client.client_secret}"
        self._settings = settings

    async def use_every_hash_thread(self) -> None:
        """Each thread that hashes passwords keeps the 19 MiB that argon2 asks for: that is no growth."""
        async with httpx2.AsyncClient(base_url=self._url, timeout=30) as http:
            # Each of another account: of one, no more are under way at once than may fail.
            logins = ({"username": f"nobody{number}", "password": PASSWORD} for number in range(_LOGINS))
            await asyncio.gather(*(http.post("/user/login", json=login) for login in logins))

    async def credentials(self) -> Credentials:
        name = f"fuzz{next(self._numbers)}"
        account = {"username": name, "email": f"{name}@fuzz.test", "password": PASSWORD}
        async with httpx2.AsyncClient(base_url=self._url, timeout=30) as http:
            registered = await http.post("/user/register", json=account)
            registered.raise_for_status()
            granted = await asyncio.to_thread(command, "users", "grant", name, "auth:admin", settings=self._settings)
            assert granted.code == 0, granted.err
            login = {"username": name, "password": PASSWORD, "scope": "profile auth:admin"}
            admin = await http.post("/user/login", json=login)
            admin.raise_for_status()
        tokens = registered.json()
        return Credentials(tokens["access_token"], admin.json()["access_token"], tokens["refresh_token"], self._client)
