"""From which pages the cookie may be set and used: every kind of caller on every kind of request; CORS for them."""

import json
import re
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.support.callers import APP, CALLERS, NOT_ALLOWED, OWN
from tests.support.oauth import new_client
from tests.support.service import PASSWORD, Service, SignedIn, problem

_NAME = "__Host-refresh_token"
_FROM_APP = CALLERS["an allowed origin"].headers


@dataclass(frozen=True, slots=True)
class _Held:
    """What a caller could send: the cookie of one session of a user, and the tokens of another."""

    user: SignedIn
    cookie: str


@dataclass(frozen=True, slots=True)
class _Request:
    """One kind of request. `members` are of its JSON; a value in braces names what is filled in."""

    path: str
    status: int
    members: dict[str, str] | None = None
    form: dict[str, str] | None = None
    method: str = "POST"
    cookie: bool = False
    bearer: bool = False
    guarded: bool = True
    """Whether it sets or uses the cookie, and so depends on who calls."""
    sets: bool = False
    """Whether its answer sets the cookie, or clears it."""


_NEW = {"username": "{new}", "email": "{new}@example.com", "password": PASSWORD}
_KNOWN = {"email": "{email}", "password": PASSWORD}
_BODY_TOKEN = {"refresh_token": "{refresh_token}"}
_COOKIE = {"transport": "cookie"}

_REQUESTS = {
    "register for the cookie": _Request("/user/register", 201, _NEW | _COOKIE, sets=True),
    "register for the cookie with one": _Request("/user/register", 201, _NEW | _COOKIE, cookie=True, sets=True),
    "register for the body with a cookie": _Request("/user/register", 201, _NEW, cookie=True),
    "register for the body": _Request("/user/register", 201, _NEW, guarded=False),
    "login for the cookie": _Request("/user/login", 200, _KNOWN | _COOKIE, sets=True),
    "login for the cookie with one": _Request("/user/login/", 200, _KNOWN | _COOKIE, cookie=True, sets=True),
    "login for the body with a cookie": _Request("/user/login", 200, _KNOWN, cookie=True),
    "login for the body": _Request("/user/login", 200, _KNOWN, guarded=False),
    "refresh by cookie": _Request("/user/refresh-token", 200, {}, cookie=True, sets=True),
    "refresh by cookie without a body": _Request("/user/refresh-token/", 200, cookie=True, sets=True),
    "refresh by body with a cookie": _Request("/user/refresh-token", 200, _BODY_TOKEN, cookie=True),
    "refresh by body": _Request("/user/refresh-token", 200, _BODY_TOKEN, guarded=False),
    # A script that got hold of the token gains nothing by taking it out of the cookie.
    "refresh by body of a cookie's session": _Request(
        "/user/refresh-token", 200, {"refresh_token": "{cookie}"}, sets=True
    ),
    "logout by cookie": _Request("/user/logout", 204, {}, cookie=True, sets=True),
    "logout by cookie without a body": _Request("/user/logout/", 204, cookie=True, sets=True),
    "logout by body with a cookie": _Request("/user/logout", 204, _BODY_TOKEN, cookie=True, sets=True),
    "logout by bearer with a cookie": _Request("/user/logout", 204, cookie=True, bearer=True, sets=True),
    "logout by body": _Request("/user/logout", 204, _BODY_TOKEN, guarded=False),
    "logout by bearer": _Request("/user/logout", 204, bearer=True, guarded=False),
    "me with a cookie": _Request("/user/me", 200, method="GET", cookie=True, bearer=True, guarded=False),
    "me by cookie alone": _Request("/user/me", 401, method="GET", cookie=True, guarded=False),
    "change by cookie alone": _Request(
        "/user/me", 401, {"username": "taken"}, method="PATCH", cookie=True, guarded=False
    ),
    "change of password by cookie alone": _Request(
        "/user/password", 401, {"current_password": PASSWORD, "new_password": PASSWORD}, cookie=True, guarded=False
    ),
    "sessions by cookie alone": _Request("/user/sessions", 401, method="GET", cookie=True, guarded=False),
    "ending all by cookie alone": _Request("/user/sessions", 401, method="DELETE", cookie=True, guarded=False),
    "an OAuth refresh with a cookie": _Request(
        "/oauth/token",
        200,
        form={"grant_type": "refresh_token", "client_id": "web", **_BODY_TOKEN},
        cookie=True,
        guarded=False,
    ),
    "an OAuth refresh by cookie alone": _Request(
        "/oauth/token", 400, form={"grant_type": "refresh_token", "client_id": "web"}, cookie=True, guarded=False
    ),
    "an OAuth revocation of nothing with a cookie": _Request(
        "/oauth/revoke", 200, form={"token": "nothing", "client_id": "web"}, cookie=True, guarded=False
    ),
    "a revocation by cookie alone": _Request(
        "/oauth/revoke", 400, form={"client_id": "web"}, cookie=True, guarded=False
    ),
    "a look at the keys with a cookie": _Request(
        "/.well-known/jwks.json", 200, method="GET", cookie=True, guarded=False
    ),
}


