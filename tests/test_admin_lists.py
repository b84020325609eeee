"""The lists of the admin API: search that nothing bends, pages that stay right, parameters that are refused by name."""

import asyncio
import itertools
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from auth_service.accounts import names
from auth_service.audit import OPERATOR
from auth_service.settings import Settings
from tests.support.admin import Admin, administrator
from tests.support.service import Service, problem

_HASH = "pbkdf2_sha256$1$x$x"

_NAMES = [
    "plain", "per%cent", "under_score", "back\\slash", "quo'te", 'dou"ble', "semi;colon", "dash--dash", "star*",
    "$1", "{brace}", "brack[e]t", "straße", "ÉCOLE", "日本語", "a b", "%s", "(paren)", "pl+us", "am&per",
    "e\u0301t\u00e9",
]  # fmt: skip

_HOSTILE = [
    "%", "_", "\\", "'", '"', ";", "--", "*", "$1", "$2", "{", "[", "%%", "__", "\\\\",
    "' OR '1'='1", "'; DROP TABLE users",
    "%' OR username LIKE '%", "\\'", "/*", "*/", "||", "pg_sleep(5)", "1) OR (1=1", "{0}", "%s", "%(x)s", ".*", ".",
    "a b",     "@", "example", "SS", "école", "E\u0301COLE", "日", "\n", "\t", " ", "+", "&", "=", "null", "été",
]  # fmt: skip


@pytest.fixture
async def admin(service: Service) -> Admin:
    return await administrator(service, username="root", email="root@example.com")


def _named(answer: httpx2.Response) -> list[str]:
    """The fields that a refusal names."""
    return [entry["field"] for entry in answer.json().get("errors", [])]


async def _add(service: Service, *usernames: str) -> None:
    accounts = [
        (names.username(name), names.email(f"{number}@mail.test"), _HASH, frozenset[str]())
        for number, name in enumerate(usernames)
    ]
    assert await service.app.parts.users.import_batch(accounts, by=OPERATOR) == len(usernames)


async def test_a_search_matches_its_letters_and_nothing_else(service: Service, admin: Admin) -> None:
    await _add(service, *_NAMES)
    everybody = await admin.pages("/users")
    assert {user["username"] for user in everybody} == {*(names.username(name).text for name in _NAMES), "root"}
    found_any = 0
    for text in _HOSTILE:
        found = [user["username"] for user in await admin.pages("/users", search=text)]
        expected = [
            user["username"]
            for user in everybody
            if names.key(text) in names.key(user["username"]) or names.key(text) in names.key(user["email"])
        ]
        assert found == expected, text
        found_any += bool(found)
    assert found_any > 15
    assert len(found_everything := await admin.pages("/users", search="")) == len(everybody), found_everything
    assert await service.sql("SELECT 1 FROM users LIMIT 1"), "and the table is there"


_WRONG_PARAMETERS = [
    ("search=a%00b", "search"),
    (f"search={'a' * 255}", "search"),
    ("limit=0", "limit"),
    ("limit=201", "limit"),
    ("limit=-1", "limit"),
    ("limit=1e2", "limit"),
    ("limit=%201", "limit"),
    ("limit=1_0", "limit"),
    ("limit=%D9%A1", "limit"),
    ("limit=", "limit"),
    ("limit=99999999999999999999", "limit"),
    ("limit=1&limit=2", "limit"),
    ("cursor=", "cursor"),
    ("cursor=x", "cursor"),
    ("cursor=%00", "cursor"),
    (f"cursor={'A' * 1025}", "cursor"),
    ("nonsense=kanarie", None),
    ("Limit=1", None),
    ("search=%FF", None),
    ("search=%ED%A0%80", None),
    ("search", None),
    ("&", None),
    ("&".join(f"a{number}=1" for number in range(40)), None),
]


async def test_a_wrong_parameter_is_refused_by_name_and_not_repeated(admin: Admin) -> None:
    for path, (query, field) in itertools.product(["/users", "/audit-events"], _WRONG_PARAMETERS):
        answer = await admin.call("GET", f"{path}?{query}")
        assert problem(answer) == (400, "invalid_request"), query
        if field != "search" or path == "/users":
            assert _named(answer) == ([field] if field else []), query
        assert "kanarie" not in answer.text


async def test_the_list_that_takes_no_parameter_refuses_any(admin: Admin) -> None:
    assert (await admin.call("GET", "/keys")).status_code == 200
    for query in ("limit=5", "kanarie=1", "kanarie"):
        answer = await admin.call("GET", f"/keys?{query}")
        assert problem(answer) == (400, "invalid_request"), query
        assert "kanarie" not in answer.text


_WRONG_FILTERS = [
    ("action=user.exploded", "action"),
    ("action=user.login%00", "action"),
    ("actor=", "actor"),
    ("actor=%00", "actor"),
    (f"target={'x' * 65}", "target"),
    ("since=yesterday", "since"),
    ("since=1700000000", "since"),
    ("since=2030-01-01", "since"),
    ("since=2030-01-01T00:00:00", "since"),
    ("since=2030-13-01T00:00:00Z", "since"),
    ("until=0001-01-01T00:00:00%2B14:00", "until"),
    ("until=9999-12-31T23:59:59-14:00", "until"),
    ("until=2030-01-01T00:00:00+02:00", "until"),
]


async def test_a_wrong_filter_is_refused_by_name(admin: Admin) -> None:
    for query, field in _WRONG_FILTERS:
        answer = await admin.call("GET", f"/audit-events?{query}")
        assert problem(answer) == (400, "invalid_request"), query
        assert _named(answer) == [field], query


def _forged(*values: Any) -> str:
    return (
        urlsafe_b64encode(json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()).rstrip(b"=").decode()
    )


