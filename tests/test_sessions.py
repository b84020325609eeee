"""Sessions over HTTP after their opening: logout, the list of one's own, and ending them."""

import json
from uuid import UUID

import pytest

from auth_service.audit import OPERATOR
from tests.support.admin import events
from tests.support.bearer_cases import INVALID_REQUEST, REALM
from tests.support.oauth import new_client
from tests.support.service import PASSWORD, Service, Start, problem
from tests.support.tokens import claims_of

_APP = {"Origin": "https://app.test"}


async def test_every_sign_in_opens_a_session_of_its_own(service: Service) -> None:
    user = await service.register()
    sessions = [user, await service.login(user), await service.login(user, scope="profile")]
    assert len({claims_of(session.refresh_token)["sid"] for session in sessions}) == 3
    # Nor does one that came along go on under the new login, whoever planted it.
    answer = await service.http.post(
        "/user/login", json={"email": user.email, "password": PASSWORD}, headers=user.bearer | {"Cookie": "sid=chosen"}
    )
    assert claims_of(answer.json()["access_token"])["sid"] not in {
        claims_of(session.access_token)["sid"] for session in sessions
    }


async def test_every_answer_with_tokens_is_kept_by_nobody_and_says_what_they_are(service: Service) -> None:
    known = {"email": "ada@example.com", "password": PASSWORD}
    registered = await service.http.post("/user/register", json=known | {"username": "ada"})
    refresh_token = {"refresh_token": registered.json()["refresh_token"]}
    grant = {"grant_type": "refresh_token", "client_id": "web", **refresh_token}
    client = await new_client(service)
    for answer in (
        registered,
        await service.http.post("/user/login", json=known),
        await service.http.post("/user/login", json=known | {"transport": "cookie"}, headers=_APP),
        await service.http.post("/user/refresh-token", headers=_APP),
        await service.http.post("/user/refresh-token", json=refresh_token, headers=_APP),
        await service.http.post("/oauth/token", data=grant),
        await service.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=client.basic),
    ):
        assert answer.status_code in (200, 201), answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["pragma"] == "no-cache", "RFC 6749 §5.1"
        assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 600)


async def test_logout_ends_the_session_of_a_refresh_token(service: Service) -> None:
    user = await service.register()
    other = await service.login(user)
    answer = await service.logout(user.refresh_token)
    assert (answer.status_code, answer.content) == (204, b"")
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    assert (await service.refresh(other.refresh_token)).status_code == 200


async def test_logout_ends_the_session_of_a_bearer_even_of_an_expired_one(service: Service) -> None:
    user = await service.register()
    service.advance(seconds=3600)
    assert problem(await service.me(user.access_token)) == (401, "invalid_token")
    assert (await service.http.post("/user/logout", headers=user.bearer)).status_code == 204
    assert problem(await service.refresh(user.refresh_token)) == (401, "refresh_token_revoked")


async def test_logout_ends_the_session_of_every_credential_and_is_idempotent(service: Service) -> None:
    one = await service.register()
    two = await service.login(one)
    for _ in range(2):
        answer = await service.http.post("/user/logout", json={"refresh_token": one.refresh_token}, headers=two.bearer)
        assert answer.status_code == 204
    for session in (one, two):
        assert problem(await service.refresh(session.refresh_token)) == (401, "refresh_token_revoked")
    assert len(await service.sql("SELECT 1 FROM revocations")) == 2


