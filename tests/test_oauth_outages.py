"""The OAuth endpoints while a store is away: 503 and never a wrong answer, and nothing spent. Real servers stop."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import httpx2
import pytest

from auth_service.audit import OPERATOR
from auth_service.settings import Settings
from tests.support.oauth import PUBLIC, Credentials, introspected, new_client, oauth_error, revoke, service_token
from tests.support.service import Service, SignedIn, problem, running_service
from tests.support.stores import Stores, stopped
from tests.support.tokens import generation_of

_AWAY = (503, "temporarily_unavailable")


@pytest.fixture
async def service(fragile_settings: Callable[..., Settings]) -> AsyncIterator[Service]:
    async with running_service(fragile_settings()) as running:
        yield running


async def _refresh(service: Service, user: SignedIn) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "refresh_token": user.refresh_token, **PUBLIC}
    return await service.http.post("/oauth/token", data=form)


async def _answers(service: Service, client: Credentials, tokens: dict[str, str]) -> dict[str, httpx2.Response]:
    """What each endpoint answers, of every kind of token and of none of ours."""
    post = service.http.post
    answers = {
        "client_credentials": await post("/oauth/token", data={"grant_type": "client_credentials", **client.post})
    }
    for name, token in tokens.items():
        answers[f"revoke {name}"] = await revoke(service, token, by=client)
        answers[f"revoke {name} publicly"] = await revoke(service, token)
        answers[f"introspect {name}"] = await post("/oauth/introspect", data={"token": token}, auth=client.basic)
    return answers


async def test_while_postgresql_is_stopped_all_is_503_and_nothing_is_spent_or_revoked(
    service: Service, fragile: Stores
) -> None:
    client = await new_client(service, scope="orders:read auth:introspect")
    user = await service.register()
    service_tokens = [await service_token(service, client) for _ in range(2)]
    tokens = {"service": service_tokens[0], "access": user.access_token, "refresh": user.refresh_token, "garbage": "x"}
    await service.sql("CHECKPOINT")  # the tests' PostgreSQL does not wait for the disk
    async with stopped(fragile.postgresql, signal.SIGQUIT):
        answers = await _answers(service, client, tokens)
        answers["refresh"] = await _refresh(service, user)
        assert {name: oauth_error(answer) for name, answer in answers.items()} == dict.fromkeys(answers, _AWAY)
    for token in (*service_tokens, user.access_token, user.refresh_token):
        assert (await _introspected(service, token, client))["active"] is True
    refreshed = await _refresh(service, user)
    assert generation_of(refreshed.json()["refresh_token"]) == 2


async def test_a_client_only_feed_can_be_opened_again_while_postgresql_isstopped(
    fragile_settings: Callable[..., Settings], fragile: Stores
) -> None:
    async with running_service(fragile_settings(revocation_feed="client")) as service:
        reader = await new_client(service, scope="revocations:read")
        gone = await new_client(service, scope="revocations:read")
        good, revoked = [await service_token(service, client, scope="revocations:read") for client in (reader, gone)]
        ordinary = await service_token(service, await new_client(service, scope="orders:read"))
        user = await service.register()
        await service.app.parts.clients.remove(UUID(gone.client_id), by=OPERATOR)

        async def opened(token: str) -> int:
            answer = await service.http.get("/revocations", headers={"Authorization": f"Bearer {token}"})
            return answer.status_code

        async with stopped(fragile.postgresql, signal.SIGKILL):
            assert await opened(good) == 200
            for token in (revoked, ordinary, user.access_token):
                assert await opened(token) == 503
            assert await opened("garbage") == 401
            service.advance(seconds=660)
            assert await opened(good) == 503


async def test_while_redis_is_stopped_revocation_holds_and_only_what_needs_redis_is_503(
    service: Service, fragile: Stores
) -> None:
    client = await new_client(service, scope="orders:read auth:introspect")
    user, another = await service.register(), await service.register()
    token = await service_token(service, client)
    async with stopped(fragile.redis, signal.SIGKILL):
        assert (await revoke(service, token, by=client)).status_code == 200
        assert await introspected(service, token, by=client) == {"active": False}
        assert (await revoke(service, user.refresh_token)).status_code == 200
        assert await introspected(service, user.access_token, by=client) == {"active": False}
        assert (await introspected(service, another.access_token, by=client))["active"] is True
        await service_token(service, client)
        # The live generation is not known: neither answer would be true for certain.
        form = {"token": another.refresh_token}
        assert oauth_error(await service.http.post("/oauth/introspect", data=form, auth=client.basic)) == _AWAY
        assert oauth_error(await _refresh(service, another)) == _AWAY
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    assert await introspected(service, token, by=client) == {"active": False}
    assert generation_of((await _refresh(service, another)).json()["refresh_token"]) == 2


async def _introspected(service: Service, token: str, client: Credentials) -> dict[str, object]:
    """The same as `introspected`, once the pool has found the server that is back."""
    deadline = asyncio.get_running_loop().time() + 10
    while True:
        answer = await service.http.post("/oauth/introspect", data={"token": token}, auth=client.basic)
        if answer.status_code == 200 or asyncio.get_running_loop().time() > deadline:
            members: dict[str, object] = answer.json()
            return members
        await asyncio.sleep(0.05)
