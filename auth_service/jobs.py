"""Periodic work that one process among all replicas does at a time: key rotation, pruning.

The process that holds a job's advisory lock for the length of one transaction does one step; the others pass. Whoever
dies in the middle loses its lock with its connection, and nothing is half done.
"""

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from auth_service.background_tasks import end
from auth_service.errors import Unavailable
from auth_service.metrics import JOB_STEPS
from auth_service.stores.database import Database, Statements, read_time

Step = Callable[[Statements, datetime], Awaitable[bool]]
"""Does a bounded piece of the work, within the transaction it is given. Answers whether there is more to do now."""

_LOCKS = 0x61757468  # "auth": the first half of the lock's number, the second is the job's

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Work to look for once in `interval`, by whichever process comes first. `name` is its lock, label and log name.

    `prepare` runs before each step, outside the transaction: for what takes longer than one may.
    """

    name: str
    interval: timedelta
    step: Step
    prepare: Callable[[], Awaitable[None]] | None = None


class Jobs:
    """Runs jobs for as long as the service is open."""

    def __init__(self, database: Database, jobs: Sequence[Job]) -> None:
        self._database = database
        self._jobs = jobs
        for job in jobs:
            for outcome in ("done", "failed", "passed"):  # told from the beginning, as zero
                JOB_STEPS.labels(job=job.name, outcome=outcome)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(job)) for job in self._jobs]

    async def stop(self) -> None:
        """End them; a step under way is rolled back."""
        self._stopping = True  # for a step that swallows being cancelled and has more to do: it gets no further turn
        await end(self._tasks)

    async def _run(self, job: Job) -> None:
        while not self._stopping:
            # Replicas that were started together do not stay in step.
            await asyncio.sleep(job.interval.total_seconds() * random.uniform(0.5, 1))  # noqa: S311
            try:
                while await run_step(self._database, job) and not self._stopping:
                    pass
            except Unavailable as exc:
                JOB_STEPS.labels(job=job.name, outcome="failed").inc()
                _log.warning("job_failed", job=job.name, reason=str(exc))
            except Exception:
                JOB_STEPS.labels(job=job.name, outcome="failed").inc()
                _log.exception("job_failed", job=job.name)  # which must go on all the same


async def run_step(database: Database, job: Job) -> bool:
    """One step, unless another process is at it. Answers whether there is more to do. Raises Unavailable."""
    if job.prepare is not None:
        await job.prepare()
    async with database.transaction() as transaction:
        row = await transaction.row(
            "SELECT pg_try_advisory_xact_lock($1, $2) AS ours", _LOCKS, zlib.crc32(job.name.encode()) - 2**31
        )
        assert row is not None
        if not row["ours"]:
            JOB_STEPS.labels(job=job.name, outcome="passed").inc()
            return False
        more = await job.step(transaction, await read_time(transaction, database.clock))
    JOB_STEPS.labels(job=job.name, outcome="done").inc()
    return more