_STRANGE_CURSORS = [
        _forged(), _forged("users"), _forged("users", 1), _forged("users", None), _forged("users", ["a"]),
        _forged("users", "a", "b"), _forged("users", "a\0"), _forged("users", "a" * 256), _forged("audit-events", "a"),
        _forged("sessions", "a"), _forged({"users": "a"}), "W10", "e30", "bnVsbA", "InVzZXJzIg", "IltdIg", "/+==",
    "ab=c", _forged("users", "a") + "=", _forged("users", "a") + "!", "é", "W" * 1000,
        urlsafe_b64encode(b'["users", "a"]').decode().rstrip("="), urlsafe_b64encode(b'["users","\\ud800"]').decode(),
        urlsafe_b64encode(b"[" * 700).decode(), urlsafe_b64encode(b'["users",1e999]').decode(),
    ]  # fmt: skip


async def test_a_cursor_that_this_list_did_not_write_is_refused(admin: Admin) -> None:
    for cursor in _STRANGE_CURSORS:
        answer = await admin.call("GET", f"/users?cursor={quote(cursor)}")
        assert problem(answer) == (400, "invalid_request"), cursor
        assert _named(answer) == ["cursor"], cursor


_WRONG_TYPES = [
    ("/audit-events", _forged("audit-events", 1)),
    *(
        ("/audit-events", _forged("audit-events", "2030-01-01T00:00:00+00:00", wrong))
        for wrong in (True, -1, 2**63, 1.5, "1")
    ),
    ("/users/{}/sessions", _forged("sessions", "2030-01-01T00:00:00", "0b9b4a0e-7f0c-4d8b-9a51-3f6a2f1c8e57")),
    (
        "/users/{}/sessions",
        _forged("sessions", "0001-01-01T00:00:00+14:00", "0b9b4a0e-7f0c-4d8b-9a51-3f6a2f1c8e57"),
    ),
    ("/users/{}/sessions", _forged("sessions", "2030-01-01T00:00:00+00:00", "x")),
    ("/users/{}/sessions", _forged("sessions", 1, 2)),
]


async def test_a_cursor_holds_values_of_the_right_type(admin: Admin) -> None:
    for path, cursor in _WRONG_TYPES:
        answer = await admin.call("GET", path.format(admin.user.id), params={"cursor": cursor})
        assert problem(answer) == (400, "invalid_request"), (path, cursor)
        assert _named(answer) == ["cursor"], (path, cursor)


async def test_a_cursor_is_text_that_says_after_which_row_to_go_on(service: Service, admin: Admin) -> None:
    await _add(service, "b'; DROP TABLE users; --", "a", "c")
    first = (await admin.call("GET", "/users", params={"limit": 2})).json()
    assert json.loads(urlsafe_b64decode(first["next"] + "==")) == ["users", "b'; DROP TABLE users; --"]
    rest = (await admin.call("GET", "/users", params={"limit": 2, "cursor": first["next"]})).json()
    assert ([user["username"] for user in rest["items"]], rest["next"]) == (["c", "root"], None)


@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_pages_show_each_row_that_stays_once_while_others_come_and_go(
    service: Service, admin: Admin, limit: int
) -> None:
    stay = [f"stay{number:03}" for number in range(60)]
    await _add(service, *stay, *(f"go{number:03}" for number in range(60)))
    reading, users = True, service.app.parts.users

    async def come_and_go() -> int:
        changes = 0
        while reading:
            name = f"stay{changes % 60:03}x{changes}"
            account = (names.username(name), names.email(f"{name}@x.test"), _HASH, frozenset[str]())
            await users.import_batch([account], by=OPERATOR)
            for row in await service.sql("SELECT id FROM users WHERE username LIKE 'go%' ORDER BY random() LIMIT 1"):
                await users.delete(row["id"], by=OPERATOR)
            changes += 1
        return changes

    changing = asyncio.create_task(come_and_go())
    seen = [user["username"] for user in await admin.pages("/users", search="stay" if limit == 1 else "", limit=limit)]
    reading = False
    assert await changing > 0
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen))
    assert set(stay) <= set(seen)


async def test_events_that_come_while_reading_move_no_page(service: Service, admin: Admin) -> None:
    for number in range(6):
        await _add_one(service, number)
    first = (await admin.call("GET", "/audit-events", params={"limit": 3})).json()
    await _add_one(service, 99)
    second = (await admin.call("GET", "/audit-events", params={"limit": 3, "cursor": first["next"]})).json()
    ids = [event["id"] for event in first["items"] + second["items"]]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == 6
    assert len(await admin.pages("/audit-events", limit=2)) == len(await service.sql("SELECT 1 FROM audit_events"))


async def _add_one(service: Service, number: int) -> None:
    account = (names.username(f"one{number}"), names.email(f"one{number}@mail.test"), _HASH, frozenset[str]())
    await service.app.parts.users.import_batch([account], by=OPERATOR)


async def test_a_list_without_postgresql_is_unavailable(settings: Callable[..., Settings], service: Service) -> None:
    admin = await administrator(service)
    await service.sql("ALTER TABLE audit_events RENAME TO gone")
    try:
        assert problem(await admin.call("GET", "/audit-events")) == (503, "unavailable")
        assert problem(await admin.call("POST", "/users", json=_body())) == (503, "unavailable")
        assert await service.sql("SELECT 1 FROM users WHERE username = 'unrecorded'") == []
    finally:
        await service.sql("ALTER TABLE gone RENAME TO audit_events")
    assert (await admin.call("POST", "/users", json=_body())).status_code == 201


def _body() -> dict[str, str]:
    return {"username": "unrecorded", "email": "unrecorded@example.com", "password": "correct horse battery staple"}
