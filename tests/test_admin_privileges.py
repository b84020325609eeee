"""Who may call the admin API: every route of it, by every kind of caller."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from auth_service.audit import OPERATOR
from auth_service.verifier import Verifier
from auth_service.verifier.errors import InvalidClaim
from auth_service.verifier.testing import FakeIssuer
from tests.support.admin import SCOPE, Admin, administrator, events, service_token
from tests.support.service import Service, SignedIn, Start, problem
from tests.support.tokens import claims_of

Caller = Callable[[Service], Awaitable[str | None]]
"""Makes a caller; answers what it sends as Authorization, or None for nothing."""


def _bearer(access_token: str) -> str:
    return f"Bearer {access_token}"


async def _granted(service: Service) -> SignedIn:
    user = await service.register()
    await service.app.parts.users.grant(UUID(user.id), add=[SCOPE], by=OPERATOR)
    return user


async def _nobody(_service: Service) -> str | None:
    return None


async def _user(service: Service) -> str | None:
    return _bearer((await service.register()).access_token)


async def _administrator_as_usual(service: Service) -> str | None:
    return _bearer((await service.login(await _granted(service))).access_token)


async def _user_who_asked(service: Service) -> str | None:
    user = await service.register()
    return _bearer((await service.login(user, scope=f"profile {SCOPE}")).access_token)


async def _disabled(service: Service) -> str | None:
    admin = await administrator(service)
    await service.app.parts.users.disable(UUID(admin.user.id), by=OPERATOR)
    return _bearer(admin.user.access_token)


async def _ungranted(service: Service) -> str | None:
    admin = await administrator(service)
    await service.app.parts.users.grant(UUID(admin.user.id), remove=[SCOPE], by=OPERATOR)
    return _bearer(admin.user.access_token)


async def _deleted(service: Service) -> str | None:
    admin = await administrator(service)
    await service.app.parts.users.delete(UUID(admin.user.id), by=OPERATOR)
    return _bearer(admin.user.access_token)


async def _signed_out(service: Service) -> str | None:
    admin = await administrator(service)
    assert (await service.logout(admin.user.refresh_token)).status_code == 204
    return _bearer(admin.user.access_token)


async def _refresh_token(service: Service) -> str | None:
    return _bearer((await administrator(service)).user.refresh_token)


async def _garbage(_service: Service) -> str | None:
    return "Bearer e30.e30.e30"


async def _other_scheme(service: Service) -> str | None:
    return f"Basic {(await administrator(service)).user.access_token}"


async def _forged(service: Service) -> str | None:
    issuer = FakeIssuer(service.settings.issuer, audience=service.settings.issuer)
    sid = claims_of((await administrator(service)).user.access_token)["sid"]
    return _bearer(issuer.token(scope=SCOPE, sid=sid))


async def _administrator(service: Service) -> str | None:
    return _bearer((await administrator(service)).user.access_token)


async def _service(service: Service) -> str | None:
    return _bearer(await service_token(service))


def _service_with(**members: Any) -> Caller:
    async def caller(service: Service) -> str | None:
        return _bearer(await service_token(service, **members))

    return caller


async def _service_of_a_removed_client(service: Service) -> str | None:
    token = await service_token(service)
    await service.sql("DELETE FROM clients")
    return _bearer(token)


async def _service_in_an_administrators_session(service: Service) -> str | None:
    sid = claims_of((await administrator(service)).user.access_token)["sid"]
    return _bearer(await service_token(service, held="reports:read", sid=sid))


async def _revoke(service: Service, kind: str, claim: str) -> None:
    await service.sql(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " VALUES ($1, $2, 'admin', now(), now() + interval '1 hour')",
        kind,
        claim,
    )


async def _service_with_a_revoked_token(service: Service) -> str | None:
    token = await service_token(service)
    await _revoke(service, "j", claims_of(token)["jti"])
    return _bearer(token)


async def _service_of_a_revoked_client(service: Service) -> str | None:
    token = await service_token(service)
    await _revoke(service, "c", claims_of(token)["client_id"])
    return _bearer(token)


_LACKING = (403, "insufficient_scope")
_BAD = (401, "invalid_token")

_CALLERS: dict[str, tuple[Caller, tuple[int, str] | None]] = {
    "nobody": (_nobody, _BAD),
    "a user": (_user, _LACKING),
    "an administrator's ordinary token": (_administrator_as_usual, _LACKING),
    "a user who asked without the grant": (_user_who_asked, _LACKING),
    "a disabled administrator": (_disabled, _BAD),
    "an administrator whose grant was taken away": (_ungranted, _LACKING),
    "a deleted administrator": (_deleted, _BAD),
    "an administrator's ended session": (_signed_out, _BAD),
    "an administrator's refresh token": (_refresh_token, _BAD),
    "garbage": (_garbage, _BAD),
    "another scheme": (_other_scheme, _BAD),
    "a token that another key signed": (_forged, _BAD),
    "a service without the scope in the token": (_service_with(scope="reports:read"), _LACKING),
    "a service that holds the scope no more": (_service_with(held="reports:read"), _LACKING),
    "a service token for others": (_service_with(aud="orders"), _BAD),
    "a service token for others too": (_service_with(aud=["https://auth.test", "orders"]), _BAD),
    "a service token for others too, without the scope": (
        _service_with(aud=["https://auth.test", "orders"], scope="reports:read"),
        _LACKING,
    ),
    "a service token for others, without the scope": (_service_with(aud="orders", scope="reports:read"), _BAD),
    "a service token of another issuer": (_service_with(iss="https://other.test"), _BAD),
    "a service token in another's name": (_service_with(sub=str(uuid4())), _BAD),
    "a service token without a client": (_service_with(client_id=None), _BAD),
    "a service token of no client of ours": (_service_with(client_id="web", sub="web"), _BAD),
    "an expired service token": (_service_with(exp=1), _BAD),
    "a service token whose session is none": (_service_with(sid="x"), _BAD),
    "a service token that names an administrator's session": (_service_in_an_administrators_session, _BAD),
    "a removed client": (_service_of_a_removed_client, _BAD),
    "a revoked service token": (_service_with_a_revoked_token, _BAD),
    "a revoked client": (_service_of_a_revoked_client, _BAD),
    "an administrator": (_administrator, None),
    "a service": (_service, None),
}


async def _calls(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    """Every call of the admin API, with a body of the kind that it takes."""
    document = (await service.internal.get("/openapi.json")).json()
    calls = []
    for path, methods in document["paths"].items():
        if not path.startswith("/admin/"):
            continue
        for method, described in methods.items():
            request = {}
            if "requestBody" in described:
                reference = described["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                request["json"] = document["components"]["schemas"][reference.rpartition("/")[2]]["examples"][0]
            calls.append((method.upper(), path.replace("{id}", str(uuid4())).replace("{kid}", "x" * 43), request))
    return calls


async def test_each_call_is_open_to_administrators_alone(service: Service) -> None:
    calls = await _calls(service)
    assert len(calls) >= 16
    for who, (make, refusal) in _CALLERS.items():
        authorization = await make(service)
        headers = {"Authorization": authorization} if authorization is not None else {}
        before = len(await events(service))
        for method, path, request in calls:
            answer = await service.internal.request(method, path, headers=headers, **request)
            if refusal is None:
                assert answer.status_code in (200, 201, 204, 404, 409), (who, method, path, answer.text)
                continue
            assert problem(answer) == refusal, (who, method, path)
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith('Bearer realm="auth-service"')
            if refusal == _LACKING:
                assert 'error="insufficient_scope"' in challenge
                assert 'scope="auth:admin"' in challenge
            else:
                named = authorization is not None and authorization.startswith("Bearer")
                assert ('error="invalid_token"' in challenge) == named
            # A refusal comes before anything is read.
            unread = await service.internal.request(method, path, headers=headers, params={"limit": "x"}, content=b"{")
            assert unread.status_code == answer.status_code
        if refusal is not None:
            assert len(await events(service)) == before, "a refused call leaves nothing"


async def test_two_authorization_headers_are_a_bad_request(service: Service) -> None:
    admin = await administrator(service)
    twice = [("Authorization", _bearer(admin.user.access_token))] * 2
    answer = await service.internal.get("/admin/users", headers=twice)
    assert problem(answer) == (400, "invalid_request")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="auth-service", error="invalid_request"')


async def test_the_public_port_knows_nothing_of_the_admin_api(service: Service) -> None:
    admin = await administrator(service)
    for method, path, request in await _calls(service):
        answer = await service.http.request(method, path, headers=admin.user.bearer, **request)
        assert problem(answer) == (404, "not_found")
    assert not any("admin" in path for path in (await service.http.get("/openapi.json")).json()["paths"])


async def test_an_administrators_token_names_the_issuer_alone_and_is_refused_downstream(start: Start) -> None:
    service = await start(audiences="orders,https://auth.test")
    admin = await administrator(service)
    assert claims_of(admin.user.access_token)["aud"] == service.settings.issuer
    assert claims_of((await service.login(admin.user)).access_token)["aud"] == ["orders", service.settings.issuer]
    ordinary = Admin(await service.login(admin.user), service)
    assert problem(await ordinary.call("GET", "/users")) == _LACKING, "a good token, and for this service too"
    transport = httpx2.ASGITransport(app=service.app.public)
    async with Verifier(
        service.settings.issuer, audience="orders", transport=transport, max_staleness=None
    ) as verifier:
        assert (await verifier.verify(ordinary.user.access_token)).subject == admin.user.id
        with pytest.raises(InvalidClaim, match="aud"):
            await verifier.verify(admin.user.access_token)


async def test_a_scope_that_is_taken_away_is_gone_at_the_next_refresh_and_comes_back_with_the_grant(
    service: Service,
) -> None:
    admin = await administrator(service)
    users, user_id = service.app.parts.users, UUID(admin.user.id)

    async def refreshed() -> Admin:
        answer = (await service.refresh(admin.user.refresh_token)).json()
        admin.user.refresh_token, admin.user.access_token = answer["refresh_token"], answer["access_token"]
        return admin

    assert (await (await refreshed()).call("GET", "/users")).status_code == 200
    await users.grant(user_id, remove=[SCOPE], by=OPERATOR)
    assert claims_of((await refreshed()).user.access_token)["scope"] == "profile"
    assert problem(await admin.call("GET", "/users")) == _LACKING
    await users.grant(user_id, add=[SCOPE], by=OPERATOR)
    assert claims_of((await refreshed()).user.access_token)["scope"] == f"{SCOPE} profile"
    assert (await admin.call("GET", "/users")).status_code == 200
