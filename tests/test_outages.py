"""Outages: a store that is stopped, that hangs, or that was never there. Real servers of this file's own are stopped
and started for it; those of the whole run stay up."""

import asyncio
import contextlib
import secrets
import signal
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from auth_service.devstack.postgresql import PrivatePostgreSQL
from auth_service.devstack.redis import PrivateRedis
from auth_service.settings import Settings
from tests.support.feed import until
from tests.support.service import PASSWORD, WINDOW, Service, problem, running_service
from tests.support.stores import Stores, stopped, suspended
from tests.support.tokens import claims_of, generation_of

_POOL = 16
"""Connections of the service to PostgreSQL."""
_PATIENCE = 8.0
"""Seconds in which a store that hangs must have become a 503."""
_UNAVAILABLE = (503, "unavailable")
_DISCOVERY = (
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
)


@pytest.fixture
async def service(fragile_settings: Callable[..., Settings]) -> AsyncIterator[Service]:
    async with running_service(fragile_settings()) as running:
        yield running


def _without_redis(fragile: Stores) -> contextlib.AbstractAsyncContextManager[None]:
    return stopped(fragile.redis, signal.SIGKILL)


@asynccontextmanager
async def _without_postgresql(
    fragile: Stores, service: Service, *, number: signal.Signals = signal.SIGQUIT
) -> AsyncIterator[None]:
    # The tests' PostgreSQL does not wait for the disk, so a crash would take the last half second along.
    await service.sql("CHECKPOINT")
    async with stopped(fragile.postgresql, number):
        yield


@asynccontextmanager
async def _hanging(server: PrivatePostgreSQL | PrivateRedis) -> AsyncIterator[None]:
    """The server accepts and says nothing while the body runs. Raises TimeoutError where the body hangs with it."""
    with suspended(server):
        async with asyncio.timeout(3 * _PATIENCE):
            yield


async def _works_again(service: Service) -> None:
    """Return once the service has found the store again, asking as its clients do."""

    async def holds() -> bool:
        answer = await _login(service, "nobody")
        assert answer.status_code in (401, 503), answer.text
        return answer.status_code == 401

    await until(holds)


def _account(name: str) -> dict[str, str]:
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD}


async def _register(service: Service, name: str) -> httpx2.Response:
    return await service.http.post("/user/register", json=_account(name))


async def _login(service: Service, name: str) -> httpx2.Response:
    return await service.http.post("/user/login", json={"username": name, "password": PASSWORD})


async def _probe(service: Service, path: str) -> tuple[int, dict[str, Any]]:
    answer = await service.internal.get(path)
    body: dict[str, Any] = answer.json()
    return answer.status_code, body


async def _discovery(service: Service) -> list[httpx2.Response]:
    return [await service.http.get(path) for path in _DISCOVERY]


async def _timed(*requests: Awaitable[httpx2.Response]) -> tuple[Sequence[httpx2.Response], float]:
    """The answers to requests that are made at once, and how long the last of them took."""
    began = time.monotonic()
    answers = await asyncio.gather(*requests)
    return answers, time.monotonic() - began


# Redis is stopped.


async def test_while_redis_is_stopped_refresh_and_sign_in_are_503_and_nothing_is_spent(
    service: Service, fragile: Stores
) -> None:
    unused = await service.register()
    rotated = await service.register()
    newest = await service.refreshed(rotated.refresh_token)
    await service.flush_checkpoints()
    service.advance(seconds=WINDOW + 1)
    async with _without_redis(fragile):
        for refresh_token in (unused.refresh_token, newest, newest):
            assert problem(await service.refresh(refresh_token)) == _UNAVAILABLE
        assert problem(await _login(service, unused.username)) == _UNAVAILABLE
        assert problem(await _register(service, "newcomer")) == _UNAVAILABLE
    # Had any of those spent the token, this would be a second use, past the window.
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(unused.refresh_token)) == 2
    assert generation_of(await service.refreshed(newest)) == 3
    assert len(await service.sql("SELECT 1 FROM sessions")) == 2
    assert (await _register(service, "newcomer")).status_code == 201
    assert (await _login(service, unused.username)).status_code == 200


