"""`POST /oauth/token`: who gets which token, and that nobody gets more than is theirs."""

from base64 import b64encode
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlencode

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth_service.accounts.client_grant import granted_audiences, granted_scope
from auth_service.accounts.clients import Client
from auth_service.audit import OPERATOR
from auth_service.endpoints.form import MEDIA_TYPE, form_values
from auth_service.errors import GrantRefused, InvalidRequest
from tests.support.oauth import PUBLIC, Credentials, ask_token, new_client, oauth_error, revoke, service_token
from tests.support.service import WINDOW, Service, Start, problem
from tests.support.tokens import claims_of, generation_of, header_of

_ISSUER = "https://auth.test"
_PATHS = ("/oauth/token", "/oauth/revoke", "/oauth/introspect")


@pytest.fixture
async def client(service: Service) -> Credentials:
    return await new_client(
        service, scope="orders:read orders:write auth:admin revocations:read", audiences=("orders", "stock")
    )


async def test_a_service_token_says_what_rfc_9068_wants_and_has_no_session(
    service: Service, client: Credentials
) -> None:
    answer = await ask_token(service, client)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "scope"}  # no refresh token: RFC 6749 §4.4.3
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 600)
    claims = claims_of(body["access_token"])
    assert claims.keys() == {"iss", "sub", "aud", "client_id", "scope", "jti", "iat", "exp"}
    assert claims["sub"] == claims["client_id"] == client.client_id
    assert claims["aud"] == ["orders", "stock"]
    assert claims["scope"] == body["scope"] == "orders:read orders:write"
    assert claims["exp"] - claims["iat"] == 600
    assert header_of(body["access_token"])["typ"] == "at+jwt"


async def test_both_client_authentications_are_taken(service: Service, client: Credentials) -> None:
    by_post = await service.http.post("/oauth/token", data={"grant_type": "client_credentials", **client.post})
    assert by_post.status_code == 200
    encoded = ":".join(map(quote_plus, client.basic))
    for scheme in ("Basic", "basic"):
        headers = {"Authorization": f"{scheme} {b64encode(encoded.encode()).decode()}"}
        by_basic = await service.http.post(
            "/oauth/token", data={"grant_type": "client_credentials", "client_id": client.client_id}, headers=headers
        )
        assert by_basic.status_code == 200


async def test_a_basic_header_is_form_decoded_before_it_is_compared(service: Service, client: Credentials) -> None:
    # RFC 6749 §2.3.1. Every character written as an escape, which only a decoder can read.
    encoded = ":".join("".join(f"%{ord(character):02X}" for character in part) for part in client.basic)
    headers = {"Authorization": f"Basic {b64encode(encoded.encode()).decode()}"}
    answer = await service.http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers)
    assert answer.status_code == 200


async def test_an_authorization_that_cannot_be_read_is_an_invalid_client(service: Service) -> None:
    unreadable = [b"no colon", b"\xff:\xff", b"%zz:x", b"a%00:b", b":"]
    for authorization in (
        *("Basic", "Basic !!!", "Bearer x", "Digest x"),
        *(f"Basic {b64encode(pair).decode()}" for pair in unreadable),
    ):
        headers = {"Authorization": authorization}
        answer = await service.http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers)
        assert oauth_error(answer) == (401, "invalid_client"), authorization


async def test_a_wrong_secret_an_unknown_client_and_none_are_refused_alike(
    service: Service, client: Credentials
) -> None:
    wrong = [
        await ask_token(service, Credentials(client.client_id, "x" * 43)),
        await ask_token(service, Credentials(client.client_id.upper(), client.client_secret)),
        await ask_token(service, Credentials("0b9b4a0e-7f0c-4d8b-9a51-3f6a2f1c8e57", client.client_secret)),
        await ask_token(service, Credentials("web", client.client_secret)),
        await ask_token(service, Credentials("", "")),
        await service.http.post("/oauth/token", data={"grant_type": "client_credentials"}),
        await service.http.post(
            "/oauth/token", data={"grant_type": "client_credentials", "client_id": client.client_id}
        ),
    ]
    assert [oauth_error(answer) for answer in wrong] == [(401, "invalid_client")] * len(wrong)
    assert len({answer.text for answer in wrong}) == 1