async def test_logout_needs_some_credential_and_takes_any(service: Service) -> None:
    assert problem(await service.http.post("/user/logout")) == (401, "invalid_token")
    assert problem(await service.http.post("/user/logout", json={})) == (401, "invalid_token")
    for unusable in ("not.a.token", "", "x" * 9000, "a\0b", "\ud800", "\N{SNOWMAN}", "a b"):
        content = json.dumps({"refresh_token": unusable})  # in ASCII: httpx2's own would not carry a lone surrogate
        answer = await service.http.post("/user/logout", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 204, repr(unusable)[:20]
    for credentials in ("Bearer nonsense", "Bearer", "Bearer a b"):
        answer = await service.http.post("/user/logout", headers={"Authorization": credentials})
        assert answer.status_code == 204, credentials
    assert await service.sql("SELECT 1 FROM revocations") == []


async def test_a_logout_is_journaled_even_where_the_session_is_not_known(service: Service) -> None:
    # As after a restored backup: the token is ours, the row is gone, and downstream services still take the token.
    user = await service.register()
    await service.sql("DELETE FROM sessions")
    assert (await service.logout(user.refresh_token)).status_code == 204
    [row] = await service.sql("SELECT claim FROM revocations")
    assert row["claim"] == claims_of(user.refresh_token)["sid"]


async def test_the_list_names_ones_live_sessions_and_nobody_elses(service: Service) -> None:
    user, stranger = await service.register(), await service.register()
    ended, other = await service.login(user), await service.login(user)
    await service.logout(ended.refresh_token)
    answer = await service.http.get("/user/sessions", headers=user.bearer | {"User-Agent": "test\tagent"})
    listed = answer.json()
    sids = [claims_of(session.access_token)["sid"] for session in (other, user)]
    assert [item["id"] for item in listed] == sids
    assert [item["current"] for item in listed] == [False, True]
    assert listed[0].keys() == {"id", "created_at", "last_used_at", "expires_at", "ip", "user_agent", "current"}
    assert claims_of(stranger.access_token)["sid"] not in answer.text
    # To the hour: finer would tell a thief when the owner is away.
    assert listed[0]["last_used_at"].endswith(":00:00Z")
    assert listed[0]["user_agent"].startswith("python-httpx2/")


async def test_the_list_leaves_none_out_however_many_there_are(service: Service) -> None:
    user = await service.register()
    await service.sql(
        "INSERT INTO sessions (id, user_id, client_id, transport, scope, created_at, expires_at, last_used_at)"
        " SELECT gen_random_uuid(), user_id, client_id, transport, scope, created_at + interval '1 second' * number,"
        " expires_at, last_used_at FROM generate_series(1, 300) AS number, (SELECT * FROM sessions) AS session"
    )
    listed = (await service.http.get("/user/sessions", headers=user.bearer)).json()
    assert len(listed) == 301
    [current] = [item for item in listed if item["current"]]
    assert current["id"] == claims_of(user.access_token)["sid"]


async def test_a_session_is_listed_for_as_long_as_a_token_of_it_is_good(service: Service) -> None:
    user = await service.register()
    other = await service.login(user)
    sid = claims_of(other.access_token)["sid"]
    window, idle = service.settings.refresh_replay_window, service.settings.refresh_token_ttl

    async def listed() -> list[str]:
        reader = await service.login(user)
        answer = await service.http.get("/user/sessions", headers=reader.bearer)
        return [item["id"] for item in answer.json()]

    refresh_token = await service.refreshed(other.refresh_token)
    await service.flush_checkpoints()
    service.advance(seconds=window.total_seconds() - 1)
    # The same generation once more: this refresh token lives longer than the one that was made at its beginning.
    assert (held := await service.refreshed(refresh_token)) != refresh_token
    service.advance(seconds=idle.total_seconds() - 10)
    assert sid in await listed()
    assert (await service.http.post("/user/refresh-token", json={"refresh_token": refresh_token})).status_code == 401
    service.advance(seconds=20)
    assert problem(await service.refresh(held)) == (401, "refresh_token_expired")
    assert sid not in await listed()


async def test_ones_own_session_is_listed_even_where_its_access_token_outlives_the_refresh_token(start: Start) -> None:
    service = await start(refresh_token_ttl="60", access_token_ttl="600")
    user = await service.register()
    service.advance(seconds=500)
    [own] = (await service.http.get("/user/sessions", headers=user.bearer)).json()
    assert own["current"]


async def test_one_session_is_ended_by_its_id(service: Service) -> None:
    user = await service.register()
    other = await service.login(user)
    sid = claims_of(other.access_token)["sid"]
    assert (await service.http.delete(f"/user/sessions/{sid}", headers=user.bearer)).status_code == 204
    assert problem(await service.refresh(other.refresh_token)) == (401, "refresh_token_revoked")
    assert (await service.refresh(user.refresh_token)).status_code == 200


@pytest.mark.parametrize("session_id", ["stranger", "00000000-0000-4000-8000-000000000000", "nonsense", "%00"])
async def test_somebody_elses_session_and_no_session_are_not_found(service: Service, session_id: str) -> None:
    user, stranger = await service.register(), await service.register()
    if session_id == "stranger":
        session_id = claims_of(stranger.access_token)["sid"]
    answer = await service.http.delete(f"/user/sessions/{session_id}", headers=user.bearer)
    assert problem(answer) == (404, "not_found")
    assert (await service.refresh(stranger.refresh_token)).status_code == 200


async def test_all_sessions_are_ended_at_once_this_one_too(service: Service) -> None:
    user = await service.register()
    other = await service.login(user)
    assert (await service.http.delete("/user/sessions", headers=user.bearer)).status_code == 204
    for session in (user, other):
        assert problem(await service.refresh(session.refresh_token)) == (401, "refresh_token_revoked")
        assert problem(await service.me(session.access_token)) == (401, "invalid_token")


@pytest.mark.parametrize(
    "path", ["/user/register/", "/user/login/", "/user/refresh-token/", "/user/logout/", "/user/password/"]
)
async def test_a_slash_at_the_end_is_no_redirect(service: Service, path: str) -> None:
    answer = await service.http.post(path, json={})
    assert answer.status_code in (400, 401), answer.text
    answer = await service.http.get("/user/me/")
    assert problem(answer) == (401, "invalid_token")


async def test_refreshing_without_any_token_names_what_is_missing(service: Service) -> None:
    for answer in (
        await service.http.post("/user/refresh-token"),
        await service.http.post("/user/refresh-token", json={}),
    ):
        assert problem(answer) == (401, "invalid_token")
        assert answer.json()["errors"][0]["field"] == "refresh_token"


async def test_no_credentials_are_challenged_without_an_error_and_bad_ones_with_it(service: Service) -> None:
    anonymous = await service.http.get("/user/me")
    assert anonymous.headers["www-authenticate"] == 'Bearer realm="auth-service"'
    for credentials in ("Bearer x.y.z", "bearer nonsense"):
        bad = await service.http.get("/user/me", headers={"Authorization": credentials})
        assert problem(bad) == (401, "invalid_token")
        assert 'error="invalid_token"' in bad.headers["www-authenticate"], credentials
    basic = await service.http.get("/user/me", headers={"Authorization": "Basic eDp5"})
    assert "error" not in basic.headers["www-authenticate"]


@pytest.mark.parametrize(
    "values", [["Bearer"], ["Bearer  "], ["Bearer a b"], ["Bearer a\tb"], ["Bearer a", "Basic eA=="]]
)
async def test_what_is_not_one_access_token_is_a_bad_request_with_a_challenge_as_it_is_downstream(
    service: Service, values: list[str]
) -> None:
    headers = [("Authorization", value) for value in values]
    bad = await service.http.get("/user/me", headers=headers)
    assert problem(bad) == (400, "invalid_request")
    assert bad.headers["www-authenticate"] == INVALID_REQUEST.replace(REALM, 'realm="auth-service"')


async def test_the_session_keeps_where_it_was_opened_from(start: Start) -> None:
    service: Service = await start(trusted_proxies="127.0.0.0/8")
    user = await service.register()
    hops = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 127.0.0.2", "User-Agent": "browser\x7f" + "x" * 300}
    answer = await service.http.post("/user/login", json={"email": user.email, "password": PASSWORD}, headers=hops)
    [latest, first] = (await service.http.get("/user/sessions", headers=user.bearer)).json()
    assert answer.status_code == 200
    assert (first["ip"], latest["ip"]) == ("127.0.0.1", "203.0.113.9")
    assert latest["user_agent"] == ("browser" + "x" * 300)[:256]


async def test_an_untrusted_peer_cannot_choose_its_address(service: Service) -> None:
    user = await service.register()
    await service.http.post(
        "/user/login",
        json={"email": user.email, "password": PASSWORD},
        headers={"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"},
    )
    listed = (await service.http.get("/user/sessions", headers=user.bearer)).json()
    assert {item["ip"] for item in listed} == {"127.0.0.1"}


@pytest.mark.parametrize("what", ["disable", "password", "end"])
async def test_an_account_with_very_many_sessions_can_still_be_stopped(service: Service, what: str) -> None:
    user = await service.register()
    await service.sql(
        "INSERT INTO sessions (id, user_id, client_id, transport, scope, created_at, expires_at, last_used_at)"
        " SELECT gen_random_uuid(), user_id, client_id, transport, scope, created_at, expires_at, last_used_at"
        " FROM generate_series(1, 12000), (SELECT * FROM sessions LIMIT 1) AS session"
    )
    users, user_id = service.app.parts.users, UUID(user.id)
    match what:
        case "disable":
            await users.disable(user_id, by=OPERATOR)
            kept = 0
        case "password":
            body = {"current_password": PASSWORD, "new_password": "another correct horse"}
            answer = await service.http.post("/user/password", json=body, headers=user.bearer)
            assert answer.status_code == 204
            kept = 1
        case _:
            assert await users.end_sessions(user_id, reason="admin", by=OPERATOR) == 12001
            kept = 0
    [live] = await service.sql("SELECT count(*) FROM sessions WHERE revoked_at IS NULL")
    assert live["count"] == kept
    [journaled] = await service.sql("SELECT count(*) FROM revocations WHERE kind = 's'")
    assert journaled["count"] == 12001 - kept
    counts = [json.loads(event["details"]).get("sessions") for event in await events(service)]
    assert counts.count(5000) == 2, "no transaction ended more than it may"
