"""The audit log: what leaves an event and what does not, what an event says, and how it is read back."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from auth_service.audit import Action, Actor, Source, record, record_each
from auth_service.audit_trail import AuditFilter, audit_events
from auth_service.errors import Unavailable
from auth_service.stores.database import Statements
from tests.support.admin import Admin, administrator, events
from tests.support.command import Outcome, command
from tests.support.service import PASSWORD, WINDOW, Service, SignedIn, Start, problem
from tests.support.tokens import claims_of

_NEW_PASSWORD = "another long password"
_ORIGIN = {"Origin": "https://app.test"}
_COOKIE = "__Host-refresh_token"


def _sid(user: SignedIn) -> str:
    sid: str = claims_of(user.access_token)["sid"]
    return sid


async def _post(service: Service, path: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    return await service.http.post(path, json=body, headers=headers)


async def test_each_thing_that_happens_leaves_one_event_that_says_who_what_and_from_where(service: Service) -> None:
    ada, other = await service.register(), await service.register()
    second, third, fourth = [await service.login(ada) for _ in range(3)]
    http, bearer = service.http, ada.bearer
    service.http.headers["User-Agent"] = "Browser/1.0\x07" + "x" * 300
    about: list[tuple[Awaitable[httpx2.Response], int, str, Any, Any, dict[str, Any]]] = [
        (_post(service, "/user/login", {"email": ada.email, "password": "wrong"}), 401,
         "user.login_failed", None, ("user", ada.id), {"reason": "wrong"}),
        (_post(service, "/user/login", {"username": "nobody", "password": "wrong"}), 401,
         "user.login_failed", None, (None, None), {"reason": "unknown"}),
        (http.patch("/user/me", json={"username": "grace"}, headers=bearer), 200,
         "user.renamed", ada.id, ("user", ada.id), {"fields": ["username"]}),
        (http.patch("/user/me", json={"email": "g@x.test", "current_password": PASSWORD}, headers=bearer), 200,
         "user.renamed", ada.id, ("user", ada.id), {"fields": ["email"]}),
        (http.delete(f"/user/sessions/{_sid(second)}", headers=bearer), 204,
         "session.logout", ada.id, ("session", _sid(second)), {"user": ada.id}),
        (http.post("/user/logout", headers=third.bearer), 204,
         "session.logout", ada.id, ("session", _sid(third)), {"user": ada.id}),
        (http.post("/user/password", json={"current_password": PASSWORD, "new_password": _NEW_PASSWORD},
                   headers=bearer), 204,
         "user.password_changed", ada.id, ("user", ada.id), {"sessions": 1}),
        (service.logout(other.refresh_token), 204,
         "session.logout", other.id, ("session", _sid(other)), {"user": other.id}),
        (http.delete("/user/sessions", headers=bearer), 204,
         "session.logout", ada.id, ("user", ada.id), {"sessions": 1}),
    ]  # fmt: skip
    for call, status, action, actor, target, details in about:
        before = len(await events(service))
        answer = await call
        assert answer.status_code == status, answer.text
        [event] = (await events(service))[before:]
        assert event["action"] == action
        assert (event["actor_kind"], event["actor_id"]) == (("user", actor) if actor else ("anonymous", None)), action
        assert (event["target_kind"], event["target_id"]) == target
        assert json.loads(event["details"]) == details
        assert (event["ip"], event["request_id"]) == ("127.0.0.1", answer.headers["x-request-id"])
        assert event["user_agent"] == "Browser/1.0" + "x" * 245, "cut, and without what cannot be seen"
    opened = [event for event in await events(service) if event["action"] in ("user.registered", "user.login")]
    assert [(event["action"], event["actor_id"], event["target_id"]) for event in opened] == [
        ("user.registered", ada.id, ada.id),
        ("user.registered", other.id, other.id),
        *[("user.login", ada.id, ada.id)] * 3,
    ]
    sessions = [_sid(user) for user in (ada, other, second, third, fourth)]
    assert [json.loads(event["details"])["session"] for event in opened] == sessions


async def test_what_changes_nothing_leaves_no_event(service: Service) -> None:
    ada, other = await service.register(), await service.register()
    assert (await service.logout(other.refresh_token)).status_code == 204
    before = await events(service)
    refused = [
        await _post(service, "/user/register", {"username": "x", "email": ada.email, "password": PASSWORD}),
        await _post(service, "/user/register", {"username": "x", "email": "x@x.test", "password": "short"}),
        await _post(service, "/user/login", {"email": ada.email}),
        await service.http.patch("/user/me", json={"username": other.username}, headers=ada.bearer),
        await service.http.patch(
            "/user/me", json={"email": "x@x.test", "current_password": "wrong"}, headers=ada.bearer
        ),
        await service.http.post(
            "/user/password", json={"current_password": "wrong", "new_password": _NEW_PASSWORD}, headers=ada.bearer
        ),
        await service.http.delete(f"/user/sessions/{_sid(other)}", headers=ada.bearer),
        await service.refresh(other.refresh_token),
        await service.refresh(other.refresh_token + "x"),
        await service.http.post("/user/logout"),
    ]
    assert all(answer.status_code >= 400 for answer in refused)
    same = [
        await service.logout(other.refresh_token),
        await service.http.patch("/user/me", json={"username": ada.username}, headers=ada.bearer),
        await service.http.patch("/user/me", json={}, headers=ada.bearer),
        await service.me(ada.access_token),
    ]
    assert all(answer.status_code in (200, 204) for answer in same)
    assert await events(service) == before


async def test_a_disabled_account_and_a_wrong_password_are_told_apart_in_the_log_alone(service: Service) -> None:
    ada = await service.register()
    await service.sql("UPDATE users SET disabled_at = now()")
    answers = [
        await _post(service, "/user/login", {"email": ada.email, "password": password})
        for password in (PASSWORD, "wrong")
    ]
    assert answers[0].json() == answers[1].json()
    failed = await events(service, "user.login_failed")
    assert [(event["target_id"], event["details"]) for event in failed] == [
        (ada.id, '{"reason": "disabled"}'), (ada.id, '{"reason": "wrong"}'),
    ]  # fmt: skip


async def test_a_reused_token_is_recorded_once_with_whose_session_it_was(service: Service) -> None:
    ada = await service.register()
    newest = await service.refreshed(ada.refresh_token)
    service.advance(seconds=WINDOW + 1)
    for code in ("refresh_token_reused", "refresh_token_revoked"):
        assert problem(await service.refresh(ada.refresh_token)) == (401, code)
    assert problem(await service.refresh(newest)) == (401, "refresh_token_revoked")
    [event] = await events(service, "session.reuse")
    assert (event["actor_kind"], event["target_kind"], event["target_id"]) == ("anonymous", "session", _sid(ada))
    assert json.loads(event["details"]) == {"user": ada.id}
    assert event["ip"] == "127.0.0.1"


async def test_a_login_that_replaces_a_cookie_says_whose_session_ended(service: Service) -> None:
    ada = await service.register(transport="body")
    login = {"email": ada.email, "password": PASSWORD, "transport": "cookie"}
    first = await service.http.post("/user/login", json=login, headers=_ORIGIN)
    cookie = {"Cookie": f"{_COOKIE}={first.cookies[_COOKIE]}", **_ORIGIN}
    second = await service.client().post("/user/login", json=login, headers=cookie)
    assert second.status_code == 200
    *_, event = await events(service)
    assert event["action"] == "user.login"
    assert json.loads(event["details"]) == {
        "session": claims_of(second.json()["access_token"])["sid"],
        "replaced": [claims_of(first.json()["access_token"])["sid"]],
    }


async def _refresh_from(service: Service, refresh_token: str, address: str) -> str:
    answer = await service.http.post(
        "/user/refresh-token", json={"refresh_token": refresh_token}, headers={"X-Forwarded-For": address}
    )
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["refresh_token"]
    return token


async def test_a_token_used_twice_from_two_places_is_recorded_and_ordinary_refreshes_are_not(start: Start) -> None:
    service = await start(trusted_proxies="127.0.0.0/8")
    ada = await service.register()
    home, cafe, thief = "198.51.100.1", "203.0.113.7", "192.0.2.99"
    before = len(await events(service))

    # The owner moves: it rotates from elsewhere, and all of its tabs ask from there.
    newest = ada.refresh_token
    for address in (home, cafe, home):
        older, newest = newest, await _refresh_from(service, newest, address)
        for _tab in range(3):
            await _refresh_from(service, older, address)
            await _refresh_from(service, newest, address)
        if address == cafe:
            await service.flush_checkpoints()
        service.advance(seconds=WINDOW + 1)
    assert len(await events(service)) == before
    await service.flush_checkpoints()
    assert [row["last_ip"] for row in await service.sql("SELECT last_ip FROM sessions")] == [home]

    # Somebody else has the token too, and is within the window.
    older, newest = newest, await _refresh_from(service, newest, home)
    for _again in range(3):
        await _refresh_from(service, older, thief)
    await _refresh_from(service, older, home)
    [event] = (await events(service))[before:]
    assert (event["action"], event["target_id"], event["ip"]) == ("session.shared", _sid(ada), thief)
    assert json.loads(event["details"]) == {"user": ada.id}
    service.advance(seconds=301)
    older, newest = newest, await _refresh_from(service, newest, home)
    await _refresh_from(service, older, thief)
    assert len(await events(service, "session.shared")) == 2, "and again later"


@pytest.mark.parametrize(
    ("known", "given", "near"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "2001:db8::1", False),
        (None, "192.0.2.1", True),
        ("192.0.2.1", None, True),
    ],
)
def test_elsewhere_is_another_subscriber(known: str | None, given: str | None, near: bool) -> None:
    assert Source(given).is_near(known) is near


@pytest.mark.parametrize("what", ["register", "login", "logout", "rename", "password", "disable", "reuse"])
async def test_what_cannot_be_recorded_is_not_done(service: Service, what: str) -> None:
    ada = await service.register()
    newest = await service.refreshed(ada.refresh_token)
    service.advance(seconds=WINDOW + 1)
    admin = await administrator(service)
    calls: dict[str, Callable[[], Awaitable[httpx2.Response]]] = {
        "register": lambda: _post(service, "/user/register", {"username": "x", "email": "x@x", "password": PASSWORD}),
        "login": lambda: _post(service, "/user/login", {"email": ada.email, "password": PASSWORD}),
        "logout": lambda: service.logout(ada.refresh_token),
        "rename": lambda: service.http.patch("/user/me", json={"username": "grace"}, headers=ada.bearer),
        "password": lambda: service.http.post(
            "/user/password", json={"current_password": PASSWORD, "new_password": _NEW_PASSWORD}, headers=ada.bearer
        ),
        "disable": lambda: admin.call("PATCH", f"/users/{ada.id}", json={"disabled": True}),
        "reuse": lambda: service.refresh(ada.refresh_token),
    }
    await service.flush_checkpoints()
    tables = ("users", "sessions", "revocations")
    before = [await service.sql(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    await service.sql("ALTER TABLE audit_events RENAME TO gone")
    try:
        assert problem(await calls[what]()) == (503, "unavailable")
    finally:
        await service.sql("ALTER TABLE gone RENAME TO audit_events")
    assert [await service.sql(f"SELECT * FROM {table} ORDER BY 1") for table in tables] == before
    assert (await service.refresh(newest)).status_code == 200


async def test_an_event_of_a_transaction_that_is_rolled_back_is_not_there(service: Service) -> None:
    database, actor = service.app.parts.database, Actor("operator")

    async def write(statements: Statements) -> None:
        await record(statements, "key.rotated", by=actor, now=await database.now(), target=("key", "k"), count=1)
        await record_each(statements, "user.imported", by=actor, now=await database.now(), kind="user", ids=["a", "b"])
        await record_each(statements, "user.imported", by=actor, now=await database.now(), kind="user", ids=[])

    async def fail() -> None:
        async with database.transaction() as transaction:
            await write(transaction)
            raise Unavailable("a fault")

    with pytest.raises(Unavailable):
        await fail()
    assert await events(service) == []
    async with database.transaction() as transaction:
        await write(transaction)
    assert [event["target_id"] for event in await events(service)] == ["k", "a", "b"]


async def test_filters_find_exactly_what_they_name(service: Service) -> None:
    admin = await administrator(service)
    ada = await service.register()
    service.advance(seconds=100)
    await service.login(ada)
    await admin.call("PATCH", f"/users/{ada.id}", json={"disabled": True})
    service.advance(seconds=100)
    await admin.call("DELETE", f"/users/{ada.id}")
    everything = await admin.pages("/audit-events", limit=3)
    assert [event["id"] for event in everything] == [event["id"] for event in reversed(await events(service))]
    middle = everything[1]["occurred_at"]

    def own(event: dict[str, Any]) -> bool:
        return bool(event["actor_id"] == ada.id)

    for params, wanted in (
        ({"action": "user.login"}, lambda event: event["action"] == "user.login"),
        ({"actor": admin.user.id}, lambda event: event["actor_id"] == admin.user.id),
        ({"target": ada.id}, lambda event: event["target_id"] == ada.id),
        ({"actor": ada.id, "action": "user.login"}, lambda event: own(event) and event["action"] == "user.login"),
        ({"since": middle}, lambda event: event["occurred_at"] >= middle),
        ({"until": middle}, lambda event: event["occurred_at"] < middle),
        ({"since": middle, "until": middle}, lambda event: False),
        ({"target": f"{ada.id[:-1]}%"}, lambda event: False),
        ({"actor": "' OR true --"}, lambda event: False),
    ):
        found = await admin.pages("/audit-events", limit=2, **params)
        assert found == [event for event in everything if wanted(event)], params


async def test_moments_are_compared_as_moments(service: Service) -> None:
    admin = await administrator(service)
    [event, *_] = await admin.pages("/audit-events")
    database = service.app.parts.database
    now = await database.now()
    for since, found in ((now - timedelta(hours=1), True), (now + timedelta(hours=1), False)):
        # The same moment, written with another offset.
        text = (since + timedelta(hours=9)).replace(tzinfo=None).isoformat(timespec="seconds") + "+09:00"
        assert bool(await admin.pages("/audit-events", since=text)) is found
        assert bool(await audit_events(database, AuditFilter(since=since))) is found
    assert event["occurred_at"].endswith("Z")


async def test_commands_are_recorded_as_the_operators(tmp_path: Path, service: Service) -> None:
    def run(*arguments: str, stdin: str = "") -> Outcome:
        done = command(*arguments, settings=service.settings, stdin=stdin)
        assert (done.code, done.err) == (0, ""), done
        return done

    async def do(*arguments: str, stdin: str = "") -> list[Any]:
        before = len(await events(service))
        await asyncio.to_thread(run, *arguments, stdin=stdin)
        return (await events(service))[before:]

    [added] = await do("users", "add", "ada", "ada@x.test", "--scope", "a", "--password-stdin", stdin=PASSWORD)
    user_id = added["target_id"]
    assert added["details"] == '{"granted": ["a"]}'
    user = await service.http.post("/user/login", json={"username": "ada", "password": PASSWORD})
    commands: dict[Action, tuple[str, ...]] = {
        "user.granted": ("users", "grant", "ada", "b"),
        "session.revoked": ("sessions", "revoke", claims_of(user.json()["access_token"])["sid"]),
        "user.disabled": ("users", "disable", "ada"),
        "user.enabled": ("users", "enable", "ada"),
        "user.password_set": ("users", "set-password", "ada", "--password-stdin"),
    }
    recorded = [added]
    for action, arguments in commands.items():
        [event] = await do(*arguments, stdin=_NEW_PASSWORD)
        assert event["action"] == action
        recorded.append(event)
        if action != "user.password_set":
            assert await do(*arguments) == [], "a second time it changes nothing"
    lines = "".join(
        json.dumps({"username": f"u{number}", "email": f"u{number}@x.test", "password_hash": _HASH}) + "\n"
        for number in range(3)
    )
    file = tmp_path / "users.jsonl"
    file.write_text(lines)
    imported = await do("users", "import", str(file))
    assert [event["action"] for event in imported] == ["user.imported"] * 3
    ids = {str(row["id"]) for row in await service.sql("SELECT id FROM users WHERE username LIKE 'u_'")}
    assert {event["target_id"] for event in imported} == ids
    assert await do("users", "import", str(file)) == []
    for event in recorded + imported:
        assert (event["actor_kind"], event["actor_id"], event["ip"]) == ("operator", None, None)
        assert event["target_id"] in {user_id, *ids} or event["target_kind"] == "session"


_HASH = "pbkdf2_sha256$260000$c2FsdHNhbHQ$Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmE="


async def test_the_command_line_reads_the_log(service: Service) -> None:
    admin: Admin = await administrator(service)
    ada = await service.register()
    await admin.call("PATCH", f"/users/{ada.id}", json={"granted_scopes": ["x:read"]})

    async def listed(*arguments: str) -> Any:
        done = await asyncio.to_thread(command, "audit", "list", *arguments, "--json", settings=service.settings)
        assert done.code == 0, done.err
        return json.loads(done.out)

    everything = await listed()
    assert [event["id"] for event in everything] == [event["id"] for event in reversed(await events(service))]
    [granted] = await listed("--target", ada.id, "--action", "user.granted")
    assert (granted["actor"], granted["actor_id"], granted["details"]["added"]) == ("user", admin.user.id, ["x:read"])
    assert await listed("--actor", ada.id) == [event for event in everything if event["actor_id"] == ada.id]
    assert await listed("--since", "2999-01-01") == []
    assert await listed("--since", "2000-01-01") == everything
    for name in (ada.username, ada.email):
        assert await listed("--actor", name) == await listed("--actor", ada.id)
    assert await listed("--target", ada.username, "--action", "user.granted") == [granted]
    newest, *others = everything
    assert await listed("--since", newest["occurred_at"]) == [newest], "as it was printed"
    assert await listed("--until", newest["occurred_at"]) == others
    east = datetime.fromisoformat(newest["occurred_at"]).astimezone(timezone(timedelta(hours=5)))
    assert await listed("--until", east.isoformat()) == others
    table = await asyncio.to_thread(command, "audit", "list", "--limit", "2", settings=service.settings)
    assert table.err == "There are more: see --limit.\n"
    assert len(table.out.splitlines()) == 3
    assert "user.granted" in table.out
    wrong = await asyncio.to_thread(command, "audit", "list", "--action", "nonsense", settings=service.settings)
    assert wrong.code == 2
    wrong = await asyncio.to_thread(command, "audit", "list", "--since", "yesterday", settings=service.settings)
    assert (wrong.code, "like 2030-01-31" in wrong.err) == (2, True)
    for option in ("--actor", "--target"):
        wrong = await asyncio.to_thread(command, "audit", "list", option, "nobody", settings=service.settings)
        assert (wrong.code, wrong.out) == (1, ""), "not an empty list"
        assert "there is no user 'nobody'. Of a client, a session or a key give the id" in wrong.err


async def test_no_event_holds_a_name_an_address_or_a_secret(service: Service) -> None:
    admin = await administrator(service, username="kanarie1", email="kanarie2@kanarie3.test")
    ada = await service.register(username="kanarie4", email="kanarie5@x.test", password="kanarie6 and more")
    await _post(service, "/user/login", {"username": "kanarie7", "password": "kanarie8"})
    await _post(service, "/user/login", {"email": "kanarie9@x.test", "password": "kanarie10"})
    change = {"username": "kanarie11", "email": "kanarie12@x.test", "password": "kanarie13 and more"}
    assert (await admin.call("PATCH", f"/users/{ada.id}", json=change)).status_code == 200
    new = {"username": "kanarie14", "email": "kanarie15@x.test", "password": "kanarie16 and more"}
    added = await admin.call("POST", "/users", json=new)
    assert (await admin.call("DELETE", f"/users/{UUID(added.json()['id'])}")).status_code == 204
    rows = str([dict(event) for event in await events(service)])
    assert len(rows) > 1000
    assert "kanarie" not in rows
    for token in (admin.user.access_token, admin.user.refresh_token, ada.refresh_token):
        assert not any(part in rows for part in token.split("."))
        assert claims_of(token)["jti"] not in rows
