"""`POST /oauth/introspect` (RFC 7662): what is told of a live token, to whom, and that nothing else is ever live."""

from uuid import UUID

import pytest

from auth_service.audit import OPERATOR
from tests.support.oauth import PUBLIC, Credentials, introspected, new_client, oauth_error, revoke, service_token
from tests.support.service import WINDOW, Service
from tests.support.tokens import claims_of

_DEAD = {"active": False}


@pytest.fixture
async def auditor(service: Service) -> Credentials:
    """Whom every token concerns."""
    return await new_client(service, scope="auth:introspect")


async def test_a_live_access_token_of_a_user_says_what_it_is(service: Service, auditor: Credentials) -> None:
    user = await service.register()
    claims = claims_of(user.access_token)
    assert await introspected(service, user.access_token, by=auditor) == {
        "active": True, "scope": "profile", "client_id": "web", "username": user.username, "token_type": "Bearer",
        "exp": claims["exp"], "iat": claims["iat"], "sub": user.id, "aud": claims["aud"], "iss": claims["iss"],
        "jti": claims["jti"], "sid": claims["sid"],
    }  # fmt: skip


async def test_a_live_service_token_says_what_it_is(service: Service) -> None:
    client = await new_client(service, scope="orders:read", audiences=("orders", "stock"))
    token = await service_token(service, client)
    claims = claims_of(token)
    for hint in ({}, {"token_type_hint": "refresh_token"}, {"token_type_hint": "x"}):
        assert await introspected(service, token, by=client, **hint) == {
            "active": True, "scope": "orders:read", "client_id": client.client_id, "token_type": "Bearer",
            "exp": claims["exp"], "iat": claims["iat"], "sub": client.client_id, "aud": ["orders", "stock"],
            "iss": claims["iss"], "jti": claims["jti"],
        }  # fmt: skip


async def test_a_live_refresh_token_is_told_without_being_used(service: Service, auditor: Credentials) -> None:
    user = await service.register()
    claims = claims_of(user.refresh_token)
    for _ in range(3):
        found = await introspected(service, user.refresh_token, by=auditor)
        assert found == {
            "active": True, "scope": "profile", "client_id": "web", "username": user.username, "exp": claims["exp"],
            "iat": claims["iat"], "sub": user.id, "aud": claims["iss"], "iss": claims["iss"], "sid": claims["sid"],
        }  # fmt: skip
    assert await service.redis_keys("auth:session:*") == []
    assert (await service.refresh(user.refresh_token)).status_code == 200


async def test_a_consumed_refresh_token_is_not_live_even_within_the_window(
    service: Service, auditor: Credentials
) -> None:
    user = await service.register()
    newest = await service.refreshed(user.refresh_token)
    assert await introspected(service, user.refresh_token, by=auditor) == _DEAD
    assert (await introspected(service, newest, by=auditor))["active"] is True
    await service.flush_checkpoints()
    await service.flush_redis()
    assert await introspected(service, user.refresh_token, by=auditor) == _DEAD, "Redis has forgotten, PostgreSQL not"
    assert (await introspected(service, newest, by=auditor))["active"] is True
    service.advance(seconds=WINDOW + 1)
    await service.refresh(user.refresh_token)  # reuse: the session ends
    assert await introspected(service, newest, by=auditor) == _DEAD


async def test_what_is_not_a_token_of_ours_is_not_live(service: Service, auditor: Credentials) -> None:
    token = (await service.register()).access_token
    head, payload, signature = token.split(".")
    for text in ("x", "a.b.c", "é", f"{head}.{payload}.", f"{head}.{payload}.{signature[:-4]}AAAA", "x" * 9000):
        assert await introspected(service, text, by=auditor) == _DEAD