@pytest.mark.parametrize("kind", _REQUESTS)
async def test_the_cookie_is_set_and_used_for_known_pages_alone_and_a_refusal_changes_nothing(
    service: Service, kind: str
) -> None:
    request = _REQUESTS[kind]
    user = await service.register()
    held = await _holding(service, user)
    # Where it is all the same who calls, some of them show it.
    callers = list(CALLERS.items())[:: 1 if request.guarded else 5]
    for number, (name, caller) in enumerate(callers):
        before = await _state(service)
        answer = await _send(service, request, held, caller.headers, new=f"new{number}")
        if request.guarded and caller.refusal is not None:
            assert problem(answer) == (403, caller.refusal), name
            assert "set-cookie" not in answer.headers, name
            assert await _state(service) == before, name
            continue
        assert answer.status_code == request.status, (name, answer.text)
        assert ("set-cookie" in answer.headers) == request.sets, name
        if request.status >= 400:
            assert await _state(service) == before, name
        if request.guarded:
            held = await _holding(service, user)  # what it spent or ended is not what the next caller is to hold


async def test_a_cookie_alone_is_no_credential_of_a_client(service: Service) -> None:
    held = await _holding(service, await service.register())
    client = await new_client(service)
    answer = await service.http.post(
        "/oauth/introspect", headers=[(b"Cookie", f"{_NAME}={held.cookie}".encode()), *_FROM_APP], auth=client.basic
    )
    assert answer.status_code in (400, 415)
    answer = await service.http.post(
        "/oauth/introspect", data={"token": held.cookie}, headers={"Cookie": f"{_NAME}={held.cookie}"}
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        "",
    ],
)
async def test_a_body_that_is_not_said_to_be_json_is_415_before_anything_is_looked_at(
    service: Service, content_type: str
) -> None:
    # The first four need no preflight: a form of any page can send them, here with JSON inside.
    user = await service.register()
    held = await _holding(service, user)
    for kind, request in _REQUESTS.items():
        if request.members is None or request.method != "POST" or request.path == "/user/password":
            continue
        before = await _state(service)
        for headers in (_FROM_APP, CALLERS["a foreign site"].headers):
            typed = [*headers, (b"Content-Type", content_type.encode())]
            answer = await _send(service, request, held, typed, new="new")
            assert problem(answer) == (415, "unsupported_media_type"), kind
            assert "set-cookie" not in answer.headers
        assert await _state(service) == before


_PREFLIGHT = [(b"Access-Control-Request-Method", b"POST"), (b"Access-Control-Request-Headers", b"content-type")]


