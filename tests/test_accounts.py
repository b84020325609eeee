"""Accounts over HTTP: registering, reading, changing, and what a password change does to other sessions."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from auth_service.audit import OPERATOR
from tests.support.service import PASSWORD, Service, Start, problem
from tests.support.tokens import claims_of, header_of


async def test_registering_answers_tokens_of_a_new_session(service: Service) -> None:
    answer = await service.http.post(
        "/user/register", json={"username": "Ada", "email": "Ada@Example.com", "password": PASSWORD}
    )
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body.keys() == {
        "access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in", "scope", "user",
    }  # fmt: skip
    assert body["token_type"] == "Bearer"
    assert (body["expires_in"], body["refresh_expires_in"]) == (600, 604800)
    assert body["user"] == {"id": body["user"]["id"], "username": "Ada", "email": "Ada@Example.com"}


async def test_both_tokens_say_what_the_contract_says(service: Service) -> None:
    user = await service.register()
    key, _standby = (await service.http.get("/.well-known/jwks.json")).json()["keys"]
    access, refresh = claims_of(user.access_token), claims_of(user.refresh_token)
    assert header_of(user.access_token) == {"alg": "RS256", "typ": "at+jwt", "kid": key["kid"]}
    assert header_of(user.refresh_token) == {"alg": "RS256", "typ": "rt+jwt", "kid": key["kid"]}
    assert access == {
        "iss": "https://auth.test",
        "sub": user.id,
        "aud": "https://auth.test",
        "client_id": "web",
        "scope": "profile",
        "sid": refresh["sid"],
        "jti": access["jti"],
        "iat": access["iat"],
        "exp": access["iat"] + 600,
        "auth_time": access["iat"],
        "preferred_username": user.username,
    }
    assert refresh == {
        "iss": "https://auth.test",
        "aud": "https://auth.test",
        "sub": user.id,
        "client_id": "web",
        "sid": access["sid"],
        "gen": 1,
        "jti": refresh["jti"],
        "iat": access["iat"],
        "exp": access["iat"] + 604800,
    }


async def test_the_email_is_in_the_access_token_only_by_setting(start: Start) -> None:
    service: Service = await start(access_token_email=True, audiences="orders, billing")
    user = await service.register()
    claims = claims_of(user.access_token)
    assert (claims["email"], claims["email_verified"]) == (user.email, False)
    assert claims["aud"] == ["orders", "billing"]


@pytest.mark.parametrize("name", ["email", "username"])
async def test_a_user_logs_in_by_either_name_however_it_is_spelt(service: Service, name: str) -> None:
    await service.register(username="Straße", email="Ada.Löve@Example.com")
    spelt = {"email": "ADA.LO\u0308VE@example.COM", "username": "STRASSE"}[name]
    answer = await service.http.post("/user/login", json={name: spelt, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    [row] = await service.sql("SELECT last_login_at FROM users")
    assert row["last_login_at"] is not None


@pytest.mark.parametrize(
    ("field", "other"),
    [("email", {"email": "ＡDA@EXAMPLE.COM", "username": "b"}), ("username", {"email": "b@c.de", "username": "ａDA"})],
)
async def test_a_taken_name_is_refused_however_it_is_spelt(service: Service, field: str, other: dict[str, str]) -> None:
    await service.register(username="ada", email="ada@example.com")
    answer = await service.http.post("/user/register", json={**other, "password": PASSWORD})
    assert problem(answer) == (409, f"{field}_taken")


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"username": "a@b"}, "username"),
        ({"username": " ada"}, "username"),
        ({"username": "a\u200bda"}, "username"),
        ({"username": "a\nda"}, "username"),
        ({"username": "x" * 65}, "username"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@b@c"}, "email"),
        ({"email": "a b@c.de"}, "email"),
        ({"email": "@example.com"}, "email"),
    ],
)
async def test_a_name_that_cannot_be_used_is_named(service: Service, members: dict[str, str], field: str) -> None:
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, **members}
    answer = await service.http.post("/user/register", json=body)
    assert problem(answer) == (400, "invalid_request")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    "password", ["short", "elevenchars", "Ada@Example.com", "ﬁﬁﬁﬁﬁ", "\N{WINKING FACE}" * 11], ids=ascii
)
async def test_a_weak_password_is_refused_with_the_reason(service: Service, password: str) -> None:
    body = {"username": "ada", "email": "ada@example.com", "password": password}
    answer = await service.http.post("/user/register", json=body)
    assert problem(answer) == (422, "weak_password")
    assert answer.json()["errors"][0]["field"] == "password"
    assert await service.sql("SELECT 1 FROM users") == []


async def test_a_long_password_of_any_script_is_never_truncated(service: Service) -> None:
    password = "\N{WINKING FACE}" * 128 + "four words and a wink " + "é" * 100
    user = await service.register(password=password)
    answers = [
        await service.http.post("/user/login", json={"email": user.email, "password": text})
        for text in (password, password.replace("é", "e\u0301"), password[:-1], password[:72])
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 401]


async def test_unknown_wrong_and_disabled_are_answered_alike(service: Service) -> None:
    user, disabled = await service.register(), await service.register()
    await service.app.parts.users.disable((await service.app.parts.users.locate(disabled.username)).id, by=OPERATOR)
    answers = [
        await service.http.post("/user/login", json=body)
        for body in (
            {"email": "nobody@example.com", "password": PASSWORD},
            {"email": user.email, "password": "another password"},
            {"email": disabled.email, "password": PASSWORD},
        )
    ]
    assert {problem(answer) for answer in answers} == {(401, "invalid_credentials")}
    assert len({answer.text for answer in answers}) == 1
    assert len({frozenset(answer.headers.keys()) for answer in answers}) == 1


async def test_me_reads_the_user_as_they_are_now(service: Service) -> None:
    user = await service.register()
    answer = await service.http.patch("/user/me", json={"username": "Grace"}, headers=user.bearer)
    assert answer.status_code == 200
    assert answer.json() == {"id": user.id, "username": "Grace", "email": user.email}
    assert (await service.me(user.access_token)).json() == answer.json()


async def test_a_new_email_needs_the_current_password(service: Service) -> None:
    user = await service.register()
    body = {"email": "new@example.com"}
    refused = await service.http.patch("/user/me", json=body, headers=user.bearer)
    assert problem(refused) == (400, "invalid_request")
    assert refused.json()["errors"] == [{"field": "current_password", "message": "is required"}]
    wrong = await service.http.patch("/user/me", json=body | {"current_password": "wrong"}, headers=user.bearer)
    assert problem(wrong) == (401, "invalid_credentials")
    right = await service.http.patch("/user/me", json=body | {"current_password": PASSWORD}, headers=user.bearer)
    assert right.json()["email"] == "new@example.com"


_CHANGES = [
    ("PATCH", "/user/me", {"username": "changed"}),
    ("POST", "/user/password", {"current_password": PASSWORD, "new_password": "another correct horse"}),
]


@pytest.mark.parametrize(("method", "path", "members"), _CHANGES)
async def test_a_stranger_is_asked_who_they_are_whatever_the_body_is(
    service: Service, method: str, path: str, members: dict[str, str]
) -> None:
    requests: list[dict[str, Any]] = [{"json": members}, {"json": {}}, {"content": b"{"}, {"data": {"a": "b"}}, {}]
    for request in requests:
        for headers in ({}, {"Authorization": "Bearer nonsense"}):
            answer = await service.http.request(method, path, headers=headers, **request)
            assert problem(answer) == (401, "invalid_token"), request
    answer = await service.http.request(method, path, content=b"x" * 16385)
    assert problem(answer) == (413, "payload_too_large")


@pytest.mark.parametrize(("method", "path", "members"), _CHANGES)
async def test_a_session_that_ends_while_the_body_is_under_way_changes_nothing(
    service: Service, method: str, path: str, members: dict[str, str]
) -> None:
    user = await service.register()

    async def body() -> AsyncIterator[bytes]:
        content = json.dumps(members).encode()
        yield content[:5]
        assert (await service.logout(user.refresh_token)).status_code == 204
        yield content[5:]

    headers = {**user.bearer, "Content-Type": "application/json"}
    answer = await service.http.request(method, path, content=body(), headers=headers)
    assert problem(answer) == (401, "invalid_token")
    assert (await service.login(user)).username == user.username


async def test_a_taken_name_cannot_be_taken_by_a_change(service: Service) -> None:
    user, other = await service.register(), await service.register()
    answer = await service.http.patch("/user/me", json={"username": other.username.upper()}, headers=user.bearer)
    assert problem(answer) == (409, "username_taken")


async def test_a_password_change_ends_every_other_session(service: Service) -> None:
    user = await service.register()
    other = await service.login(user)
    body = {"current_password": PASSWORD, "new_password": "a new and better one"}
    answer = await service.http.post("/user/password", json=body, headers=user.bearer)
    assert (answer.status_code, answer.content) == (204, b"")
    assert problem(await service.refresh(other.refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(other.access_token)) == (401, "invalid_token")
    assert (await service.refresh(user.refresh_token)).status_code == 200
    old = await service.http.post("/user/login", json={"email": user.email, "password": PASSWORD})
    new = await service.http.post("/user/login", json={"email": user.email, "password": "a new and better one"})
    assert (old.status_code, new.status_code) == (401, 200)


async def test_a_password_change_needs_the_current_password_and_a_strong_new_one(service: Service) -> None:
    user = await service.register()
    cases = {
        ("wrong", "a new and better one"): (401, "invalid_credentials"),
        (PASSWORD, "short"): (422, "weak_password"),
    }
    for (current, new), expected in cases.items():
        answer = await service.http.post(
            "/user/password", json={"current_password": current, "new_password": new}, headers=user.bearer
        )
        assert problem(answer) == expected
    assert (await service.login(user)).id == user.id


async def test_a_disabled_user_can_neither_refresh_nor_use_an_access_token(service: Service) -> None:
    user = await service.register()
    account = await service.app.parts.users.locate(user.username)
    await service.app.parts.users.disable(account.id, by=OPERATOR)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    await service.app.parts.users.enable(account.id, by=OPERATOR)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    assert (await service.login(user)).id == user.id


async def test_a_deleted_user_is_gone_and_the_journal_remembers_their_sessions(service: Service) -> None:
    user = await service.register()
    account = await service.app.parts.users.locate(user.email)
    await service.app.parts.users.delete(account.id, by=OPERATOR)
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    rows = await service.sql("SELECT kind, claim, reason FROM revocations")
    assert [tuple(row) for row in rows] == [("s", claims_of(user.access_token)["sid"], "deleted")]


async def test_scopes_are_what_was_asked_for_and_is_held_now(service: Service) -> None:
    user = await service.register()
    account = await service.app.parts.users.locate(user.email)
    await service.app.parts.users.grant(account.id, add=["orders:read", "auth:admin"], by=OPERATOR)
    plain = await service.login(user)
    assert claims_of(plain.access_token)["scope"] == "orders:read profile"
    narrow = await service.login(user, scope="orders:read payroll:write")
    assert claims_of(narrow.access_token)["scope"] == "orders:read"
    await service.app.parts.users.grant(account.id, remove=["orders:read"], by=OPERATOR)
    refreshed = await service.refresh(narrow.refresh_token)
    assert (refreshed.json()["scope"], claims_of(refreshed.json()["access_token"])["scope"]) == ("", "")


async def test_a_privileged_scope_is_only_given_when_asked_for_and_only_to_the_issuer(start: Start) -> None:
    service: Service = await start(audiences="orders")
    user = await service.register()
    asked_in_vain = await service.login(user, scope="auth:admin profile")
    assert claims_of(asked_in_vain.access_token)["scope"] == "profile"
    account = await service.app.parts.users.locate(user.email)
    await service.app.parts.users.grant(account.id, add=["auth:admin"], by=OPERATOR)
    claims = claims_of((await service.login(user, scope="auth:admin profile")).access_token)
    assert (claims["scope"], claims["aud"]) == ("auth:admin profile", "https://auth.test")
    assert claims_of((await service.login(user)).access_token)["aud"] == "orders"
