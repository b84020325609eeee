"""Malformed bodies on every route that takes one: a clear refusal that repeats nothing, and nothing changed by it.

The vectors are in `data/malformed_bodies.json`; what JSON cannot carry (bytes, sizes, depths) is made here.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.admin import administrator
from tests.support.service import PASSWORD, Service, SignedIn, problem

_DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "malformed_bodies.json").read_text("ascii"))
_MARKER: str = _DATA["marker"]
_DIGITS: str = _DATA["digits"]
_LIMIT = 16 * 1024
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class _Route:
    """A route that takes a body, with a good one: in a test, only what it is about is wrong."""

    method: str
    path: str
    good: Callable[[SignedIn], dict[str, Any]]
    fields: frozenset[str]
    required: frozenset[str] = frozenset()
    body_required: bool = True
    any_text: bool = False
    """Whether any text will do: a credential to log out with, though it be no good."""

    async def send(
        self, service: Service, user: SignedIn, content: bytes | AsyncIterator[bytes], headers: dict[str, str] = _JSON
    ) -> httpx2.Response:
        return await service.http.request(self.method, self.path, content=content, headers={**user.bearer, **headers})

    def with_member(self, user: SignedIn, field: str, value: object) -> bytes:
        """The good body, with `value` as its member `field`."""
        members = self.good(user)
        if field == "username" and self.path == "/user/login":
            del members["email"]
        return json.dumps({**members, field: value}).encode()


_ROUTES = {
    "register": _Route(
        "POST",
        "/user/register",
        lambda _user: {"username": "newcomer", "email": "newcomer@example.com", "password": PASSWORD},
        frozenset({"username", "email", "password", "transport", "scope"}),
        frozenset({"username", "email", "password"}),
    ),
    "login": _Route(
        "POST",
        "/user/login",
        lambda user: {"email": user.email, "password": PASSWORD, "transport": "body", "scope": "profile"},
        frozenset({"username", "email", "password", "transport", "scope"}),
        frozenset({"password"}),
    ),
    "refresh-token": _Route(
        "POST",
        "/user/refresh-token",
        lambda user: {"refresh_token": user.refresh_token},
        frozenset({"refresh_token"}),
        body_required=False,
    ),
    "logout": _Route(
        "POST",
        "/user/logout",
        lambda user: {"refresh_token": user.refresh_token},
        frozenset({"refresh_token"}),
        body_required=False,
        any_text=True,
    ),
    "me": _Route(
        "PATCH",
        "/user/me",
        lambda _user: {"username": "renamed", "email": "renamed@example.com", "current_password": PASSWORD},
        frozenset({"username", "email", "current_password"}),
    ),
    "password": _Route(
        "POST",
        "/user/password",
        lambda _user: {"current_password": PASSWORD, "new_password": "another horse, another battery"},
        frozenset({"current_password", "new_password"}),
        frozenset({"current_password", "new_password"}),
    ),
}

every_route = pytest.mark.parametrize("route", _ROUTES.values(), ids=_ROUTES.keys())


class _Refusals:
    """Sends malformed bodies to one route, and finds what is wrong with the answers."""

    def __init__(self, service: Service, user: SignedIn, route: _Route) -> None:
        self._service = service
        self._user = user
        self._route = route

    async def expect(
        self,
        content: bytes | AsyncIterator[bytes],
        status: int,
        code: str,
        *,
        field: str | None = None,
        headers: dict[str, str] = _JSON,
        about: str,
    ) -> None:
        """The answer must be this refusal. `field`: the only one that may be named, and must be."""
        answer = await self._route.send(self._service, self._user, content, headers)
        assert problem(answer) == (status, code), (about, answer.text)
        named = [entry["field"] for entry in answer.json().get("errors", [])]
        if field is not None:
            assert named == [field], (about, answer.text)
        assert set(named) <= self._route.fields, (about, answer.text)
        # Sentences for people, not what pydantic tells who writes a model.
        assert not re.search(r"\b(Input|Value|String|List|should|valid|validation)\b", answer.text), (
            about,
            answer.text,
        )
        shown = answer.text + repr(answer.headers.raw)
        for secret in (_MARKER, _DIGITS, PASSWORD, self._user.refresh_token, self._user.access_token):
            assert secret not in shown, (about, answer.text)


@pytest.fixture
async def user(service: Service) -> AsyncIterator[SignedIn]:
    """A signed-in user. When the test ends, every row of the database must be what it was at its beginning."""
    signed_in = await service.register()
    before = await _rows(service)
    yield signed_in
    assert await _rows(service) == before


@every_route
async def test_the_good_body_of_the_other_tests_is_accepted(service: Service, route: _Route) -> None:
    for content_type in _DATA["right_content_types"]:
        user = await service.register()
        answer = await route.send(
            service, user, json.dumps(route.good(user)).encode(), headers={"Content-Type": content_type}
        )
        assert answer.status_code in (200, 201, 204), (content_type, answer.text)
        await service.sql("DELETE FROM users WHERE username IN ('newcomer', 'renamed')")


@every_route
async def test_what_is_not_an_object_of_known_members_is_refused(
    service: Service, user: SignedIn, route: _Route
) -> None:
    refusals = _Refusals(service, user, route)
    for about, text in _DATA["bodies"].items():
        await refusals.expect(text.encode(), 400, "invalid_request", about=about)


@every_route
async def test_an_unknown_member_beside_good_ones_is_refused_without_its_name(
    service: Service, user: SignedIn, route: _Route
) -> None:
    for name in (_MARKER, f"{_MARKER}\r\nX: y", f"{_MARKER}\ud800", "", "constructor"):
        members = {**route.good(user), name: _MARKER}
        await _Refusals(service, user, route).expect(
            json.dumps(members).encode(), 400, "invalid_request", about=repr(name)
        )


@every_route
async def test_what_is_not_utf_8_is_refused(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    good = json.dumps({**route.good(user), min(route.fields): _MARKER})
    for about, content in {
        "UTF-16 with a mark": good.encode("utf-16"),
        "UTF-16, little end first": good.encode("utf-16-le"),
        "UTF-16, big end first": good.encode("utf-16-be"),
        "UTF-32": good.encode("utf-32"),
        "a byte order mark": good.encode("utf-8-sig"),
        "UTF-7": b"+AHsAIgBh-" + good.encode(),
        "a byte that is never UTF-8": good.replace(_MARKER, f"{_MARKER}\udcff").encode(errors="surrogateescape"),
        "a byte missing": good.replace(_MARKER, f"{_MARKER}\udcc3").encode(errors="surrogateescape"),
        "an overlong slash": good.replace(_MARKER, f"{_MARKER}\udcc0\udcaf").encode(errors="surrogateescape"),
        "a raw surrogate": good.replace(_MARKER, f"{_MARKER}\ud800").encode(errors="surrogatepass"),
        "a raw surrogate pair": good.replace(_MARKER, f"{_MARKER}\ud83d\ude00").encode(errors="surrogatepass"),
        "NULs": b"\0" * 64,
        "gzip": b"\x1f\x8b\x08\x00" + good.encode(),
    }.items():
        await refusals.expect(content, 400, "invalid_request", about=about)


@every_route
async def test_a_value_of_the_wrong_type_is_refused_by_the_name_of_its_field(
    service: Service, user: SignedIn, route: _Route
) -> None:
    refusals = _Refusals(service, user, route)
    for field in sorted(route.fields):
        for about, value in _DATA["wrong_values"].items():
            if route.any_text and isinstance(value, str):
                continue
            await refusals.expect(
                route.with_member(user, field, value), 400, "invalid_request", field=field, about=f"{field}: {about}"
            )


@every_route
async def test_text_that_a_field_cannot_hold_is_refused_by_the_name_of_the_field(
    service: Service, user: SignedIn, route: _Route
) -> None:
    refusals = _Refusals(service, user, route)
    for field, refused in _DATA["refused_texts"].items():
        if _ROUTES_BY_PATH[route.path] not in refused["routes"]:
            continue
        for text in refused["texts"]:
            await refusals.expect(
                route.with_member(user, field, text), 400, "invalid_request", field=field, about=f"{field}: {text!r}"
            )


_SENTENCES: list[tuple[str, str, object, str]] = [
    ("/user/register", "username", "", "must not be empty"),
    ("/user/register", "username", 1, "must be a string"),
    ("/user/register", "username", "x" * 65, "must have at most 64 characters"),
    ("/user/register", "email", "a", "must have at least 3 characters"),
    ("/user/register", "password", "", "must not be empty"),
    ("/user/register", "password", "ä" * 600, "must have at most 1024 bytes"),
    ("/user/register", "password", "x" * 1025, "must have at most 1024 bytes"),
    ("/user/register", "transport", "carrier pigeon", "must be 'body' or 'cookie'"),
    ("/user/register", "scope", '"', "is not well formed"),
    ("/admin/users", "granted_scopes", "x", "must be a list"),
    ("/admin/users", "granted_scopes", [1], "each must be a string"),
    ("/admin/users/{id}", "disabled", "yes", "must be true or false"),
    ("/admin/clients", "grant_types", ["password"], "each must be 'client_credentials'"),
    ("/admin/clients", "audiences", ["x"] * 33, "must have at most 32 entries"),
    ("/admin/clients/{id}/secret", "overlap", "1", "must be a whole number"),
    ("/admin/clients/{id}/secret", "overlap", -1, "must be at least 0"),
    ("/admin/clients/{id}/secret", "overlap", 10**9, "must be at most 2592000"),
]


async def test_what_is_wrong_with_a_field_is_said_in_words_for_people(service: Service) -> None:
    admin = await administrator(service)
    for path, field, value, sentence in _SENTENCES:
        method = "PATCH" if path == "/admin/users/{id}" else "POST"
        asked = service.http if path.startswith("/user") else service.internal
        answer = await asked.request(
            method, path.format(id=admin.user.id), json={field: value}, headers=admin.user.bearer
        )
        assert problem(answer) == (400, "invalid_request"), (path, field)
        assert {"field": field, "message": sentence} in answer.json()["errors"], answer.text


@every_route
async def test_a_missing_member_is_named(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    for field in sorted(route.required):
        members = route.good(user)
        del members[field]
        await refusals.expect(json.dumps(members).encode(), 400, "invalid_request", field=field, about=field)
    if route.required:
        answer = await route.send(service, user, b"{}")
        assert {entry["field"] for entry in answer.json()["errors"]} == route.required


async def test_a_new_email_without_the_current_password_is_refused(service: Service, user: SignedIn) -> None:
    await _Refusals(service, user, _ROUTES["me"]).expect(
        json.dumps({"email": f"{_MARKER}@example.com"}).encode(),
        400,
        "invalid_request",
        field="current_password",
        about="no current password",
    )


async def test_a_login_with_both_names_or_neither_is_refused(service: Service, user: SignedIn) -> None:
    refusals = _Refusals(service, user, _ROUTES["login"])
    for about, names in {
        "both": {"email": user.email, "username": user.username},
        "both, unknown": {"email": f"{_MARKER}@example.com", "username": _MARKER},
        "neither": {},
    }.items():
        content = json.dumps({**names, "password": PASSWORD}).encode()
        await refusals.expect(content, 400, "invalid_request", about=about)


@every_route
async def test_a_member_given_twice_is_named(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    for field, value in route.good(user).items():
        rest = {name: member for name, member in route.good(user).items() if name != field}
        for first, second in ((value, value), (value, _MARKER), (_MARKER, value)):
            twice = f'"{field}": {json.dumps(first)}, "{field}": {json.dumps(second)}'
            content = "{" + ", ".join([twice, *(f'"{name}": {json.dumps(rest[name])}' for name in rest)]) + "}"
            await refusals.expect(
                content.encode(), 400, "invalid_request", field=field, about=f"{field}: {first!r}, {second!r}"
            )


@every_route
async def test_a_body_nested_deeply_is_refused(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    field = min(route.fields)
    for depth in (500, 1_000, 5_000, 8_000):
        for about, deep in {
            "arrays": b"[" * depth + b"]" * depth,
            "arrays cut short": b"[" * depth,
            "a member": b'{"%b": ' % field.encode() + b"[" * depth + b"]" * depth + b"}",
            "an unknown member": b'{"%b": ' % _MARKER.encode() + b"[" * depth + b"]" * depth + b"}",
        }.items():
            await refusals.expect(deep[:_LIMIT], 400, "invalid_request", about=f"{about}, {depth} deep")
    objects = b'{"%b":' % field.encode()
    await refusals.expect(objects * (_LIMIT // len(objects)), 400, "invalid_request", about="objects")
    await refusals.expect((b"[" * 100_000)[:_LIMIT], 400, "invalid_request", about="as deep as the limit allows")
    await refusals.expect(b"[" * 100_000, 413, "payload_too_large", about="deeper than the limit allows")


@every_route
async def test_numbers_beyond_every_range_are_refused(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    field = min(route.fields).encode()
    for number in (b"1e999", b"-1e999", b"1e-999", b"1E400000", _DIGITS.encode() * 400, _DIGITS.encode() * 1_500):
        for content in (b'{"%b": %b}' % (field, number), number, b"[%b]" % number):
            await refusals.expect(content, 400, "invalid_request", about=content[:40].decode())


@every_route
async def test_a_body_over_the_limit_is_refused(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    field = max(route.fields, key=lambda name: "password" in name)  # of a password where there is one
    fill = _LIMIT - len(route.with_member(user, field, ""))
    largest = route.with_member(user, field, (_MARKER * _LIMIT)[:fill])
    assert len(largest) == _LIMIT
    if route.any_text:
        assert (await service.http.post(route.path, content=largest, headers=_JSON)).status_code == 204
    else:
        await refusals.expect(largest, 400, "invalid_request", field=field, about="as large as the limit")
    for about, content in {
        "one byte over the limit": route.with_member(user, field, (_MARKER * _LIMIT)[: fill + 1]),
        "a value of 1 MB": route.with_member(user, field, (_MARKER * 80_000)[:1_000_000]),
        "white space": json.dumps(route.good(user)).encode() + b" " * _LIMIT,
        "not JSON": _MARKER.encode() * 10_000,
    }.items():
        await refusals.expect(content, 413, "payload_too_large", about=about)
        await refusals.expect(_chunks(content), 413, "payload_too_large", about=f"{about}, without a length")


@every_route
async def test_a_body_without_a_length_is_not_read_far_beyond_the_limit(
    service: Service, user: SignedIn, route: _Route
) -> None:
    sent: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while len(sent) < 1_000:
            sent.append(1_000)
            yield b" " * 1_000

    await _Refusals(service, user, route).expect(endless(), 413, "payload_too_large", about="endless")
    assert sum(sent) <= _LIMIT + 2_000


@every_route
async def test_a_length_that_is_a_lie_is_believed_before_anything_is_read(
    service: Service, user: SignedIn, route: _Route
) -> None:
    for length in ("16385", "99999999999999999999", "9" * 5_000):
        await _Refusals(service, user, route).expect(
            b"", 413, "payload_too_large", headers={**_JSON, "Content-Length": length}, about=length[:30]
        )


@every_route
async def test_a_password_of_2_kib_is_refused_before_it_is_hashed(
    service: Service, user: SignedIn, route: _Route
) -> None:
    hashes = "auth_password_hash_seconds_count"
    before = await _metric(service, hashes)
    for field in sorted(name for name in route.fields if "password" in name):
        for password in ((_MARKER * 200)[:2_048], "ä" * 1_024, "\U0001f511" * 300):
            await _Refusals(service, user, route).expect(
                route.with_member(user, field, password), 400, "invalid_request", field=field, about=password[:20]
            )
    assert await _metric(service, hashes) == before


@every_route
async def test_another_content_type_than_json_is_refused(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    content = json.dumps(route.good(user)).encode()
    for content_type in _DATA["wrong_content_types"]:
        await refusals.expect(
            content, 415, "unsupported_media_type", headers={"Content-Type": content_type}, about=content_type
        )
    await refusals.expect(content, 415, "unsupported_media_type", headers={}, about="none")
    form = b"username=x&password=" + _MARKER.encode()
    await refusals.expect(
        form,
        415,
        "unsupported_media_type",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        about="a form",
    )


@every_route
async def test_no_body_where_one_is_needed_is_refused(service: Service, user: SignedIn, route: _Route) -> None:
    refusals = _Refusals(service, user, route)
    if route.body_required:
        await refusals.expect(b"", 400, "invalid_request", about="empty")
        await refusals.expect(b"", 415, "unsupported_media_type", headers={}, about="empty, of no type")
    await refusals.expect(b" \r\n\t", 400, "invalid_request", about="blank")


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=40)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
_MEMBERS = st.dictionaries(
    st.sampled_from(sorted(frozenset().union(*(route.fields for route in _ROUTES.values())))) | st.text(max_size=8),
    _VALUES | st.sampled_from(["body", "cookie", "profile", PASSWORD, "ada@example.com"]),
    max_size=6,
)


def _encoded(draw: st.DrawFn) -> bytes:
    text = json.dumps(draw(_MEMBERS | _VALUES), ensure_ascii=draw(st.booleans()))
    return text.encode("utf-8", "surrogatepass")


_ANYTHING = st.binary(max_size=200) | st.composite(_encoded)()


@every_route
@given(data=st.data())
@settings(
    max_examples=100,
    deadline=None,
    # The service is the same for all examples on purpose: what one leaves behind must not trip the next.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_whatever_is_sent_is_answered_or_refused_properly(
    service: Service, route: _Route, data: st.DataObject
) -> None:
    headers = dict(_JSON)
    if data.draw(st.booleans(), label="cookie"):
        headers |= {"Cookie": "__Host-refresh_token=x", "Origin": "https://app.test"}
    answer = await service.http.request(route.method, route.path, content=data.draw(_ANYTHING), headers=headers)
    assert answer.status_code < 500
    if answer.status_code >= 400:
        problem(answer)


_ROUTES_BY_PATH = {route.path: name for name, route in _ROUTES.items()}


async def _rows(service: Service) -> list[list[Any]]:
    """Everything that a request could have changed."""
    return [
        [tuple(row.values()) for row in await service.sql(f"SELECT * FROM {table} ORDER BY 1")]
        for table in ("users", "sessions", "revocations")
    ]


async def _metric(service: Service, name: str) -> float:
    lines = (await service.internal.get("/metrics")).text.splitlines()
    return next(float(line.split(" ")[1]) for line in lines if line.startswith(f"{name} "))


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 4_096):
        yield content[start : start + 4_096]