async def test_cors_names_the_callers_exact_origin_with_credentials_or_nobody(service: Service) -> None:
    for name, caller in CALLERS.items():
        if len(caller.origins) > 1:
            continue  # no browser sends two, and CORS is for browsers alone
        allowed = next((origin for origin in (OWN, APP) if caller.origins == (origin.encode(),)), None)
        for path in ("/user/me", "/user/login", "/nowhere", "/.well-known/jwks.json"):
            answer = await service.http.get(path, headers=caller.headers)
            assert answer.headers.get("access-control-allow-origin") == allowed, name
            assert "Origin" in answer.headers["vary"].split(", "), name
            if allowed:
                assert answer.headers["access-control-allow-credentials"] == "true"
        if not caller.origins:
            continue
        preflight = await service.http.options("/user/login", headers=[*caller.headers, *_PREFLIGHT])
        assert preflight.headers.get("access-control-allow-origin") == allowed, name
        assert "Origin" in preflight.headers["vary"].split(", "), name
        if allowed:
            assert preflight.status_code == 200
            assert preflight.headers["access-control-allow-credentials"] == "true"
            assert "*" not in preflight.headers["access-control-allow-headers"]
            assert preflight.headers["access-control-allow-methods"] == "GET, POST, PATCH, DELETE"
        else:
            assert problem(preflight) == (403, NOT_ALLOWED), name
            assert not [header for header in preflight.headers if header.startswith("access-control-")], name


@pytest.mark.parametrize(
    "asked",
    [
        {"Access-Control-Request-Method": "PUT"},
        {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-anything"},
    ],
)
async def test_a_preflight_for_what_no_page_needs_is_refused_as_a_problem(
    service: Service, asked: dict[str, str]
) -> None:
    answer = await service.http.options("/user/login", headers=[*_FROM_APP, *_encoded(asked)])
    assert problem(answer) == (400, "invalid_request")
    assert "access-control-allow-origin" not in answer.headers
    assert not any(value in answer.text for value in asked.values())


async def test_a_page_may_read_why_it_was_refused(service: Service) -> None:
    answer = await service.http.post("/user/login", json={}, headers=_FROM_APP)
    assert answer.status_code == 400
    assert answer.headers["access-control-allow-origin"] == APP
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert {"Retry-After", "WWW-Authenticate", "X-Request-ID"} <= exposed


async def _holding(service: Service, user: SignedIn) -> _Held:
    """A new session of `user` for the body, and one for the cookie."""
    body = {"email": user.email, "password": PASSWORD, "transport": "cookie"}
    answer = await service.http.post("/user/login", json=body, headers=_FROM_APP)
    assert answer.status_code == 200, answer.text
    cookie = service.http.cookies[_NAME]
    service.http.cookies.clear()
    return _Held(await service.login(user), cookie)


async def _send(
    service: Service, request: _Request, held: _Held, headers: list[tuple[bytes, bytes]], *, new: str
) -> httpx2.Response:
    known = {"new": new, "email": held.user.email, "refresh_token": held.user.refresh_token, "cookie": held.cookie}

    def filled(members: dict[str, str]) -> dict[str, str]:
        return {name: re.sub(r"\{(\w+)\}", lambda match: known[match[1]], text) for name, text in members.items()}

    sent = list(headers)
    if request.cookie:
        sent.append((b"Cookie", f"theme=dark; {_NAME}={held.cookie}".encode()))
    if request.bearer:
        sent += _encoded(held.user.bearer)
    body: dict[str, Any] = {}
    if request.members is not None:
        body = {"content": json.dumps(filled(request.members))}
        if not any(name == b"Content-Type" for name, _ in headers):
            sent.append((b"Content-Type", b"application/json"))
    elif request.form is not None:
        body = {"data": filled(request.form)}
    answer = await service.http.request(request.method, request.path, headers=sent, **body)
    service.http.cookies.clear()
    return answer


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _state(service: Service) -> list[Any]:
    """All that a request could change: rows of PostgreSQL, and the generations in Redis."""
    rows = [
        [tuple(row) for row in await service.sql(statement)]
        for statement in (
            "SELECT id, username, email, password_hash, last_login_at FROM users ORDER BY id",
            "SELECT id, user_id, transport, revoked_at FROM sessions ORDER BY id",
            "SELECT kind, claim FROM revocations ORDER BY claim",
            "SELECT count(*) FROM audit_events",
        )
    ]
    names = sorted([name async for name in service.redis.scan_iter("auth:session:*")])
    return [*rows, [(name, await service.redis.get(name)) for name in names]]
