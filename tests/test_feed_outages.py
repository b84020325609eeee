"""The revocation feed while stores are lost: what it tells, how soon, and how old it says it is. Real processes; the
stores that are stopped are this file's own."""

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest
from redis import Redis

from auth_service.devstack.postgresql import PrivatePostgreSQL
from auth_service.devstack.redis import PrivateRedis
from auth_service.settings import Settings
from auth_service.verifier import RevokedToken, Verifier
from tests.support.balancer import Balancer
from tests.support.feed import AT_ONCE, EVENT_STREAM, delay_of, named, open_feed, until, until_true, users_of
from tests.support.processes import ServedProcess, served
from tests.support.proxy import Proxy
from tests.support.service import problem
from tests.support.stores import Stores, suspended

MakeSettings = Callable[..., Settings]

_BY_JOURNAL = 2.0
"""Seconds in which another process' feed tells of what was answered while Redis is of no use."""
_LEFT_WITHIN = 12.0
"""Seconds until a verifier has left a process that is cut off: its age must pass five of them, and a balancer may lead
back to it once."""
_STALE = 3.0
"""Seconds that the feed must stay younger than, as long as one of the stores can vouch for it."""


# Redis is of no use.


@pytest.mark.parametrize("loss", ["stopped", "demoted"])
async def test_without_a_redis_that_takes_writes_the_journal_tells(
    fragile: Stores, fragile_settings: MakeSettings, tmp_path: Path, loss: str
) -> None:
    with served(fragile_settings(), tmp_path, count=2) as [one, other]:
        async with users_of(one) as users, open_feed(one.url) as own, open_feed(other.url) as feed:
            signed = [await users.register() for _ in range(4)]
            async with _lost(fragile.redis) if loss == "stopped" else _demoted(fragile.redis):
                for user in signed:
                    identifier, answered = await users.logout(user)
                    assert await delay_of(own, identifier, answered) < AT_ONCE
                    assert await delay_of(feed, identifier, answered) < _BY_JOURNAL
                assert max(feed.ages(since=0)) < _STALE
            # And it is heard of in time again once Redis is back.
            await feed.until_beats(3)
            user = await users.register()
            identifier, answered = await users.logout(user)
            assert await delay_of(feed, identifier, answered) < AT_ONCE
            assert len(feed.ids) == len(set(feed.ids)) == 5


@pytest.mark.parametrize("loss", ["flushed", "replaced", "written to by somebody else", "another type"])
async def test_whatever_redis_forgets_the_feed_does_not(
    fragile: Stores, fragile_settings: MakeSettings, tmp_path: Path, loss: str
) -> None:
    with served(fragile_settings(), tmp_path, count=2) as [one, other]:
        async with users_of(one) as users, open_feed(other.url) as feed:
            for _ in range(3):
                user = await users.register()
                identifier, answered = await users.logout(user)
                with contextlib.closing(Redis.from_url(fragile.redis.url())) as redis:
                    if loss == "flushed":
                        redis.flushall()
                    elif loss == "replaced":
                        await asyncio.to_thread(fragile.redis.stop, signal.SIGKILL)
                        await asyncio.to_thread(fragile.redis.start)
                    elif loss == "another type":
                        redis.delete("auth:revocations")
                        redis.set("auth:revocations", "x")
                    else:
                        for message in _UNREADABLE:
                            redis.xadd("auth:revocations", message)
                assert await delay_of(feed, identifier, answered) < _BY_JOURNAL
            assert other.popen.poll() is None
            async with open_feed(other.url) as later:
                assert sorted(later.ids) == sorted(feed.ids)
            # The next message puts right what may be wrong with the stream, and it is of use again.
            for limit in (_BY_JOURNAL, AT_ONCE):
                user = await users.register()
                identifier, answered = await users.logout(user)
                assert await delay_of(feed, identifier, answered) < limit
                await feed.until_beats(2)
            assert len(feed.ids) == len(set(feed.ids)) == 5


_UNREADABLE: tuple[dict[Any, Any], ...] = (
    {"x": "y"},
    {"entries": "x"},
    {"entries": b"\xff\xfe"},
    {"entries": "[[1,2,3]]"},
    {"entries": '[["s","short",1]]'},
    {"entries": '[["s"]]'},
    {"entries": '{"s":1}'},
    {"entries": '[[["s"],"AAAAAAAAAAAAAAAAAAAAAA",9999999999]]'},
    {"entries": '[["s","AAAAAAAAAAAAAAAAAAAAAA",NaN]]'},
    {"entries": f'[["s","AAAAAAAAAAAAAAAAAAAAAA",1{"0" * 400}]]'},
    {"entries": f'[["s","AAAAAAAAAAAAAAAAAAAAAA",1{"0" * 5000}]]'},
    {"entries": "[" * 50_000},
)


