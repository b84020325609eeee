"""A process that runs one job, as a replica would: `python -m tests.support.job_process URL count|hold`.

`count` counts who is inside a step, in sequences, which no transaction hides; `hold` says so and stays inside.
"""

import asyncio
import sys
from datetime import datetime, timedelta

from auth_service.jobs import Job, Jobs, run_step
from auth_service.stores.clock import Clock
from auth_service.stores.database import Database, Statements

JOB = "a job of a test"
TABLES = """
CREATE SEQUENCE entered; CREATE SEQUENCE departed;
CREATE TABLE steps (process int, others_inside bigint);
"""


async def counted_step(statements: Statements, _now: datetime) -> bool:
    """Takes a moment, and writes down how many were inside besides."""
    entered = (await statements.rows("SELECT nextval('entered') AS n"))[0]["n"]
    departed = (await statements.rows("SELECT last_value - 1 + is_called::int AS n FROM departed"))[0]["n"]
    await statements.rows("SELECT pg_sleep(0.003)")
    await statements.rows("INSERT INTO steps VALUES (pg_backend_pid(), $1)", entered - departed - 1)
    await statements.rows("SELECT nextval('departed')")
    return False


async def _held_step(_statements: Statements, _now: datetime) -> bool:
    print("inside", flush=True)  # noqa: T201
    await asyncio.sleep(60)
    return False


async def _main(url: str, mode: str) -> None:
    database = Database(url, Clock(), pool_size=1)
    await database.open()
    if mode == "hold":
        await run_step(database, Job(JOB, timedelta(seconds=1), _held_step))
    jobs = Jobs(database, [Job(JOB, timedelta(milliseconds=2), counted_step)])
    jobs.start()
    await asyncio.to_thread(sys.stdin.read)  # until whoever started it closes it
    await jobs.stop()
    await database.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))
