"""The admin API over accounts and sessions: what each call does, refuses and records."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from auth_service.audit import OPERATOR
from auth_service.endpoints.internal import schemas
from tests.support.admin import SCOPE, Admin, administrator, events, service_token
from tests.support.service import PASSWORD, Service, problem
from tests.support.tokens import claims_of

_NEW_PASSWORD = "another long password"


@pytest.fixture
async def admin(service: Service) -> Admin:
    return await administrator(service, username="root", email="root@example.com")


async def _recorded(service: Service, since: int) -> list[Any]:
    """The events after the one with the id `since`."""
    return [event for event in await events(service) if event["id"] > since]


async def _last(service: Service) -> int:
    return max((event["id"] for event in await events(service)), default=0)


async def test_an_added_user_signs_in_and_holds_what_was_granted(service: Service, admin: Admin) -> None:
    body = {"username": "Ada", "email": "Ada@example.com", "password": PASSWORD, "granted_scopes": ["b:read", "a:read"]}
    since = await _last(service)
    answer = await admin.call("POST", "/users", json=body)
    assert answer.status_code == 201
    [event] = await _recorded(service, since)
    assert (event["action"], event["actor_id"]) == ("user.added", admin.user.id)
    assert event["details"] == '{"granted": ["a:read", "b:read"]}'
    added = answer.json()
    assert answer.headers["location"] == f"/admin/users/{added['id']}"
    assert (added["username"], added["email"], added["granted_scopes"]) == (
        "Ada",
        "Ada@example.com",
        ["a:read", "b:read"],
    )
    assert (added["disabled"], added["disabled_at"], added["last_login_at"]) == (False, None, None)
    assert "password" not in answer.text
    login = await service.http.post("/user/login", json={"username": "ada", "password": PASSWORD})
    assert login.json()["scope"] == "a:read b:read profile"
    read = await admin.call("GET", f"/users/{added['id']}")
    assert read.json() == {**added, "last_login_at": read.json()["last_login_at"]}
    assert read.json()["last_login_at"] is not None
    assert read.headers["cache-control"] == "no-store"


_REFUSED: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"username": None}, (400, "invalid_request")),
    ({"username": "a@b"}, (400, "invalid_request")),
    ({"email": "ada"}, (400, "invalid_request")),
    ({"username": "a\0b"}, (400, "invalid_request")),
    ({"granted_scopes": ["two words"]}, (400, "invalid_request")),
    ({"granted_scopes": "reports:read"}, (400, "invalid_request")),
    ({"granted_scopes": [f"scope:{number}" for number in range(200)]}, (400, "invalid_request")),
    ({"disabled": "yes"}, (400, "invalid_request")),
    ({"is_admin": True}, (400, "invalid_request")),
    ({"password": "short"}, (422, "weak_password")),
    ({"username": "ROOT"}, (409, "username_taken")),
    ({"email": "Root@Example.com"}, (409, "email_taken")),
]


async def test_a_change_that_cannot_be_made_changes_and_records_nothing(service: Service, admin: Admin) -> None:
    user = await service.register(username="ada", email="ada@example.com")
    other = await service.login(user)
    before = await service.sql("SELECT * FROM users ORDER BY id")
    since = await _last(service)
    for change, refusal in _REFUSED:
        # With changes that could be made: it is all or nothing.
        patch = {"granted_scopes": ["x:read"], "disabled": True, "password": _NEW_PASSWORD, **change}
        new = {"username": "new", "email": "new@example.com", "password": PASSWORD, **change}
        for answer in (
            await admin.call("PATCH", f"/users/{user.id}", json=patch),
            await admin.call("POST", "/users", json=new),
        ):
            assert problem(answer) == refusal, change
            named = [entry["field"] for entry in answer.json().get("errors", [])]
            assert named == [name for name in change if name in schemas.NewUser.model_fields] or "disabled" in change
            assert all(str(value) not in answer.text for value in change.values()), change
    assert await service.sql("SELECT * FROM users ORDER BY id") == before
    assert (await service.me(other.access_token)).status_code == 200
    assert await _recorded(service, since) == []


_CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"username": "grace"}, "user.renamed"),
    ({"email": "grace@example.com"}, "user.renamed"),
    ({"username": "grace", "email": "grace@example.com"}, "user.renamed"),
    ({"password": _NEW_PASSWORD}, "user.password_set"),
    ({"disabled": True}, "user.disabled"),
    ({"granted_scopes": ["b", "a", "a"]}, "user.granted"),
]


async def test_a_change_leaves_one_event_and_the_same_again_none(service: Service, admin: Admin) -> None:
    for change, action in _CHANGES:
        user = await service.register()
        since = await _last(service)
        answer = await admin.call("PATCH", f"/users/{user.id}", json=change)
        assert answer.status_code == 200, answer.text
        for name, value in change.items():
            if name != "password":
                assert answer.json()[name] == (sorted(set(value)) if isinstance(value, list) else value)
        [event] = await _recorded(service, since)
        assert (event["action"], event["target_kind"], event["target_id"]) == (action, "user", user.id)
        assert (event["actor_kind"], event["actor_id"]) == ("user", admin.user.id)
        assert (event["ip"], event["request_id"]) == ("127.0.0.1", answer.headers["x-request-id"])
        assert all(text not in str(dict(event)) for text in ("grace", _NEW_PASSWORD, "argon2", "example.com"))
        if "password" not in change:
            assert (await admin.call("PATCH", f"/users/{user.id}", json=change)).json() == answer.json()
            assert (await admin.call("PATCH", f"/users/{user.id}", json={})).json() == answer.json()
            assert len(await _recorded(service, since)) == 1
        ended = not {"password", "disabled"}.isdisjoint(change)
        assert (await service.refresh(user.refresh_token)).status_code == (401 if ended else 200)
        assert (await service.me(user.access_token)).status_code == (401 if ended else 200)
        await admin.call("DELETE", f"/users/{user.id}")


async def test_many_changes_at_once_are_one_step_with_an_event_each(service: Service, admin: Admin) -> None:
    user = await service.register()
    since = await _last(service)
    body = {"username": "grace", "password": _NEW_PASSWORD, "disabled": True, "granted_scopes": ["reports:read"]}
    assert (await admin.call("PATCH", f"/users/{user.id}", json=body)).status_code == 200
    recorded = await _recorded(service, since)
    assert [event["action"] for event in recorded] == [
        "user.password_set", "user.renamed", "user.disabled", "user.granted",
    ]  # fmt: skip
    assert len({(event["occurred_at"], event["request_id"]) for event in recorded}) == 1
    login = {"username": "grace", "password": _NEW_PASSWORD}
    assert problem(await service.http.post("/user/login", json=login)) == (401, "invalid_credentials")
    enabled = await admin.call("PATCH", f"/users/{user.id}", json={"disabled": False})
    assert (enabled.json()["disabled"], enabled.json()["disabled_at"]) == (False, None)
    answer = await service.http.post("/user/login", json=login)
    assert answer.json()["scope"] == "profile reports:read"
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")


async def test_a_deleted_user_is_gone_with_every_session_and_is_remembered_by_id(
    service: Service, admin: Admin
) -> None:
    user = await service.register()
    other = await service.login(user)
    since = await _last(service)
    answer = await admin.call("DELETE", f"/users/{user.id}")
    assert (answer.status_code, answer.content) == (204, b"")
    [event] = await _recorded(service, since)
    assert (event["action"], event["target_id"], event["details"]) == ("user.deleted", user.id, '{"sessions": 2}')
    for session in (user, other):
        assert problem(await service.me(session.access_token)) == (401, "invalid_token")
    revoked = {row["claim"] for row in await service.sql("SELECT claim FROM revocations")}
    assert revoked == {claims_of(session.access_token)["sid"] for session in (user, other)}
    for method, path in (
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/sessions"), ("DELETE", "/sessions"),
    ):  # fmt: skip
        body = {"json": {"disabled": True}} if method == "PATCH" else {}
        assert problem(await admin.call(method, f"/users/{user.id}{path}", **body)) == (404, "not_found")
    assert len(await _recorded(service, since)) == 1
    assert await admin.pages("/audit-events", target=user.id, action="user.deleted")


async def test_nobody_locks_themselves_out_by_this_api(service: Service, admin: Admin) -> None:
    since = await _last(service)
    own = f"/users/{admin.user.id}"
    for refused in (
        await admin.call("PATCH", own, json={"disabled": True, "username": "other"}),
        await admin.call("PATCH", own, json={"granted_scopes": ["reports:read"]}),
        await admin.call("DELETE", own),
    ):
        assert problem(refused) == (409, "own_account")
    assert await _recorded(service, since) == []
    kept = {"granted_scopes": [SCOPE, "reports:read"], "disabled": False, "username": "chief"}
    assert (await admin.call("PATCH", own, json=kept)).status_code == 200
    other = await administrator(service)
    # Another administrator may, and so may a service.
    assert (await other.call("PATCH", own, json={"granted_scopes": []})).status_code == 200
    headers = {"Authorization": f"Bearer {await service_token(service)}"}
    assert (await service.internal.delete(f"/admin/users/{other.user.id}", headers=headers)).status_code == 204
    [event] = await events(service, "user.deleted")
    assert event["actor_kind"] == "client"


async def test_an_unknown_id_is_not_found(service: Service, admin: Admin) -> None:
    since = await _last(service)
    for identifier in (str(uuid4()), "x", "%00", "1'--", "ffffffff" * 8):
        for path in ("users/{}", "users/{}/sessions", "sessions/{}"):
            answer = await admin.call("DELETE", f"/{path.format(identifier)}")
            assert problem(answer) == (404, "not_found"), (path, identifier)
    assert await _recorded(service, since) == []


async def test_an_administrator_ends_one_session_or_all(service: Service, admin: Admin) -> None:
    user = await service.register()
    second, third = await service.login(user), await service.login(user)
    sids = [claims_of(session.access_token)["sid"] for session in (third, second, user)]
    listed = await admin.pages(f"/users/{user.id}/sessions", limit=2)
    assert [session["id"] for session in listed] == sids, "the newest first"
    assert listed[0] == {
        **listed[0],
        "client_id": "web", "transport": "body", "scope": "profile", "last_ip": None, "ip": "127.0.0.1",
    }  # fmt: skip
    since = await _last(service)
    for _again in range(2):
        assert (await admin.call("DELETE", f"/sessions/{sids[1]}")).status_code == 204
    [event] = await _recorded(service, since)
    assert (event["action"], event["target_id"]) == ("session.revoked", sids[1])
    assert event["details"] == f'{{"user": "{user.id}"}}'
    assert problem(await service.me(second.access_token)) == (401, "invalid_token")
    assert (await service.me(third.access_token)).status_code == 200
    for _again in range(2):
        assert (await admin.call("DELETE", f"/users/{user.id}/sessions")).status_code == 204
    [_, event] = await _recorded(service, since)
    assert (event["action"], event["target_id"], event["details"]) == ("session.revoked", user.id, '{"sessions": 2}')
    assert problem(await service.refresh(third.refresh_token)) == (401, "refresh_token_revoked")
    assert await admin.pages(f"/users/{user.id}/sessions") == []


async def test_a_grant_of_the_operator_and_one_of_an_administrator_are_told_apart(
    service: Service, admin: Admin
) -> None:
    user = await service.register()
    await service.app.parts.users.grant(UUID(user.id), add=["b", "a"], by=OPERATOR)
    await admin.call("PATCH", f"/users/{user.id}", json={"granted_scopes": ["c", "a"]})
    newest, older, _ = await admin.pages("/audit-events", target=user.id)
    assert (newest["actor_kind"], newest["actor_id"]) == ("user", admin.user.id)
    assert newest["details"] == {"added": ["c"], "removed": ["b"]}
    assert (older["actor_kind"], older["actor_id"], older["ip"]) == ("operator", None, None)
    assert older["details"] == {"added": ["a", "b"], "removed": []}
