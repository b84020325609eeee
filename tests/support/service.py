"""The service in this process: the real application on the real stores, spoken to over ASGI, with time that moves."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import httpx2

from auth_service.app import create_app
from auth_service.application import Application
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.rate_limits import PREFIX
from auth_service.stores.redis import RedisClient

PASSWORD = "correct horse battery staple"
WINDOW = 30


@dataclass(slots=True)
class SignedIn:
    """A user with the tokens of one session."""

    id: str
    username: str
    email: str
    access_token: str
    refresh_token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


class Start(Protocol):
    """Starts a service with changed settings, for the rest of the test."""

    async def __call__(self, **changes: Any) -> "Service": ...


class Service:
    """The running application and a client for each port."""

    def __init__(self, app: Application, clock: Clock) -> None:
        self.app = app
        self.settings: Settings = app.parts.settings
        self.clock = clock
        self.http = self.client()
        self.internal = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app.internal, raise_app_exceptions=False), base_url="http://internal"
        )
        self._users = 0

    def client(self, *, address: str = "127.0.0.1", **options: Any) -> httpx2.AsyncClient:
        """A new client of the public port, with a cookie jar of its own."""
        transport = httpx2.ASGITransport(app=self.app.public, raise_app_exceptions=False, client=(address, 123))
        return httpx2.AsyncClient(transport=transport, base_url=self.settings.issuer, **options)

    def advance(self, *, seconds: float) -> None:
        """Move time."""
        self.clock.offset += timedelta(seconds=seconds)

    @property
    def redis(self) -> RedisClient:
        return self.app.parts.redis

    async def flush_redis(self) -> None:
        """Remove every key, and what it knows of scripts."""
        for master in (await self.redis.masters()).values():
            await master.flushall()
            await master.script_flush()

    async def redis_keys(self, pattern: str) -> list[bytes | str]:
        return [key for master in (await self.redis.masters()).values() for key in await master.keys(pattern)]

    async def register(self, **members: Any) -> SignedIn:
        """A new user, signed in over the body transport."""
        self._users += 1
        name = f"user{self._users}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD, **members}
        answer = await self.http.post("/user/register", json=body)
        assert answer.status_code == 201, answer.text
        return signed_in(answer)

    async def login(self, user: SignedIn, **members: Any) -> SignedIn:
        """Another session of `user`."""
        answer = await self.http.post("/user/login", json={"email": user.email, "password": PASSWORD, **members})
        assert answer.status_code == 200, answer.text
        return signed_in(answer)

    async def refresh(self, refresh_token: str) -> httpx2.Response:
        return await self.http.post("/user/refresh-token", json={"refresh_token": refresh_token})

    async def refreshed(self, refresh_token: str) -> str:
        """The refresh token that `refresh_token` is exchanged for."""
        answer = await self.refresh(refresh_token)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["refresh_token"]
        return token

    async def logout(self, refresh_token: str) -> httpx2.Response:
        return await self.http.post("/user/logout", json={"refresh_token": refresh_token})

    async def me(self, access_token: str) -> httpx2.Response:
        return await self.http.get("/user/me", headers={"Authorization": f"Bearer {access_token}"})

    async def sql(self, statement: str, *values: object) -> list[Any]:
        return list(await self.app.parts.database.rows(statement, *values))

    async def forget_attempts(self) -> None:
        """As if the time had passed for which attempts are remembered."""
        for key in await self.redis_keys(f"{PREFIX}:*"):
            await self.redis.delete(key)

    async def flush_checkpoints(self) -> None:
        await self.app.parts.checkpoints.flush()


@asynccontextmanager
async def running_service(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Service]:
    """The service, open for as long as the body runs."""
    clock = clock or Clock()
    app = create_app(settings, clock)
    async with app.lifespan():
        service = Service(app, clock)
        try:
            yield service
        finally:
            await service.http.aclose()
            await service.internal.aclose()


def signed_in(answer: httpx2.Response) -> SignedIn:
    body: Mapping[str, Any] = answer.json()
    user = body["user"]
    return SignedIn(user["id"], user["username"], user["email"], body["access_token"], body.get("refresh_token") or "")


def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must be well-formed problem details."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert {"type", "title", "detail", "code"} <= body.keys()
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer ")
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
    code: str = body["code"]
    return answer.status_code, code
