"""The revocation feed: what verifiers are told, in which order, and after which deeds. Real processes."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from auth_service.audit import OPERATOR
from auth_service.parts import Parts
from auth_service.revocation import journal
from auth_service.revocation.live_set import BATCH
from auth_service.revocation.stream import BLOCK, StreamReader, StreamWriter
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.redis import open_blocking_redis
from auth_service.verifier.claims import MAX_LEEWAY
from auth_service.verifier.revocations import Entry, revocation_id
from tests.support.command import command
from tests.support.feed import (
    AT_ONCE,
    EVENT_STREAM,
    Users,
    delay_of,
    metric,
    metric_is,
    named,
    open_feed,
    until,
    users_of,
)
from tests.support.processes import served
from tests.support.service import PASSWORD, WINDOW, Service, SignedIn, Start, problem, signed_in
from tests.support.tokens import claims_of

MakeSettings = Callable[..., Settings]

_NEW_PASSWORD = "another horse battery staple"


# What is told, and in which order.


async def test_the_feed_opens_with_the_whole_set_and_then_beats(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        async with users_of(process) as users:
            first, second = await users.register(), await users.register()
            await users.logout(first)
            async with open_feed(process.url) as feed:
                assert feed.types == ["hello", "revoke", "live", "beat"]
                assert feed.events[0].data == {"iss": settings().issuer, "heartbeat": 1}
                [[kind, identifier, expires_at]] = feed.events[1].data
                assert (kind, identifier) == ("s", named(first))
                retention = journal.RETENTION.total_seconds()
                assert retention - 60 < expires_at - time.time() <= retention + 1
                assert feed.events[2].data == {}
                await feed.until_beats(3)
                await users.logout(second)
                await feed.until(lambda: named(second) in feed.ids)
                assert feed.types.index("revoke", 2) > feed.types.index("live")
                beats = [event.at for event in feed.of("beat")][1:]
                gaps = [later - earlier for earlier, later in itertools.pairwise(beats)]
                assert all(0.7 < gap < 1.3 for gap in gaps), gaps
                assert max(feed.ages(since=0)) < 1.5


async def test_the_stream_says_how_it_may_be_kept_and_ignores_the_query(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        async with httpx2.AsyncClient(base_url=process.url) as http:
            async with http.stream("GET", "/revocations?x=1&x=2", headers=EVENT_STREAM) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["x-accel-buffering"] == "no"
            for accept in ("text/event-stream", "application/json"):
                head = await http.head("/revocations", headers={"Accept": accept})
                assert (head.status_code, head.content) == (200, b"")
                assert head.headers["content-type"].startswith(accept)
            for accept in (
                "text/event-stream;q=0.1",
                "application/json, text/event-stream",
                "application/json;q=0.5, TEXT/event-stream ; Q=0.5",
                "text/event-stream;q=0.9, */*;q=0.8",
                "text/event-stream;q=0.1, text/event-stream, application/json;q=0.5",
                "text/event-stream;q=0.5, application/json;q=0.4, */*",
            ):
                head = await http.head("/revocations", headers={"Accept": accept})
                assert head.headers["content-type"].startswith("text/event-stream"), accept


async def test_open_streams_do_not_count_as_slow_requests(settings: MakeSettings, tmp_path: Path) -> None:
    with served(settings(), tmp_path) as [process]:
        async with open_feed(process.url) as feed, httpx2.AsyncClient() as http:
            assert await metric(http, process, "auth_revocation_feed_clients") == 1
            await feed.until_beats(2)
        async with httpx2.AsyncClient() as http:
            await until(lambda: metric_is(http, process, "auth_revocation_feed_clients", 0))
            assert await metric(http, process, 'auth_http_requests_total{method="GET",route="/revocations"') == 1
            assert await metric(http, process, 'auth_http_request_duration_seconds_sum{route="/revocations"}') < 1
            assert await metric(http, process, "auth_revocation_feed_age_seconds") < 2


# Every way of ending a session is told by the feed of another process, at once and once.


async def test_every_way_of_ending_a_session_is_told_at_once_and_once(settings: MakeSettings, tmp_path: Path) -> None:
    offset_file = tmp_path / "offset"
    offset_file.write_text("0")
    made = settings()
    with served(made, tmp_path, count=2, offset_file=offset_file) as [one, other]:
        parts = Parts(made, Clock())
        await parts.open()
        async with users_of(one) as users, open_feed(one.url) as own, open_feed(other.url) as feed:
            for name, end in _ENDINGS.items():
                user = await users.register()
                await end(users, user, parts)
                answered = time.monotonic()
                delay = await delay_of(feed, named(user), answered)
                assert delay < AT_ONCE, (name, delay)
                if name not in _ELSEWHERE:
                    assert await delay_of(own, named(user), answered) < AT_ONCE, name
            # As many more as make it certain that the journal was read again, by both.
            await asyncio.gather(own.until_beats(3), feed.until_beats(3))
            for told in (own, feed):
                assert len(told.ids) == len(set(told.ids)) == len(_ENDINGS)
            offset_file.write_text(str(WINDOW + 1))
            user = await users.register()
            assert (await users.refresh(user.refresh_token)).status_code == 200
            offset_file.write_text(str(2 * (WINDOW + 1)))
            assert problem(await users.refresh(user.refresh_token)) == (401, "refresh_token_reused")
            assert await delay_of(feed, named(user), time.monotonic()) < AT_ONCE
        await parts.close()


async def _by_logout(users: Users, user: SignedIn, _parts: Parts) -> None:
    await users.logout(user)


async def _by_ending_it(users: Users, user: SignedIn, _parts: Parts) -> None:
    session_id = claims_of(user.access_token)["sid"]
    assert (await users.http.delete(f"/user/sessions/{session_id}", headers=user.bearer)).status_code == 204


async def _by_ending_all(users: Users, user: SignedIn, _parts: Parts) -> None:
    assert (await users.http.delete("/user/sessions", headers=user.bearer)).status_code == 204


async def _by_a_new_password_from_another_session(users: Users, user: SignedIn, _parts: Parts) -> None:
    login = await users.http.post("/user/login", json={"email": user.email, "password": PASSWORD})
    body = {"current_password": PASSWORD, "new_password": _NEW_PASSWORD}
    answer = await users.http.post("/user/password", json=body, headers=signed_in(login).bearer)
    assert answer.status_code == 204, answer.text


async def _by_a_login_with_its_cookie(users: Users, user: SignedIn, _parts: Parts) -> None:
    answer = await users.http.post(
        "/user/login",
        json={"email": user.email, "password": PASSWORD, "transport": "cookie"},
        headers={"Origin": "https://app.test", "Cookie": f"__Host-refresh_token={user.refresh_token}"},
    )
    assert answer.status_code == 200, answer.text


async def _by_a_registration_with_its_cookie(users: Users, user: SignedIn, _parts: Parts) -> None:
    answer = await users.http.post(
        "/user/register",
        json={"username": "next", "email": "next@example.com", "password": PASSWORD, "transport": "cookie"},
        headers={"Origin": "https://app.test", "Cookie": f"__Host-refresh_token={user.refresh_token}"},
    )
    assert answer.status_code == 201, answer.text


async def _by_disabling(_users: Users, user: SignedIn, parts: Parts) -> None:
    await parts.users.disable(UUID(user.id), by=OPERATOR)


async def _by_deletion(_users: Users, user: SignedIn, parts: Parts) -> None:
    await parts.users.delete(UUID(user.id), by=OPERATOR)


async def _by_setting_the_password(_users: Users, user: SignedIn, parts: Parts) -> None:
    await parts.users.set_password(UUID(user.id), _NEW_PASSWORD, by=OPERATOR)


async def _by_command(_users: Users, user: SignedIn, parts: Parts) -> None:
    session_id = claims_of(user.access_token)["sid"]
    done = await asyncio.to_thread(command, "sessions", "revoke", session_id, settings=parts.settings)
    assert done.code == 0, done.err


_ELSEWHERE = {"disabling": _by_disabling, "deletion": _by_deletion, "set": _by_setting_the_password, "cli": _by_command}
_ENDINGS = {
    "logout": _by_logout,
    "one session": _by_ending_it,
    "all sessions": _by_ending_all,
    "password": _by_a_new_password_from_another_session,
    "login": _by_a_login_with_its_cookie,
    "registration": _by_a_registration_with_its_cookie,
    **_ELSEWHERE,
}


@pytest.mark.parametrize("how", ["all sessions", "disabling", "deletion", "set"])
async def test_ending_all_again_tells_again_of_what_ended_before_and_counts_it_no_second_time(
    service: Service, how: str
) -> None:
    parts, user = service.app.parts, await service.register()
    users, user_id = parts.users, UUID(user.id)
    async with parts.database.transaction() as transaction:  # by a process that told nobody: it was stopped
        session_id, now = UUID(claims_of(user.access_token)["sid"]), await parts.database.now()
        await parts.ending.end_within(transaction, [session_id], reason="logout", now=now)
    if how == "all sessions":
        assert await users.end_sessions(user_id, reason="admin", by=OPERATOR) == 0
    elif how == "disabling":
        await users.disable(user_id, by=OPERATOR)
    elif how == "deletion":
        await users.delete(user_id, by=OPERATOR)
    else:
        await users.set_password(user_id, _NEW_PASSWORD, by=OPERATOR)
    async with _reader(service) as reader:
        assert [identifier for [(_, identifier, _)] in (await reader.read()).batches()] == [named(user)]


async def test_a_long_stream_is_read_in_pieces(service: Service) -> None:
    entries: list[Entry] = [("s", revocation_id(str(number)), 4_000_000_000) for number in range(101 * BATCH)]
    await StreamWriter(service.redis).push(entries)
    async with _reader(service) as reader:
        first, second = await reader.read(), await reader.read()
    pieces = [list(first.batches()), list(second.batches())]
    assert [entry for read in pieces for batch in read for entry in batch] == entries
    assert [len(read) for read in pieces] == [100, 1]
    assert (first.complete, second.complete) == (False, True)


@asynccontextmanager
async def _reader(service: Service) -> AsyncIterator[StreamReader]:
    """From the beginning of the stream."""
    url = service.app.parts.settings.redis_url.get_secret_value()
    reader = StreamReader(open_blocking_redis(url, block=BLOCK))
    try:
        yield reader
    finally:
        await reader.close()


# As JSON.


async def test_the_set_as_json_is_the_same_from_every_process(start: Start) -> None:
    one, other = await start(), await start()
    users = [await one.register() for _ in range(3)]
    for user in users:
        assert (await one.logout(user.refresh_token)).status_code == 204
    expected = sorted(named(user) for user in users)

    async def told_by_both() -> bool:
        answers = [await service.http.get("/revocations") for service in (one, other)]
        return all([entry[1] for entry in answer.json()["revocations"]] == expected for answer in answers)

    await until(told_by_both)
    first, second = [await service.http.get("/revocations") for service in (one, other)]
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]
    assert first.json()["iss"] == one.settings.issuer
    assert first.headers["cache-control"] == "no-cache"
    assert 0 <= int(first.headers["age"]) <= 3
    unchanged = await other.http.get("/revocations", headers={"If-None-Match": first.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert unchanged.headers["etag"] == first.headers["etag"]
    assert "age" in unchanged.headers
    another = await one.register()
    await one.logout(another.refresh_token)
    changed = await one.http.get("/revocations", headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert named(another) in [entry[1] for entry in changed.json()["revocations"]]


@pytest.mark.parametrize(
    "accept",
    [
        *(None, "*/*", "application/json", "text/html", "text/event-stream;q=0", "text/event-streams", "", ";;,"),
        "application/json, text/event-stream;q=0.1",
        "text/event-stream;q=0.9, application/*",
        "*/*, text/event-stream; q=0.5",
        "text/event-stream;q=0.000",
    ],
)
async def test_who_does_not_name_an_event_stream_or_wants_json_more_is_given_json(
    service: Service, accept: str | None
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = await service.http.get("/revocations", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"iss": service.settings.issuer, "revocations": []}


async def test_a_process_that_is_going_sends_verifiers_elsewhere(service: Service) -> None:
    service.app.feed.close()
    for accept in ("application/json", "text/event-stream"):
        assert problem(await service.http.get("/revocations", headers={"Accept": accept})) == (503, "unavailable")


async def test_nothing_of_a_user_is_in_the_feed(service: Service) -> None:
    user = await service.register()
    await service.logout(user.refresh_token)
    text = (await service.http.get("/revocations")).text
    for secret in (user.id, claims_of(user.access_token)["sid"], claims_of(user.access_token)["jti"], user.username):
        assert secret not in text


async def test_an_entry_is_dropped_when_no_access_token_can_be_alive_any_more(service: Service) -> None:
    user = await service.register()
    await service.logout(user.refresh_token)
    service.advance(seconds=journal.RETENTION.total_seconds() - 5)
    identifier = named(user)
    began = time.monotonic()
    while time.monotonic() < began + 1.5:  # more than one reading of the journal
        assert identifier in (await service.http.get("/revocations")).text
        await asyncio.sleep(0.05)
    service.advance(seconds=7)

    async def dropped() -> bool:
        return identifier not in (await service.http.get("/revocations")).text

    await until(dropped, seconds=5)


async def test_an_entry_outlives_the_longest_token_and_the_most_leeway_of_a_verifier(start: Start) -> None:
    service = await start(access_token_ttl=3600)
    user = await service.register()
    await service.logout(user.refresh_token)
    [entry] = (await service.http.get("/revocations")).json()["revocations"]
    claims = claims_of(user.access_token)
    assert claims["exp"] - claims["iat"] == 3600, "the longest that the setting allows"
    assert entry[2] > claims["exp"] + MAX_LEEWAY


async def test_every_key_of_the_stream_has_a_life(service: Service) -> None:
    user = await service.register()
    await service.logout(user.refresh_token)
    assert 0 < await service.redis.pttl("auth:revocations") <= 120_000
