"""Periodic work: one process at a time, whoever dies, fails or stops."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from auth_service.app import create_app
from auth_service.errors import Unavailable
from auth_service.jobs import Job, Jobs, run_step
from auth_service.settings import Settings
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database, Statements
from tests.support.job_process import JOB, TABLES, counted_step
from tests.support.stores import Stores

_OFTEN = timedelta(milliseconds=2)


@pytest.fixture
def url(stores: Stores) -> Iterator[str]:
    made = stores.new_database(empty=True)
    yield made
    stores.drop(made)


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, Clock())
    await database.open()
    for statement in filter(str.strip, TABLES.split(";")):
        await database.rows(statement)
    yield database
    await database.close()


async def _until(true: Callable[[], Awaitable[bool]], *, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextmanager
def _process(url: str, mode: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.job_process", url, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


async def test_of_many_processes_one_at_a_time_does_a_step(opened: Database, url: str) -> None:
    with _process(url, "count") as one, _process(url, "count") as another:

        async def both_have_had_turns() -> bool:
            rows = await opened.rows("SELECT count(*) AS steps FROM steps GROUP BY process")
            return len(rows) >= 2 and all(row["steps"] >= 20 for row in rows)

        await _until(both_have_had_turns)
        assert await opened.rows("SELECT * FROM steps WHERE others_inside > 0") == []
        for process in (one, another):
            process.communicate(timeout=10)
            assert process.returncode == 0, "it stops when it is told to"


async def test_steps_that_were_not_elected_would_be_seen_to_overlap(opened: Database) -> None:
    """Or the test above would prove nothing."""

    async def unelected() -> None:
        async with opened.transaction() as transaction:
            await counted_step(transaction, await opened.now())

    await asyncio.gather(*(unelected() for _ in range(4)))
    assert await opened.rows("SELECT * FROM steps WHERE others_inside > 0") != []


async def test_a_holder_that_is_killed_frees_the_lock(opened: Database, url: str) -> None:
    job = Job(JOB, _OFTEN, counted_step)
    other_job = Job("another job", _OFTEN, counted_step)
    with _process(url, "hold") as holder:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == "inside\n"
        assert await run_step(opened, job) is False
        assert await opened.rows("SELECT 1 FROM steps") == [], "it passed"
        await run_step(opened, other_job)
        assert len(await opened.rows("SELECT 1 FROM steps")) == 1, "each job has a lock of its own"
        holder.kill()

        async def done() -> bool:
            await run_step(opened, job)
            return len(await opened.rows("SELECT 1 FROM steps")) == 2

        await _until(done, seconds=3)


async def test_a_step_that_fails_is_rolled_back_and_the_job_goes_on(opened: Database) -> None:
    tries = 0

    async def step(statements: Statements, _now: datetime) -> bool:
        nonlocal tries
        tries += 1
        await statements.rows("INSERT INTO steps VALUES ($1, 0)", tries)
        if tries == 1:
            raise Unavailable("a store is away")
        if tries == 2:
            raise RuntimeError("a fault of ours")
        if tries == 3:
            await statements.rows("SELECT 1 / 0")
        return False

    jobs = Jobs(opened, [Job(JOB, _OFTEN, step)])
    jobs.start()

    async def recovered() -> bool:
        return len(await opened.rows("SELECT 1 FROM steps")) >= 2

    await _until(recovered)
    await jobs.stop()
    assert (await opened.rows("SELECT min(process) AS first FROM steps"))[0]["first"] == 4


async def test_a_step_that_has_more_to_do_is_followed_at_once(opened: Database) -> None:
    left = 20

    async def step(statements: Statements, _now: datetime) -> bool:
        nonlocal left
        left -= 1
        return left > 0

    jobs = Jobs(opened, [Job(JOB, timedelta(seconds=1), step)])
    began = time.monotonic()
    jobs.start()

    async def done() -> bool:
        return left == 0

    await _until(done)
    await jobs.stop()
    assert time.monotonic() - began < 10, "not a second each"


async def test_stopping_ends_every_job_and_rolls_back_what_is_under_way(opened: Database) -> None:
    inside = asyncio.Event()

    async def step(statements: Statements, _now: datetime) -> bool:
        await statements.rows("INSERT INTO steps VALUES (1, 0)")
        inside.set()
        await asyncio.sleep(60)
        return False

    jobs = Jobs(opened, [Job(JOB, _OFTEN, step), Job("another job", timedelta(hours=1), step)])
    before = asyncio.all_tasks()
    jobs.start()
    assert len(asyncio.all_tasks() - before) == 2
    await asyncio.wait_for(inside.wait(), 5)
    await asyncio.wait_for(jobs.stop(), 5)
    assert asyncio.all_tasks() <= before
    assert await opened.rows("SELECT 1 FROM steps") == []
    await asyncio.wait_for(run_step(opened, Job(JOB, _OFTEN, counted_step)), 5)
    assert len(await opened.rows("SELECT 1 FROM steps")) == 1, "and the lock is free"


async def test_a_step_that_does_not_notice_the_end_is_the_last(opened: Database) -> None:
    inside = asyncio.Event()

    async def step(_statements: Statements, _now: datetime) -> bool:
        inside.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return True

    jobs = Jobs(opened, [Job(JOB, _OFTEN, step)])
    jobs.start()
    await asyncio.wait_for(inside.wait(), 5)
    await asyncio.wait_for(jobs.stop(), 5)


async def test_the_jobs_run_for_as_long_as_the_service_is_open(settings: Callable[..., Settings]) -> None:
    app = create_app(settings())
    times: list[datetime] = []

    async def step(_statements: Statements, now: datetime) -> bool:
        times.append(now)
        return False

    app.jobs = Jobs(app.parts.database, [Job(JOB, _OFTEN, step)])
    async with app.lifespan():

        async def done() -> bool:
            return len(times) >= 3

        await _until(done)
    count = len(times)
    assert times == sorted(times)
    assert len(times) == count