async def test_two_ways_to_authenticate_at_once_are_refused(service: Service, client: Credentials) -> None:
    another = await new_client(service)
    for form in (client.post, {"client_id": another.client_id}, {"client_secret": client.client_secret}):
        answer = await ask_token(service, client, **form)
        assert oauth_error(answer) == (400, "invalid_request")
    headers = [("Authorization", "Basic eDp5"), ("Authorization", "Basic eDp5")]
    twice = await service.http.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers)
    assert oauth_error(twice) == (400, "invalid_request")


async def test_a_grant_that_the_client_may_not_use_or_nobody_may_is_refused(service: Service) -> None:
    silent = await new_client(service, scope="orders:read", grants=())
    assert oauth_error(await ask_token(service, silent)) == (400, "unauthorized_client")
    answer = await service.http.post("/oauth/token", data={"grant_type": "client_credentials", **PUBLIC})
    assert oauth_error(answer) == (400, "unauthorized_client")
    user = await service.register()
    answer = await ask_token(service, silent, grant_type="refresh_token", refresh_token=user.refresh_token)
    assert oauth_error(answer) == (400, "unauthorized_client")
    for grant_type in ("password", "authorization_code", "implicit", "Client_Credentials"):
        assert oauth_error(await ask_token(service, silent, grant_type=grant_type)) == (400, "unsupported_grant_type")
    for form in ({"scope": "orders:read"}, {"grant_type": ""}):
        answer = await service.http.post("/oauth/token", data=form, auth=silent.basic)
        assert oauth_error(answer) == (400, "invalid_request")


async def test_scope_narrows(service: Service, client: Credentials) -> None:
    token = await service_token(service, client, scope="orders:read")
    assert claims_of(token)["scope"] == "orders:read"


async def test_a_scope_that_is_not_the_clients_is_refused(service: Service, client: Credentials) -> None:
    for scope in ("orders:delete", "orders:read orders:delete", "profile", "auth:keys", "auth:*", "*", '"', " x"):
        assert oauth_error(await ask_token(service, client, scope=scope)) == (400, "invalid_scope"), scope


async def test_a_privileged_scope_is_given_only_when_asked_for_and_only_to_the_issuer(
    service: Service, client: Credentials
) -> None:
    assert claims_of(await service_token(service, client))["scope"] == "orders:read orders:write"
    for scope in ("auth:admin", "revocations:read", "auth:admin orders:read"):
        claims = claims_of(await service_token(service, client, scope=scope))
        assert set(claims["scope"].split()) == set(scope.split())
        assert claims["aud"] == _ISSUER
        for elsewhere in ("orders", ["orders", _ISSUER]):
            answer = await ask_token(service, client, scope=scope, audience=elsewhere)
            assert oauth_error(answer) == (400, "invalid_target")
        assert claims_of(await service_token(service, client, scope=scope, audience=_ISSUER))["aud"] == _ISSUER


async def test_audience_and_resource_narrow_and_may_come_several_times(service: Service, client: Credentials) -> None:
    assert claims_of(await service_token(service, client, audience="stock"))["aud"] == "stock"
    assert claims_of(await service_token(service, client, resource="orders"))["aud"] == "orders"
    both = await service_token(service, client, resource=["stock", "orders"])
    assert claims_of(both)["aud"] == ["orders", "stock"]
    assert claims_of(await service_token(service, client, audience="stock", resource="stock"))["aud"] == "stock"


async def test_an_audience_that_is_not_the_clients_is_refused(service: Service, client: Credentials) -> None:
    for name in ("audience", "resource"):
        for target in ("payments", "order", "orders ", "orders stock", _ISSUER, ["orders", "payments"]):
            assert oauth_error(await ask_token(service, client, **{name: target})) == (400, "invalid_target"), target


async def test_a_client_without_audiences_has_those_of_the_setting(start: Start) -> None:
    service = await start(audiences="orders,stock", access_token_ttl=60)
    client = await new_client(service)
    claims = claims_of(await service_token(service, client))
    assert (claims["aud"], claims["exp"] - claims["iat"]) == (["orders", "stock"], 60)
    assert claims_of(await service_token(service, client, audience="stock"))["aud"] == "stock"
    assert oauth_error(await ask_token(service, client, audience="payments")) == (400, "invalid_target")


