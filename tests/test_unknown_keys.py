"""A token whose `kid` the process does not hold: a stranger's, or of a key that this process has not heard of yet.

Only PostgreSQL can tell the two apart. Taken for a stranger's, a good refresh token would be a 401, and its logout a
204 that ends nothing.
"""

import asyncio
import json
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from prometheus_client import REGISTRY

from auth_service.audit import OPERATOR
from auth_service.parts import Parts
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from tests.support.feed import until
from tests.support.oauth import Credentials, new_client, oauth_error, revoke
from tests.support.service import Service, problem, running_service
from tests.support.stores import Stores, suspended
from tests.support.tokens import base64url, claims_of, header_of

_UNAVAILABLE = (503, "unavailable")
_MALFORMED = "eyJhbGciOiJub25lIn0.e30.AA"


@pytest.fixture
async def service(fragile_settings: Callable[..., Settings]) -> AsyncIterator[Service]:
    async with running_service(fragile_settings()) as running:
        yield running


def _with_another_kid(token: str) -> str:
    """The same with a `kid` that names no key. Without that key, nobody can tell that it is forged."""
    header = {**header_of(token), "kid": secrets.token_urlsafe(32)}
    return ".".join([base64url(json.dumps(header).encode()), *token.split(".")[1:]])


async def _first_party(service: Service, access_token: str, refresh_token: str) -> dict[str, httpx2.Response]:
    bearer = {"Authorization": f"Bearer {access_token}"}
    return await _answers(
        {
            "refresh": service.refresh(refresh_token),
            "logout by refresh token": service.logout(refresh_token),
            "logout by access token": service.http.post("/user/logout", headers=bearer),
            "me": service.me(access_token),
        }
    )


async def _oauth(service: Service, token: str, client: Credentials) -> dict[str, httpx2.Response]:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "web"}
    return await _answers(
        {
            "revoke": revoke(service, token, by=client),
            "introspect": service.http.post("/oauth/introspect", data={"token": token}, auth=client.basic),
            "token": service.http.post("/oauth/token", data=form),
        }
    )


async def _answers(requests: dict[str, Coroutine[Any, Any, httpx2.Response]]) -> dict[str, httpx2.Response]:
    return dict(zip(requests, await asyncio.gather(*requests.values()), strict=True))


def _statuses(answers: dict[str, httpx2.Response]) -> list[int]:
    return [answer.status_code for answer in answers.values()]


@pytest.mark.parametrize("how", ["is stopped", "hangs"])
async def test_a_process_that_starts_while_postgresql_is_away_refuses_no_token_and_forgets_no_logout(
    fragile_settings: Callable[..., Settings], fragile: Stores, how: str
) -> None:
    settings = fragile_settings()
    async with running_service(settings) as service:
        user = await service.register()
        await service.sql("CHECKPOINT")  # the tests' PostgreSQL does not wait for the disk
    with ExitStack() as away:
        if how == "hangs":
            away.enter_context(suspended(fragile.postgresql))
        else:
            await asyncio.to_thread(fragile.postgresql.stop, signal.SIGQUIT)
            away.callback(fragile.postgresql.start)
        async with running_service(settings) as service:
            answers = await _first_party(service, user.access_token, user.refresh_token)
            assert {name: problem(answer) for name, answer in answers.items()} == dict.fromkeys(answers, _UNAVAILABLE)
            # What no key could make good needs none to be refused.
            assert _statuses(await _first_party(service, _MALFORMED, _MALFORMED)) == [401, 204, 204, 401]
            await asyncio.to_thread(away.close)
            await until(lambda: _is_started(service))
            newest = await service.refreshed(user.refresh_token)
            assert (await service.logout(newest)).status_code == 204
            assert problem(await service.refresh(newest)) == (401, "refresh_token_revoked")


async def _is_started(service: Service) -> bool:
    return (await service.internal.get("/startupz")).status_code == 200