async def test_while_redis_is_stopped_everything_that_needs_none_of_it_answers(
    service: Service, fragile: Stores
) -> None:
    user = await service.register()
    before = [answer.text for answer in await _discovery(service)]
    async with _without_redis(fragile):
        assert [(answer.status_code, answer.text) for answer in await _discovery(service)] == [
            (200, text) for text in before
        ]
        status, body = await _probe(service, "/readyz")
        assert (status, body["stores"]) == (200, {"postgresql": "up", "redis": "down"})
        assert (await _probe(service, "/healthz"))[0] == 200
        assert (await _probe(service, "/startupz"))[0] == 200
        assert (await service.me(user.access_token)).status_code == 200
    status, body = await _probe(service, "/readyz")
    assert (status, body["stores"]) == (200, {"postgresql": "up", "redis": "up"})


@pytest.mark.parametrize("redis_comes_back", ["empty", "as it was"])
async def test_a_logout_while_redis_is_stopped_is_204_and_holds(
    service: Service, fragile: Stores, redis_comes_back: str
) -> None:
    user = await service.register()
    bystander = await service.login(user)
    newest = await service.refreshed(user.refresh_token)
    key = f"auth:session:{claims_of(newest)['sid']}"
    value, life = await service.redis.get(key), await service.redis.pttl(key)
    assert value is not None
    async with _without_redis(fragile):
        assert (await service.logout(newest)).status_code == 204
        assert (await service.logout(newest)).status_code == 204
        assert problem(await service.me(user.access_token)) == (401, "invalid_token")
        assert problem(await service.refresh(newest)) == (401, "refresh_token_revoked")
    if redis_comes_back == "as it was":
        await service.redis.set(key, value, px=life)
    for refresh_token in (user.refresh_token, newest):
        assert problem(await service.refresh(refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    assert (await service.refresh(bystander.refresh_token)).status_code == 200


# PostgreSQL is stopped.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["shut down", "crashed"])
async def test_while_postgresql_is_stopped_everything_is_503_and_nothing_is_spent(
    service: Service, fragile: Stores, number: signal.Signals
) -> None:
    user = await service.register()
    newest = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    async with _without_postgresql(fragile, service, number=number):
        for _ in range(2):
            assert problem(await service.refresh(newest)) == _UNAVAILABLE
        assert problem(await _login(service, user.username)) == _UNAVAILABLE
        assert problem(await _register(service, "newcomer")) == _UNAVAILABLE
        assert problem(await service.logout(newest)) == _UNAVAILABLE
        assert problem(await service.me(user.access_token)) == _UNAVAILABLE
        assert problem(await service.http.get("/user/sessions", headers=user.bearer)) == _UNAVAILABLE
    await _works_again(service)
    service.advance(seconds=WINDOW + 1)
    assert generation_of(await service.refreshed(newest)) == 3
    assert (await service.me(user.access_token)).status_code == 200
    assert (await _register(service, "newcomer")).status_code == 201
    assert (await service.logout(newest)).status_code == 204
    assert problem(await service.refresh(newest)) == (401, "refresh_token_revoked")


async def test_a_checkpoint_that_postgresql_did_not_take_is_written_when_it_is_back(
    service: Service, fragile: Stores
) -> None:
    user = await service.register()
    await service.refreshed(user.refresh_token)
    async with _without_postgresql(fragile, service):
        await service.flush_checkpoints()
    await _works_again(service)
    await service.flush_checkpoints()
    [row] = await service.sql("SELECT generation FROM sessions")
    assert row["generation"] == 2


async def test_while_postgresql_is_stopped_everything_that_needs_none_of_it_answers(
    service: Service, fragile: Stores
) -> None:
    before = [answer.text for answer in await _discovery(service)]
    async with _without_postgresql(fragile, service):
        assert [(answer.status_code, answer.text) for answer in await _discovery(service)] == [
            (200, text) for text in before
        ]
        status, body = await _probe(service, "/readyz")
        assert (status, body["stores"]) == (200, {"postgresql": "down", "redis": "up"})
        assert (await _probe(service, "/healthz"))[0] == 200
        assert (await _probe(service, "/startupz"))[0] == 200
    await _works_again(service)
    assert (await _probe(service, "/readyz"))[1]["stores"] == {"postgresql": "up", "redis": "up"}


async def test_failures_of_postgresql_use_up_no_connections(service: Service, fragile: Stores) -> None:
    user = await service.register()
    async with _without_postgresql(fragile, service):
        # A statement by itself, and a transaction.
        for request in (service.refresh, service.logout):
            answers, _ = await _timed(*(request(user.refresh_token) for _ in range(2 * _POOL)))
            assert {problem(answer) for answer in answers} == {_UNAVAILABLE}
            for _ in range(2 * _POOL):  # and one after the other: each finds the pool as the one before left it
                assert problem(await request(user.refresh_token)) == _UNAVAILABLE
    await _works_again(service)
    for request, status in ((service.refresh, 200), (service.logout, 204)):
        answers, seconds = await _timed(*(request(user.refresh_token) for _ in range(2 * _POOL)))
        assert {answer.status_code for answer in answers} == {status}
        assert seconds < _PATIENCE


# A store hangs: it accepts what it is sent, and does not answer.


async def test_while_redis_hangs_refresh_and_sign_in_are_503_and_logout_is_204(
    service: Service, fragile: Stores
) -> None:
    user = await service.register()
    leaver = await service.login(user)
    newest = await service.refreshed(user.refresh_token)
    async with _hanging(fragile.redis):
        answers, seconds = await _timed(
            service.refresh(newest), _login(service, user.username), _register(service, "newcomer")
        )
        assert {problem(answer) for answer in answers} == {_UNAVAILABLE}
        assert seconds < _PATIENCE
        [answer], seconds = await _timed(service.logout(leaver.refresh_token))
        assert answer.status_code == 204
        assert seconds < _PATIENCE
        assert {answer.status_code for answer in await _discovery(service)} == {200}
        assert (await _probe(service, "/healthz"))[0] == 200
    await _works_again(service)
    assert generation_of(await service.refreshed(newest)) == 2
    assert problem(await service.refresh(leaver.refresh_token)) == (401, "refresh_token_revoked")
    assert (await _register(service, "newcomer")).status_code == 201


async def test_while_postgresql_hangs_everything_is_503_and_nothing_is_spent(service: Service, fragile: Stores) -> None:
    user = await service.register()
    newest = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    async with _hanging(fragile.postgresql):
        answers, seconds = await _timed(
            *(service.refresh(newest) for _ in range(_POOL)),  # more in all than there are connections
            *(service.logout(newest) for _ in range(_POOL)),
            _login(service, user.username),
            _register(service, "newcomer"),
            service.me(user.access_token),
        )
        assert {problem(answer) for answer in answers} == {_UNAVAILABLE}
        assert seconds < _PATIENCE
        assert {answer.status_code for answer in await _discovery(service)} == {200}
        assert (await _probe(service, "/healthz"))[0] == 200
    await _works_again(service)
    service.advance(seconds=WINDOW + 1)
    answers, seconds = await _timed(*(service.refresh(newest) for _ in range(2 * _POOL)))
    assert {answer.status_code for answer in answers} == {200}
    assert {generation_of(answer.json()["refresh_token"]) for answer in answers} == {3}
    assert seconds < _PATIENCE
    assert (await service.me(user.access_token)).status_code == 200
    assert (await _register(service, "newcomer")).status_code == 201


@pytest.mark.parametrize("store", ["postgresql", "redis"])
async def test_readiness_is_told_before_a_probe_gives_up_on_it_while_a_store_hangs(
    service: Service, fragile: Stores, store: str
) -> None:
    hanging: PrivatePostgreSQL | PrivateRedis = getattr(fragile, store)
    async with _hanging(hanging):
        began = time.monotonic()
        status, body = await _probe(service, "/readyz")
        seconds = time.monotonic() - began
    assert (status, body["stores"][store]) == (200, "down")
    # Kubernetes waits one second unless told otherwise, and all replicas share the store.
    assert seconds < 1


# A store is not there when the service starts.


async def test_a_service_that_starts_without_its_stores_says_so_and_works_once_they_are_back(
    fragile_settings: Callable[..., Settings], fragile: Stores
) -> None:
    settings = fragile_settings()
    async with contextlib.AsyncExitStack() as redis, contextlib.AsyncExitStack() as postgresql:
        await redis.enter_async_context(stopped(fragile.redis, signal.SIGKILL))
        await postgresql.enter_async_context(stopped(fragile.postgresql, signal.SIGINT))
        async with running_service(settings) as service:
            status, body = await _probe(service, "/startupz")
            assert (status, body["status"], body["answered"]) == (503, "starting", [])
            assert body["problems"].keys() == {"postgresql", "redis", "keys"}
            assert (await _probe(service, "/healthz"))[0] == 200
            assert (await _probe(service, "/readyz"))[0] == 503
            assert problem(await _login(service, "nobody")) == _UNAVAILABLE
            assert problem(await service.http.get("/.well-known/jwks.json")) == _UNAVAILABLE

            await postgresql.aclose()
            await until(lambda: _problems_are(service, {"redis"}))
            assert (await _probe(service, "/startupz"))[0] == 503
            # Enough for the keys, a logout and whoever asks who they are.
            assert (await _probe(service, "/readyz"))[0] == 200
            assert (await service.http.get("/.well-known/jwks.json")).status_code == 200
            assert problem(await _login(service, "nobody")) == _UNAVAILABLE

            await redis.aclose()
            await until(lambda: _problems_are(service, set()))
            assert (await _probe(service, "/startupz"))[0] == 200
            user = await service.register()
            assert generation_of(await service.refreshed(user.refresh_token)) == 2
            assert (await service.logout(user.refresh_token)).status_code == 204


async def _problems_are(service: Service, stores: set[str]) -> bool:
    problems: dict[str, str] = (await _probe(service, "/startupz"))[1]["problems"]
    return problems.keys() == stores


async def test_a_service_with_another_encryption_key_signs_nothing_and_overwrites_nothing(
    fragile_settings: Callable[..., Settings],
) -> None:
    async with running_service(fragile_settings()) as service:
        stored = await service.sql("SELECT * FROM signing_keys")
        user = await service.register()
    assert stored
    another = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    async with running_service(fragile_settings(key_encryption_keys=another)) as service:
        status, body = await _probe(service, "/startupz")
        assert (status, body["answered"]) == (503, ["postgresql", "redis"])
        assert body["problems"].keys() == {"keys"}
        assert "AUTH_KEY_ENCRYPTION_KEYS" in body["problems"]["keys"]
        assert another not in str(body)
        assert (await _probe(service, "/healthz"))[0] == 200
        assert (await _probe(service, "/readyz"))[0] == 503
        assert problem(await _login(service, user.username)) == _UNAVAILABLE
        assert problem(await _register(service, "newcomer")) == _UNAVAILABLE
        assert await service.sql("SELECT * FROM signing_keys") == stored
        assert len(await service.sql("SELECT 1 FROM sessions")) == 1
    async with running_service(fragile_settings()) as service:
        assert (await service.refresh(user.refresh_token)).status_code == 200
