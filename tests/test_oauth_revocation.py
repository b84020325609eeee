"""`POST /oauth/revoke` (RFC 7009): what it ends, for whom, and what it leaves alone."""

from auth_service.verifier.revocations import revocation_id
from tests.support.oauth import PUBLIC, introspected, new_client, oauth_error, revoke, service_token
from tests.support.service import WINDOW, Service, problem
from tests.support.tokens import base64url, claims_of

_HINTS = (None, "access_token", "refresh_token", "nonsense")
_UNSIGNED = b'{"alg":"none","typ":"at+jwt"}'


async def test_either_token_of_a_session_ends_the_session_whatever_the_hint(service: Service) -> None:
    user = await service.register()
    for hint in _HINTS:
        for kind in ("access_token", "refresh_token"):
            session = await service.login(user)
            answer = await revoke(service, getattr(session, kind), hint=hint)
            assert (answer.status_code, answer.content) == (200, b"")
            assert problem(await service.me(session.access_token)) == (401, "invalid_token")
            assert problem(await service.refresh(session.refresh_token)) == (401, "refresh_token_revoked")
    assert (await service.me(user.access_token)).status_code == 200, "another session has ended too"


async def test_a_consumed_or_expired_token_of_a_session_ends_it_as_a_logout_does(service: Service) -> None:
    user = await service.register()
    newest = await service.refreshed(user.refresh_token)
    service.advance(seconds=WINDOW + 1)
    assert (await revoke(service, user.refresh_token)).status_code == 200
    assert problem(await service.refresh(newest)) == (401, "refresh_token_revoked")
    another = await service.login(user)
    service.advance(seconds=601)
    assert (await revoke(service, another.access_token)).status_code == 200
    assert problem(await service.refresh(another.refresh_token)) == (401, "refresh_token_revoked")


async def test_a_service_token_is_revoked_by_itself_whatever_the_hint(service: Service) -> None:
    client = await new_client(service, scope="orders:read")
    kept = await service_token(service, client)
    for hint in _HINTS:
        token = await service_token(service, client)
        assert (await introspected(service, token, by=client))["active"] is True
        assert (await revoke(service, token, by=client, hint=hint)).status_code == 200
        assert await introspected(service, token, by=client) == {"active": False}
        entry = revocation_id(claims_of(token)["jti"])
        assert ("j", entry) in {(kind, name) for kind, name, _ in service.app.parts.live_set.entries()}
    assert (await introspected(service, kept, by=client))["active"] is True


async def test_another_clients_token_is_left_alone_and_the_answer_is_the_same(service: Service) -> None:
    client, thief = await new_client(service), await new_client(service, scope="auth:introspect auth:admin")
    token = await service_token(service, client)
    user = await service.register()
    for answer in (
        await revoke(service, token, by=thief),
        await revoke(service, token),  # the public client
        await revoke(service, user.access_token, by=thief),
        await revoke(service, user.refresh_token, by=thief),
    ):
        assert (answer.status_code, answer.content) == (200, b"")
    assert (await introspected(service, token, by=client))["active"] is True
    assert (await service.me(user.access_token)).status_code == 200
    assert (await service.refresh(user.refresh_token)).status_code == 200
    assert await service.sql("SELECT * FROM revocations") == []


async def test_what_is_no_live_token_of_ours_is_200_and_changes_nothing(service: Service) -> None:
    client = await new_client(service)
    token = await service_token(service, client)
    head, payload, signature = token.split(".")
    unsigned = f"{base64url(_UNSIGNED)}.{payload}."
    for text in ("x", "a.b.c", "\ud7ff", unsigned, f"{head}.{payload}.{signature[:-4]}AAAA", "x" * 9000, token + "x"):
        assert (await revoke(service, text, by=client)).status_code == 200
        assert (await revoke(service, text)).status_code == 200
    service.advance(seconds=601)
    assert (await revoke(service, token, by=client)).status_code == 200  # expired
    assert await service.sql("SELECT * FROM revocations") == []


async def test_a_revocation_again_is_200_and_is_audited_once(service: Service) -> None:
    client = await new_client(service)
    token = await service_token(service, client)
    user = await service.register()
    for _ in range(3):
        assert (await revoke(service, token, by=client)).status_code == 200
        assert (await revoke(service, user.refresh_token)).status_code == 200
    rows = await service.sql("SELECT * FROM audit_events WHERE action IN ('token.revoked', 'session.logout')")
    by_action = {row["action"]: row for row in rows}
    assert len(rows) == len(by_action) == 2
    of_token, of_session = by_action["token.revoked"], by_action["session.logout"]
    assert (of_token["actor_kind"], of_token["actor_id"]) == ("client", client.client_id)
    assert of_token["target_id"] == revocation_id(claims_of(token)["jti"]), "the jti itself is in no log"
    assert (of_session["actor_kind"], of_session["actor_id"]) == ("user", user.id)
    assert of_session["target_id"] == claims_of(user.access_token)["sid"]
    assert of_session["request_id"]


async def test_without_a_token_or_a_client_it_is_refused(service: Service) -> None:
    client = await new_client(service)
    for form in ({"x": "y"}, {"token": ""}):
        assert oauth_error(await service.http.post("/oauth/revoke", data=form, auth=client.basic)) == (
            400,
            "invalid_request",
        )
    user = await service.register()
    for form in ({}, {"client_id": client.client_id}, {**PUBLIC, "client_secret": "x"}, {"client_id": "nobody"}):
        answer = await service.http.post("/oauth/revoke", data={"token": user.refresh_token, **form})
        assert oauth_error(answer) == (401, "invalid_client")
    assert (await service.refresh(user.refresh_token)).status_code == 200