@pytest.mark.parametrize("asked", [None, "", "a", "b a", "a c", "auth:admin", "a auth:admin", "c", "a,b", "A"])
@pytest.mark.parametrize("targets", [(), ("x",), ("x", "y"), ("z",), (_ISSUER,), ("x", _ISSUER)])
def test_nothing_that_is_asked_for_widens(asked: str | None, targets: tuple[str, ...]) -> None:
    client = Client(None, "c", frozenset(), frozenset({"a", "b", "auth:admin"}), ("x", "y"), None, None)  # type: ignore[arg-type]
    try:
        scope = granted_scope(client, asked)
        audiences = granted_audiences(client, targets, granted=scope, issuer=_ISSUER, default=("other",))
    except GrantRefused:
        return
    assert scope <= client.scope
    assert audiences == (_ISSUER,) if "auth:admin" in scope else set(audiences) <= {"x", "y"}
    assert "auth:admin" not in scope or (asked is not None and "auth:admin" in asked)
    assert audiences


async def test_a_service_token_opens_nothing_of_a_user(service: Service, client: Credentials) -> None:
    for scope in ("orders:read", "auth:admin"):
        token = await service_token(service, client, scope=scope)
        assert problem(await service.me(token)) == (401, "invalid_token")
        assert (await service.logout(token)).status_code == 204


async def test_a_refresh_by_the_public_client_rotates_as_any_other(service: Service) -> None:
    user = await service.register()
    form = {"grant_type": "refresh_token", "refresh_token": user.refresh_token, **PUBLIC}
    answer = await service.http.post("/oauth/token", data=form)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert generation_of(body["refresh_token"]) == 2
    assert (await service.me(body["access_token"])).status_code == 200
    again = await service.http.post("/oauth/token", data=form)
    assert generation_of(again.json()["refresh_token"]) == 2
    service.advance(seconds=WINDOW + 1)
    reuse = await service.http.post("/oauth/token", data=form)
    assert oauth_error(reuse) == (400, "invalid_grant")
    assert "used before" in reuse.json()["error_description"]
    assert problem(await service.refresh(body["refresh_token"])) == (401, "refresh_token_revoked")


async def test_every_refused_refresh_is_an_invalid_grant(service: Service) -> None:
    user, gone = await service.register(), await service.register()
    cookie = await service.http.post(
        "/user/login",
        json={"email": user.email, "password": "correct horse battery staple", "transport": "cookie"},
        headers={"Origin": "https://app.test"},
    )
    in_cookie = cookie.cookies["__Host-refresh_token"]
    service.http.cookies.clear()
    await service.logout(gone.refresh_token)
    refused = [user.access_token, "garbage", gone.refresh_token, in_cookie, user.refresh_token[:-3] + "AAA"]
    for refresh_token in refused:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **PUBLIC}
        assert oauth_error(await service.http.post("/oauth/token", data=form)) == (400, "invalid_grant")
    headers = {"Origin": "https://app.test", "Cookie": f"__Host-refresh_token={in_cookie}"}
    still = await service.http.post("/user/refresh-token", json={}, headers=headers)
    assert still.status_code == 200, "the refusal ended the cookie's session"
    missing = await service.http.post("/oauth/token", data={"grant_type": "refresh_token", **PUBLIC})
    assert oauth_error(missing) == (400, "invalid_request")
    service.http.cookies.clear()
    service.advance(seconds=7 * 86400)
    form = {"grant_type": "refresh_token", "refresh_token": user.refresh_token, **PUBLIC}
    assert oauth_error(await service.http.post("/oauth/token", data=form)) == (400, "invalid_grant")


async def test_a_refresh_token_of_another_client_is_an_invalid_grant_and_is_not_spent(start: Start) -> None:
    before = await start(first_party_client_id="app")
    user = await before.register()
    after = await start()  # on the same stores; only the name of the first-party client is another
    form = {"grant_type": "refresh_token", "refresh_token": user.refresh_token}
    assert oauth_error(await after.http.post("/oauth/token", data={**form, **PUBLIC})) == (400, "invalid_grant")
    again = await before.http.post("/oauth/token", data={**form, "client_id": "app"})
    assert generation_of(again.json()["refresh_token"]) == 2


