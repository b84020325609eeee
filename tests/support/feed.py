"""The revocation feed as a test looks at it: every event with the moment at which it came."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from auth_service.verifier.revocations import revocation_id
from tests.support.processes import ServedProcess
from tests.support.service import PASSWORD, SignedIn, signed_in
from tests.support.tokens import claims_of

EVENT_STREAM = {"Accept": "text/event-stream"}

AT_ONCE = 0.1
"""Seconds in which another process' feed tells of what has just been answered."""


@dataclass(frozen=True, slots=True)
class Event:
    """`at` is monotonic."""

    type: str
    data: Any
    at: float


@dataclass(slots=True)
class Feed:
    """An open feed: what has come so far."""

    events: list[Event] = field(default_factory=list)
    ended: bool = False

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def ids(self) -> list[str]:
        """Every id that was told, as often as it was told."""
        return ids_of(self.events)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.type == kind]

    def ages(self, *, since: float) -> list[float]:
        """The ages that beats told after the moment `since`."""
        return [event.data["age"] for event in self.of("beat") if event.at >= since]

    def heard(self, identifier: str) -> float | None:
        """When `identifier` was told first."""
        return next((event.at for event in self.of("revoke") if identifier in ids_of([event])), None)

    async def until(self, holds: Callable[[], Any], *, seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"it has not come true: {self.types[-5:]}"
            await asyncio.sleep(0.005)

    async def until_beats(self, count: int, *, seconds: float = 20) -> None:
        """Return when `count` more beats have come."""
        wanted = len(self.of("beat")) + count
        await self.until(lambda: len(self.of("beat")) >= wanted, seconds=seconds)


def ids_of(events: Iterable[Event]) -> list[str]:
    return [identifier for event in events if event.type == "revoke" for _, identifier, _ in event.data]


@asynccontextmanager
async def open_feed(url: str) -> AsyncIterator[Feed]:
    """The feed of the process at `url`, live, and read for as long as the body runs."""
    feed = Feed()
    async with (
        httpx2.AsyncClient(timeout=30) as http,
        http.stream("GET", f"{url}/revocations", headers=EVENT_STREAM) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        reading = asyncio.create_task(_read(answer, feed))
        try:
            await feed.until(lambda: "live" in feed.types)
            yield feed
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading


async def _read(answer: httpx2.Response, feed: Feed) -> None:
    kind = ""
    with contextlib.suppress(httpx2.TransportError):
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                feed.events.append(Event(kind, json.loads(value), time.monotonic()))
    feed.ended = True


class Users:
    """Accounts made through one process."""

    def __init__(self, process: ServedProcess) -> None:
        self.http = httpx2.AsyncClient(base_url=process.url, timeout=30)
        self._numbers = itertools.count(1)

    async def register(self, **members: Any) -> SignedIn:
        name = f"user{next(self._numbers)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, **members}
        answer = await self.http.post("/user/register", json=body)
        assert answer.status_code == 201, answer.text
        return signed_in(answer)

    async def refresh(self, refresh_token: str) -> httpx2.Response:
        return await self.http.post("/user/refresh-token", json={"refresh_token": refresh_token})

    async def logout(self, user: SignedIn) -> tuple[str, float]:
        """The id of the session in the feed, and when the logout was answered."""
        answer = await self.http.post("/user/logout", json={"refresh_token": user.refresh_token})
        assert answer.status_code == 204, answer.text
        return named(user), time.monotonic()


@asynccontextmanager
async def users_of(process: ServedProcess) -> AsyncIterator[Users]:
    users = Users(process)
    async with users.http:
        yield users


def named(user: SignedIn) -> str:
    """What the feed calls the session of `user`."""
    return revocation_id(claims_of(user.access_token)["sid"])


async def delay_of(feed: Feed, identifier: str, since: float, *, seconds: float = 10) -> float:
    """Seconds from the moment `since` until `feed` told of `identifier`."""
    await feed.until(lambda: identifier in feed.ids, seconds=seconds)
    heard = feed.heard(identifier)
    assert heard is not None
    return heard - since


async def metric(http: httpx2.AsyncClient, process: ServedProcess, beginning: str) -> float:
    """The sum of the samples whose line begins so."""
    lines = (await http.get(f"{process.internal_url}/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(beginning))


async def metric_is(http: httpx2.AsyncClient, process: ServedProcess, beginning: str, value: float) -> bool:
    return await metric(http, process, beginning) == value


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it has not come true"
        await asyncio.sleep(0.02)


async def until_true(holds: Callable[[], bool], *, seconds: float = 20) -> None:
    async def check() -> bool:
        return holds()

    await until(check, seconds=seconds)