async def test_while_the_keys_cannot_be_read_every_route_says_that_it_cannot_tell_whose_a_token_is(
    service: Service,
) -> None:
    user = await service.register()
    client = await new_client(service, scope="auth:introspect")
    access_token, refresh_token = _with_another_kid(user.access_token), _with_another_kid(user.refresh_token)

    assert _statuses(await _first_party(service, access_token, refresh_token)) == [401, 204, 204, 401]
    for token in (access_token, refresh_token):
        answers = await _oauth(service, token, client)
        assert _statuses(answers) == [200, 200, 400]
        assert answers["introspect"].json() == {"active": False}

    async with _keys_locked(service):
        first_party, *oauth = await asyncio.gather(
            _first_party(service, access_token, refresh_token),
            _oauth(service, access_token, client),
            _oauth(service, refresh_token, client),
        )
        # All else of PostgreSQL answers.
        assert (await service.me(user.access_token)).status_code == 200
        assert (await service.refresh(user.refresh_token)).status_code == 200
    assert {problem(answer) for answer in first_party.values()} == {_UNAVAILABLE}
    for_access_token, for_refresh_token = oauth
    del for_access_token["token"]  # not of the kind that is read there, whoever signed it
    for answer in (*for_access_token.values(), *for_refresh_token.values()):
        assert oauth_error(answer) == (503, "temporarily_unavailable")

    await until(lambda: _is_refused(service, access_token))


@asynccontextmanager
async def _keys_locked(service: Service) -> AsyncIterator[None]:
    connection = await asyncpg.connect(service.settings.database_url.get_secret_value())
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE signing_keys IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def _is_refused(service: Service, access_token: str) -> bool:
    return (await service.me(access_token)).status_code == 401


async def test_a_server_that_takes_no_writes_does_not_know_every_key(service: Service) -> None:
    refresh_token = _with_another_kid((await service.register()).refresh_token)
    assert problem(await service.refresh(refresh_token)) == (401, "invalid_token")
    url = service.settings.database_url.get_secret_value()
    name = url.rpartition("/")[2]
    connection = await asyncpg.connect(url)
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", name
    )
    await connection.close()
    await until(lambda: _takes_no_writes(service))
    for _ in range(3):
        assert problem(await service.refresh(refresh_token)) == _UNAVAILABLE
        assert problem(await service.logout(refresh_token)) == _UNAVAILABLE


async def _takes_no_writes(service: Service) -> bool:
    answer = await service.internal.get("/readyz")
    return bool(answer.json().get("keys") == "postgresql: ReadOnlySQLTransactionError")


@pytest.mark.parametrize("what", ["refresh", "logout"])
async def test_a_key_that_was_made_a_moment_ago_is_known_to_every_process_that_is_shown_it(
    service: Service, fragile_settings: Callable[..., Settings], what: str
) -> None:
    service.app.key_follower.interval = timedelta(hours=1)
    await service.app.parts.keys.readings.next()  # the pause after it is of the new length
    await _revoke_the_key_that_signs(service.settings)
    await _revoke_the_key_that_signs(service.settings)
    async with running_service(fragile_settings()) as other:
        user = await other.register()
        published = (await service.http.get("/.well-known/jwks.json")).json()["keys"]
        assert header_of(user.access_token)["kid"] not in {key["kid"] for key in published}
        if what == "refresh":
            assert claims_of(await service.refreshed(user.refresh_token))["gen"] == 2
        else:
            assert (await service.logout(user.refresh_token)).status_code == 204
            assert problem(await other.refresh(user.refresh_token)) == (401, "refresh_token_revoked")


async def _revoke_the_key_that_signs(settings: Settings) -> None:
    parts = Parts(settings, Clock())
    await parts.open()
    now, lives = await parts.key_life_cycle.list()
    [kid] = [life.kid for life in lives if life.state(now) == "signing"]
    await parts.key_revocation.revoke(kid, by=OPERATOR)
    await parts.close()


async def test_made_up_kids_are_not_read_for_each(service: Service) -> None:
    user = await service.register()
    before, began = _statements(), time.monotonic()
    for _ in range(3):
        answers = await asyncio.gather(*(service.me(_with_another_kid(user.access_token)) for _ in range(200)))
        assert {problem(answer) for answer in answers} == {(401, "invalid_token")}
    # Ten readings a second at most, and what else is read of PostgreSQL for as long.
    assert _statements() - before < 20 * (1 + time.monotonic() - began)


def _statements() -> float:
    return REGISTRY.get_sample_value("auth_store_duration_seconds_count", {"store": "postgresql"}) or 0