async def test_the_scope_of_a_refresh_narrows_its_access_token_alone_and_never_widens(start: Start) -> None:
    service = await start(default_scopes="profile,orders:read")
    user = await service.register(scope="profile orders:read")
    form = {"grant_type": "refresh_token", "refresh_token": user.refresh_token, **PUBLIC}
    for scope in ("profile auth:admin", "orders:write"):
        answer = await service.http.post("/oauth/token", data={**form, "scope": scope})
        assert oauth_error(answer) == (400, "invalid_scope")
    narrowed = (await service.http.post("/oauth/token", data={**form, "scope": "profile"})).json()
    assert narrowed["scope"] == claims_of(narrowed["access_token"])["scope"] == "profile"
    assert generation_of(narrowed["refresh_token"]) == 2, "a refused scope has spent the token"
    form["refresh_token"] = narrowed["refresh_token"]
    assert (await service.http.post("/oauth/token", data=form)).json()["scope"] == "orders:read profile"


async def test_the_audience_of_a_refresh_narrows_and_never_widens(start: Start) -> None:
    service = await start(audiences="orders,stock")
    user = await service.register()
    await service.sql("UPDATE users SET granted_scopes = 'auth:admin'")
    admin = await service.login(user, scope="profile auth:admin")
    form = {"grant_type": "refresh_token", "refresh_token": user.refresh_token, **PUBLIC}
    for target in ("payments", _ISSUER, ["orders", "payments"]):
        answer = await service.http.post("/oauth/token", data={**form, "resource": target})
        assert oauth_error(answer) == (400, "invalid_target")
    assert await service.redis_keys("auth:session:*") == [], "a refused audience has spent the token"
    narrowed = (await service.http.post("/oauth/token", data={**form, "audience": "stock"})).json()
    assert claims_of(narrowed["access_token"])["aud"] == "stock"
    form["refresh_token"] = admin.refresh_token
    answer = await service.http.post("/oauth/token", data={**form, "audience": "orders"})
    assert oauth_error(answer) == (400, "invalid_target"), "a privileged token is for the issuer alone"
    privileged = (await service.http.post("/oauth/token", data=form)).json()["access_token"]
    assert claims_of(privileged)["aud"] == _ISSUER
    ordinary = await service.http.post("/oauth/token", data={**form, "scope": "profile", "audience": "orders"})
    assert claims_of(ordinary.json()["access_token"])["aud"] == "orders"
    await service.sql("UPDATE users SET granted_scopes = ''")
    less = (await service.http.post("/oauth/token", data={**form, "scope": "profile auth:admin"})).json()
    assert (less["scope"], claims_of(less["access_token"])["aud"]) == ("profile", ["orders", "stock"])