@asynccontextmanager
async def _lost(server: PrivatePostgreSQL | PrivateRedis) -> AsyncIterator[None]:
    # The tests' PostgreSQL does not wait for the disk: one that is killed would take the last half second along.
    number = signal.SIGINT if isinstance(server, PrivatePostgreSQL) else signal.SIGKILL
    await asyncio.to_thread(server.stop, number)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def _demoted(server: PrivateRedis) -> AsyncIterator[None]:
    """A replica of a master that is nowhere: it answers whatever is asked, and takes no write."""
    with contextlib.closing(Redis.from_url(server.url())) as redis:
        redis.replicaof("127.0.0.1", 1)
        try:
            yield
        finally:
            redis.replicaof("NO", "ONE")


@asynccontextmanager
async def _hanging(server: PrivatePostgreSQL | PrivateRedis) -> AsyncIterator[None]:
    with suspended(server):
        yield


# PostgreSQL commits late.


async def test_a_logout_whose_commit_waits_for_a_standby_is_told_once_it_is_there(
    fragile: Stores, fragile_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = fragile_settings()
    url = settings.database_url.get_secret_value()
    async with _waiting_for_a_standby(url) as [begin, end]:
        with served(settings, tmp_path) as [process]:
            async with users_of(process) as users, open_feed(process.url) as feed:
                user = await users.register()
                await begin()
                answer = await users.http.post("/user/logout", json={"refresh_token": user.refresh_token})
                assert problem(answer) == (503, "unavailable")
                await feed.until_beats(12)  # longer than any limit of ours
                assert named(user) not in feed.ids
                assert max(feed.ages(since=0)) < _STALE
                await end()
                assert await delay_of(feed, named(user), time.monotonic()) < _BY_JOURNAL


@asynccontextmanager
async def _waiting_for_a_standby(url: str) -> AsyncIterator[tuple[Callable[[], Awaitable[None]], ...]]:
    """Make this database's commits wait for a standby that is nowhere, from one moment to another."""
    server, _, name = url.rpartition("/")
    admin = await asyncpg.connect(f"{server}/postgres")
    await admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = on")  # which the tests' server does without
    writer = await asyncpg.connect(url)
    waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

    async def write() -> None:
        while not await admin.fetchval(waiting):
            with contextlib.suppress(TimeoutError):
                await writer.execute("SELECT pg_logical_emit_message(true, '', '')", timeout=0.2)

    async def begin() -> None:
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nowhere'")
        await admin.execute("SELECT pg_reload_conf()")
        await write()

    async def end() -> None:
        await admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await admin.execute("SELECT pg_reload_conf()")

    try:
        yield begin, end
    finally:
        await end()
        writer.terminate()
        await admin.close()


# The age that the feed tells.


@pytest.mark.parametrize("how", [_lost, _hanging], ids=["stopped", "hanging"])
async def test_while_only_postgresql_is_away_the_feed_stays_young(
    fragile: Stores, fragile_settings: MakeSettings, tmp_path: Path, how: Any
) -> None:
    with served(fragile_settings(), tmp_path) as [process]:
        async with open_feed(process.url) as feed:
            async with how(fragile.postgresql):
                began = time.monotonic()
                await feed.until_beats(7)
                ages = feed.ages(since=began)
                assert len(ages) >= 7
                assert max(ages) < _STALE
                answer = httpx2.get(f"{process.url}/revocations")
                assert int(answer.headers["age"]) <= math.ceil(_STALE)
            back = time.monotonic()
            await feed.until_beats(5)
            assert max(feed.ages(since=back)) < _STALE


@pytest.mark.parametrize("redis_is", ["stopped", "demoted", "hanging"])
async def test_while_nothing_can_vouch_for_it_the_age_grows_as_the_time_does(
    fragile: Stores, fragile_settings: MakeSettings, tmp_path: Path, redis_is: str
) -> None:
    losses = {"stopped": _lost, "demoted": _demoted, "hanging": _hanging}
    with served(fragile_settings(), tmp_path) as [process]:
        async with open_feed(process.url) as feed:
            async with losses[redis_is](fragile.redis), _lost(fragile.postgresql):
                gone = time.monotonic()
                await feed.until_beats(6)
                for event in feed.of("beat"):
                    if event.at > gone:
                        # Younger than the loss it must never be; older than it by one reading and one pause at most.
                        assert event.at - gone - 0.05 < event.data["age"] < event.at - gone + _STALE + 1
                answer = httpx2.get(f"{process.url}/revocations")
                assert int(answer.headers["age"]) >= 5
            await feed.until(lambda: feed.of("beat")[-1].data["age"] < 2)


async def test_a_process_that_was_cut_off_for_long_catches_up(
    fragile: Stores, fragile_settings: MakeSettings, tmp_path: Path
) -> None:
    link = Proxy(fragile.postgresql.port)
    settings = fragile_settings()
    direct = settings.database_url.get_secret_value()
    through = direct.replace(f":{fragile.postgresql.port}/", f":{link.port}/")
    assert through != direct
    with served(settings, tmp_path) as [one], served(fragile_settings(database_url=through), tmp_path) as [other]:
        async with users_of(one) as users, open_feed(other.url) as feed:
            user, quick = await users.register(), await users.register()
            async with _lost(fragile.redis):
                link.hold("to_server")
                link.hold("to_client")
                cut = time.monotonic()
                identifier, _ = await users.logout(user)
                # Longer than what is read again each time.
                await feed.until(lambda: feed.of("beat")[-1].data["age"] > 12, seconds=20)
                assert time.monotonic() - cut > 11
                assert identifier not in feed.ids
                link.release("to_server")
                link.release("to_client")
                restored = time.monotonic()
                assert await delay_of(feed, identifier, restored) < 3
                identifier, answered = await users.logout(quick)
                assert await delay_of(feed, identifier, answered) < _BY_JOURNAL
            await feed.until_beats(3)
            assert len(feed.ids) == len(set(feed.ids)) == 2
    link.close()


async def test_a_process_that_starts_without_postgresql_says_nothing_until_it_knows_all(
    fragile: Stores, fragile_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = fragile_settings()
    with served(settings, tmp_path) as [process]:
        async with users_of(process) as users:
            identifier, _ = await users.logout(await users.register())
    async with contextlib.AsyncExitStack() as outage:
        await outage.enter_async_context(_lost(fragile.postgresql))
        late = ServedProcess(settings, tmp_path)
        try:
            async with httpx2.AsyncClient() as http:
                await until(lambda: _answers(http, late, 503), seconds=20)
                for headers in (EVENT_STREAM, {}):
                    answer = await http.get(f"{late.url}/revocations", headers=headers)
                    assert problem(answer) == (503, "unavailable")
                await outage.aclose()
                await until(lambda: _answers(http, late, 200))
            async with open_feed(late.url) as feed:
                assert identifier in feed.ids
        finally:
            late.stop()


async def _answers(http: httpx2.AsyncClient, process: ServedProcess, status: int) -> bool:
    try:
        return (await http.get(f"{process.url}/revocations")).status_code == status
    except httpx2.TransportError:
        return False


# One process is cut off from both stores, and the other is not.


async def test_verifiers_leave_a_process_that_is_cut_off_for_one_that_is_not(
    stores: Stores, settings: MakeSettings, tmp_path: Path
) -> None:
    redis_port = urlsplit(stores.redis_url).port
    to_postgresql, to_redis = Proxy(stores.postgresql.port), Proxy(redis_port or 0)
    with contextlib.closing(to_postgresql), contextlib.closing(to_redis), Balancer([]) as balancer:
        made = settings(issuer=f"http://127.0.0.1:{balancer.port}", audiences="api")
        database = made.database_url.get_secret_value()
        cut_off = settings(
            issuer=made.issuer,
            audiences="api",
            database_url=database.replace(f":{stores.postgresql.port}/", f":{to_postgresql.port}/"),
            redis_url=stores.redis_url.replace(f":{redis_port}", f":{to_redis.port}"),
        )
        with served(cut_off, tmp_path) as [one], served(made, tmp_path) as [other]:
            balancer.targets = [one.port]
            async with users_of(other) as users, Verifier(made.issuer, audience="api") as verifier:
                user = await users.register()
                await verifier.verify(user.access_token)
                balancer.targets = [one.port, other.port]
                for proxy in (to_postgresql, to_redis):
                    proxy.hold("to_server")
                    proxy.hold("to_client")
                await until_true(lambda: (verifier.staleness or 0) > 2)
                await users.logout(user)
                await verifier.verify(user.access_token)  # the one that it hears knows nothing of it
                with pytest.raises(RevokedToken):
                    await asyncio.wait_for(refused(verifier, user.access_token), _LEFT_WITHIN)
                assert (verifier.staleness or 0) < _STALE
                for proxy in (to_postgresql, to_redis):
                    proxy.release("to_server")
                    proxy.release("to_client")


async def refused(verifier: Verifier, access_token: str) -> None:
    while True:
        await verifier.verify(access_token)
        await asyncio.sleep(0.05)