async def test_an_expired_token_is_not_live(service: Service, auditor: Credentials) -> None:
    user = await service.register()
    token = await service_token(service, auditor)
    service.advance(seconds=599)
    assert (await introspected(service, user.access_token, by=auditor))["active"] is True
    service.advance(seconds=1)
    for text in (user.access_token, token):
        assert await introspected(service, text, by=auditor) == _DEAD
    service.advance(seconds=7 * 86400)
    assert await introspected(service, user.refresh_token, by=auditor) == _DEAD


async def test_nothing_of_an_ended_session_or_a_disabled_or_deleted_user_is_live(
    service: Service, auditor: Credentials
) -> None:
    ended, disabled, deleted = [await service.register() for _ in range(3)]
    await service.logout(ended.refresh_token)
    await service.app.parts.users.disable(UUID(disabled.id), by=OPERATOR)
    await service.app.parts.users.delete(UUID(deleted.id), by=OPERATOR)
    for user in (ended, disabled, deleted):
        assert await introspected(service, user.access_token, by=auditor) == _DEAD
        assert await introspected(service, user.refresh_token, by=auditor) == _DEAD


async def test_nothing_of_a_removed_client_or_a_revoked_key_is_live(service: Service, auditor: Credentials) -> None:
    client = await new_client(service)
    token, own = await service_token(service, client), await service_token(service, auditor)
    assert (await introspected(service, token, by=auditor))["active"] is True
    await service.app.parts.clients.remove(UUID(client.client_id), by=OPERATOR)
    assert await introspected(service, token, by=auditor) == _DEAD
    await service.sql("DELETE FROM revocations")  # pruned: without its row alone it is dead too
    assert await introspected(service, token, by=auditor) == _DEAD
    await service.sql(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " SELECT 'k', kid, 'test', now(), now() + interval '1 hour' FROM signing_keys"
    )
    assert await introspected(service, own, by=auditor) == _DEAD


async def test_a_client_is_told_of_its_own_tokens_and_those_for_its_audiences_alone(service: Service) -> None:
    orders = await new_client(service, audiences=("orders",))
    caller = await new_client(service, audiences=("orders", "stock"))
    foreign = await new_client(service, audiences=("payments",), scope="orders:read auth:admin")
    for_orders = await service_token(service, caller, audience="orders")
    for_stock = await service_token(service, caller, audience="stock")
    assert (await introspected(service, for_orders, by=orders))["active"] is True
    assert (await introspected(service, for_stock, by=caller))["active"] is True
    assert await introspected(service, for_stock, by=orders) == _DEAD
    for token in (for_orders, for_stock):
        assert await introspected(service, token, by=foreign) == _DEAD
    user = await service.register()
    assert await introspected(service, user.refresh_token, by=caller) == _DEAD
    assert await introspected(service, user.access_token, by=foreign) == _DEAD
    assert (await introspected(service, user.access_token, by=await new_client(service)))["active"] is True


async def test_a_revoked_token_is_never_introspected_into_life(service: Service, auditor: Credentials) -> None:
    client = await new_client(service)
    token = await service_token(service, client)
    await revoke(service, token, by=client)
    for _ in range(2):
        for by in (client, auditor):
            assert await introspected(service, token, by=by) == _DEAD


async def test_only_a_client_that_proves_who_it_is_may_ask(service: Service) -> None:
    user = await service.register()
    client = await new_client(service)
    wrong = {"client_id": client.client_id, "client_secret": "x" * 43}
    for form in ({}, PUBLIC, {"client_id": "x", "client_secret": "y"}, {"client_id": client.client_id}, wrong):
        answer = await service.http.post("/oauth/introspect", data={"token": user.access_token, **form})
        assert oauth_error(answer) == (401, "invalid_client")
    answer = await service.http.post("/oauth/introspect", data={"token": user.access_token}, headers=user.bearer)
    assert oauth_error(answer) == (401, "invalid_client")
    answer = await service.http.post("/oauth/introspect", data=client.post)
    assert oauth_error(answer) == (400, "invalid_request")
    by_post = await service.http.post("/oauth/introspect", data={"token": user.access_token, **client.post})
    assert by_post.json()["active"] is True
