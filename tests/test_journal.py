"""The revocation journal as it is read: nothing is left out, however late it is committed and whatever PostgreSQL does
meanwhile. A PostgreSQL of this file's own."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from auth_service.errors import Unavailable
from auth_service.revocation import journal
from auth_service.revocation.follower import Follower
from auth_service.revocation.live_set import LiveSet
from auth_service.revocation.stream import BLOCK, StreamReader
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database
from auth_service.stores.redis import open_blocking_redis
from auth_service.verifier.revocations import revocation_id
from tests.support.feed import until_true
from tests.support.proxy import Proxy
from tests.support.stores import Stores, stopped

MakeSettings = Callable[..., Settings]

_LONG_AGO = timedelta(minutes=5)
"""Further back than any transaction takes, as far as limits cover it."""


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, Clock())
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def url(fragile_settings: MakeSettings) -> str:
    return fragile_settings().database_url.get_secret_value()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with _opened(url) as database:
        yield database


async def _revoke(url: str, claim: str, *, ago: timedelta = timedelta(0)) -> None:
    """Another process' entry, dated as if its commit had taken so long. It is written even while writes are refused."""
    connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    await connection.execute(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " VALUES ('s', $1, 'logout', clock_timestamp() - $2::interval, clock_timestamp() + interval '1 hour')",
        claim,
        ago,
    )
    await connection.close()


async def _read(
    database: Database, position: journal.Position, last: journal.Position | None
) -> tuple[list[str], list[int]]:
    """The ids of a whole reading, and how many came with each page."""
    ids: list[str] = []
    sizes: list[int] = []
    after = None
    while True:
        page = await journal.read_page(database, position, last=last, after=after)
        found = [identifier for batch in page.batches(500) for (_, identifier, _), _ in batch]
        ids += found
        sizes.append(len(found))
        after = page.end
        if after is None:
            return ids, sizes


# Commits that come late.


async def test_what_was_being_committed_at_one_reading_is_found_by_the_next_however_long_it_takes(
    database: Database,
) -> None:
    now = await database.now()
    async with database.transaction() as transaction:
        await journal.revoke(transaction, "s", ["late"], reason="logout", now=now - _LONG_AGO)
        last = await journal.read_position(database, database.clock)
        assert await _read(database, last, None) == ([], [0])
    position = await journal.read_position(database, database.clock)
    assert position.goes_on_from(last)
    assert await _read(database, position, last) == ([revocation_id("late")], [1])
    # And it is not read for ever.
    later = await journal.read_position(database, database.clock)
    assert await _read(database, later, position) == ([], [0])


async def test_another_role_is_waited_for_as_well(database: Database, url: str) -> None:
    await database.rows("CREATE ROLE elsewhere LOGIN PASSWORD 'elsewhere'")
    try:
        await database.rows("GRANT SELECT, INSERT ON revocations TO elsewhere")
        await database.rows("GRANT USAGE ON SEQUENCE revocations_id_seq TO elsewhere")
        async with _opened(f"postgresql://elsewhere:elsewhere@{url.rpartition('@')[2]}") as other:
            now = await database.now()
            async with database.transaction() as transaction:
                await journal.revoke(transaction, "s", ["late"], reason="logout", now=now - _LONG_AGO)
                last = await journal.read_position(other, other.clock)
            position = await journal.read_position(other, other.clock)
            assert await _read(other, position, last) == ([revocation_id("late")], [1])
    finally:
        await database.rows("DROP OWNED BY elsewhere")
        await database.rows("DROP ROLE elsewhere")


async def test_a_reading_of_many_pages_has_every_row_once(database: Database) -> None:
    last = await journal.read_position(database, database.clock)
    # As one transaction writes them: a third has the same date and the same end.
    await database.rows(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " SELECT 's', n::text, 'admin', date, date + interval '1 hour' FROM generate_series(1, 30000) AS n,"
        " LATERAL (SELECT now() + make_interval(secs => n % 3)) AS t (date)"
    )
    expected = sorted(revocation_id(str(number)) for number in range(1, 30001))
    position = await journal.read_position(database, database.clock)
    for since in (None, last):
        ids, sizes = await _read(database, position, since)
        assert sorted(ids) == expected
        assert max(sizes) <= 10_000