async def test_a_page_of_an_allowed_origin_may_use_token_and_revoke(service: Service) -> None:
    user = await service.register()
    for path, form in (
        ("/oauth/token", {"grant_type": "refresh_token", "refresh_token": user.refresh_token}),
        ("/oauth/revoke", {"token": user.refresh_token}),
    ):
        asked = {"Origin": "https://app.test", "Access-Control-Request-Method": "POST"}
        assert (await service.http.options(path, headers=asked)).status_code == 200
        answer = await service.http.post(path, data={**form, **PUBLIC}, headers={"Origin": "https://app.test"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.test"
        foreign = await service.http.post(path, data={**form, **PUBLIC}, headers={"Origin": "https://evil.test"})
        assert "access-control-allow-origin" not in foreign.headers


async def test_an_empty_secret_is_as_good_as_none_in_either_place(service: Service, client: Credentials) -> None:
    user = await service.register()
    grant = {"grant_type": "refresh_token", "refresh_token": user.refresh_token}
    for request in (
        {"data": grant, "auth": ("web", "")},
        {"data": {**grant, **PUBLIC, "client_secret": ""}},
        {"data": {**grant, **PUBLIC}},
    ):
        assert (await service.http.post("/oauth/token", **request)).status_code == 200
    for name, secret in (("web", "x"), (client.client_id, ""), ("", "")):
        answer = await service.http.post("/oauth/token", data=grant, auth=(name, secret))
        assert oauth_error(answer) == (401, "invalid_client"), (name, secret)
    answer = await service.http.post("/oauth/introspect", data={"token": "x"}, auth=("web", ""))
    assert oauth_error(answer) == (401, "invalid_client"), "a client that cannot prove who it is"


async def test_no_body_at_all_is_an_empty_form(service: Service) -> None:
    client = await new_client(service)
    for path, required in zip(_PATHS, ("grant_type", "token", "token"), strict=True):
        answer = await service.http.post(path, auth=client.basic)
        assert oauth_error(answer) == (400, "invalid_request")
        assert f"{required} is required" in answer.json()["error_description"]


async def test_another_type_than_a_form_is_415(service: Service) -> None:
    for path in _PATHS:
        latin = f"{MEDIA_TYPE}; charset=iso-8859-1"
        for content_type in (None, "application/json", "multipart/form-data; boundary=x", "text/plain", latin):
            headers = {"Content-Type": content_type} if content_type else {}
            answer = await service.http.post(path, content=b"a=b", headers=headers)
            assert oauth_error(answer) == (415, "invalid_request")


async def test_a_form_that_is_too_large_is_413_and_one_of_too_many_fields_400(service: Service) -> None:
    for path in _PATHS:
        for large in (b"token=" + b"x" * 16384, b"x=y&" * 100_000):
            assert oauth_error(await _post(service, path, large)) == (413, "invalid_request")
        for many in ("&".join(f"x{number}=y" for number in range(33)), "&" * 10_000):
            answer = await _post(service, path, many.encode())
            assert oauth_error(answer) == (400, "invalid_request")
            assert answer.json()["error_description"] == "The body holds more than 32 parameters."


async def test_what_is_not_a_form_is_refused(service: Service) -> None:
    bodies = (b"token=%", b"token=%f", b"token=%zz", b"token=%ff", b"\xff=1", b"token=a%00b", b"%00=1", b"x=%u0041")
    for path in _PATHS:
        for body in bodies:
            answer = await _post(service, path, body)
            assert oauth_error(answer) == (400, "invalid_request")
            assert answer.json()["error_description"] == "The body is not a form."


async def test_a_parameter_twice_is_refused_and_a_strange_ones_name_not_repeated(service: Service) -> None:
    for path in _PATHS:
        ours = await _post(service, path, b"client_id=web&client_id=web")
        assert oauth_error(ours) == (400, "invalid_request")
        assert "client_id is there twice" in ours.json()["error_description"]
        strange = await _post(service, path, b"kanarie=1&kanarie=2")
        assert oauth_error(strange) == (400, "invalid_request")
        assert "kanarie" not in strange.text


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=8))
def test_what_was_encoded_is_what_is_read(pairs: list[tuple[str, str]]) -> None:
    wanted: dict[str, list[str]] = {}
    for name, value in pairs:
        if value:
            wanted.setdefault(name, []).append(value)
    body = urlencode(pairs).encode()
    if any("\0" in text for pair in pairs for text in pair):
        with pytest.raises(InvalidRequest):
            form_values(body)
    else:
        assert form_values(body) == wanted


@given(st.binary(max_size=40) | st.text("ab=&+%0aC3", max_size=40).map(str.encode))
def test_any_bytes_are_a_form_that_means_the_same_to_others_or_are_refused(body: bytes) -> None:
    try:
        values = form_values(body)
    except InvalidRequest:
        return
    assert values == parse_qs(body.decode("ascii", "surrogateescape"), errors="strict")


async def test_unknown_and_empty_parameters_are_ignored(service: Service, client: Credentials) -> None:
    form = {"grant_type": "client_credentials", "token": "x", "unknown": "y", "scope": "", "token_type_hint": ""}
    for path in _PATHS:
        answer = await _post(service, path, f"{urlencode(form)}&&=z&w&client_secret=".encode(), auth=client.basic)
        assert answer.status_code == 200, answer.text


async def test_a_removed_client_is_an_invalid_client_at_every_endpoint(service: Service, client: Credentials) -> None:
    [found] = [found for found in await service.app.parts.clients.page() if str(found.id) == client.client_id]
    await service.app.parts.clients.remove(found.id, by=OPERATOR)
    assert oauth_error(await ask_token(service, client)) == (401, "invalid_client")
    assert oauth_error(await revoke(service, "x", by=client)) == (401, "invalid_client")
    answer = await service.http.post("/oauth/introspect", data={"token": "x"}, auth=client.basic)
    assert oauth_error(answer) == (401, "invalid_client")


async def _post(service: Service, path: str, body: bytes, **options: Any) -> httpx2.Response:
    return await service.http.post(path, content=body, headers={"Content-Type": MEDIA_TYPE}, **options)