async def test_a_reading_does_not_go_on_on_another_server(database: Database) -> None:
    position = await journal.read_position(database, database.clock)
    other = replace(position, started=position.started - timedelta(days=1))
    assert not position.goes_on_from(other)
    assert not position.goes_on_from(replace(position, read_only=True))
    assert not position.goes_on_from(replace(position, now=position.now + timedelta(seconds=1)))
    for last in (None, position):
        with pytest.raises(Unavailable):
            await journal.read_page(database, other, last=last, after=None)


# Servers that come and go.


@asynccontextmanager
async def _following(url: str, redis_url: str) -> AsyncIterator[tuple[Follower, LiveSet]]:
    live_set = LiveSet()
    stream = StreamReader(open_blocking_redis(redis_url, block=BLOCK))
    follower = Follower(database=Database(url, Clock(), pool_size=2), stream=stream, live_set=live_set)
    await follower.start()
    try:
        yield follower, live_set
    finally:
        await follower.stop()


@asynccontextmanager
async def _taking_no_writes(url: str) -> AsyncIterator[None]:
    """Whoever connects meanwhile finds a server that takes no writes, and whoever was connected has to do so anew."""
    name = url.rpartition("/")[2]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
            name,
        )
        yield
        await connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    finally:
        await connection.close()


@pytest.mark.parametrize("begun", ["before", "meanwhile"])
async def test_what_a_server_that_takes_no_writes_did_not_have_is_read_once_it_takes_them(
    url: str, fragile: Stores, begun: str
) -> None:
    async with AsyncExitStack() as stack:
        if begun == "before":
            follower, live_set = await stack.enter_async_context(_following(url, fragile.redis_url))
            await follower.loaded.wait()
        async with _taking_no_writes(url):
            if begun == "meanwhile":
                follower, live_set = await stack.enter_async_context(_following(url, fragile.redis_url))
            await _revoke(url, "replayed in time")
            await until_true(lambda: live_set.holds("s", "replayed in time"))
            # What the standby had received and not replayed yet.
            await _revoke(url, "replayed late", ago=_LONG_AGO)
            assert follower.loaded.is_set() == (begun == "before")
        await until_true(lambda: live_set.holds("s", "replayed late"))
        await follower.loaded.wait()


async def test_what_another_server_has_is_read_from_its_beginning(url: str, fragile: Stores) -> None:
    link = Proxy(fragile.postgresql.port)
    through = url.replace(f":{fragile.postgresql.port}/", f":{link.port}/")
    try:
        async with _following(through, fragile.redis_url) as [follower, live_set]:
            await follower.loaded.wait()
            link.hold("to_server")
            await asyncio.to_thread(link.wait_until_held, "to_server")
            await _revoke(url, "committed elsewhere", ago=_LONG_AGO)
            async with stopped(fragile.postgresql, signal.SIGINT):
                pass
            link.release("to_server")
            await until_true(lambda: live_set.holds("s", "committed elsewhere"))
    finally:
        link.close()


@pytest.mark.parametrize("found_out", ["by a probe", "by a write"])
async def test_no_connection_outlives_the_time_in_which_no_writes_were_taken(url: str, found_out: str) -> None:
    write = "UPDATE users SET username = username"
    async with _opened(url) as database:
        async with _taking_no_writes(url):
            await _busy(database)
            with pytest.raises(Unavailable):
                await (database.require_writes() if found_out == "by a probe" else database.rows(write))
            if found_out == "by a write":  # each finds out for itself
                outcomes = await asyncio.gather(*(database.rows(write) for _ in range(16)), return_exceptions=True)
                assert {type(outcome) for outcome in outcomes} == {Unavailable}
        for _ in range(2):
            await database.require_writes()
            await asyncio.gather(*(database.rows(write) for _ in range(16)))


async def _busy(database: Database) -> None:
    """Use every connection that the pool may have."""
    await asyncio.gather(*(database.rows("SELECT pg_sleep(0.2)") for _ in range(16)))
