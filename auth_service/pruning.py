"""Pruning: removing rows that nothing can need any more, a batch at a time, by one process among all replicas.

How the work is shared is `jobs.py`'s. Expired signing keys are the rotation's own concern.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial

from auth_service.jobs import Job, Step
from auth_service.metrics import PRUNED_ROWS
from auth_service.settings import Settings
from auth_service.stores.database import Statements

BATCH = 1000
"""Rows that one transaction removes at most: a few milliseconds, so that nobody waits for it."""

MARGIN = timedelta(days=1)
"""How long past its end a session or a revocation is kept.

Neither is read after its end: a session's tokens end with it, checkpoints are seconds behind, and a verifier forgets a
revocation at its end. But the end is told by PostgreSQL's clock, and a standby that takes over may be behind: what it
takes for alive must still be there.
"""

_INTERVAL = timedelta(minutes=10)

# The oldest first, by the index on that column. A row that somebody has locked is left for the next time: waiting for
# it could end in a circle.
_DELETE = """
WITH doomed AS (
    SELECT id FROM {table} WHERE {column} < $1 ORDER BY {column} LIMIT $2 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {table} WHERE id IN (SELECT id FROM doomed) RETURNING 1
)
SELECT count(*) AS count FROM gone
"""


def pruning_jobs(settings: Settings) -> Iterable[Job]:
    """One job for each table that grows by itself."""
    for table, column, kept in (
        ("sessions", "expires_at", MARGIN),
        ("revocations", "expires_at", MARGIN),
        ("audit_events", "occurred_at", settings.audit_retention),
    ):
        yield Job(f"prune_{table}", _INTERVAL, _step(table, _DELETE.format(table=table, column=column), kept))


def _step(table: str, delete: str, kept: timedelta) -> Step:
    count_gone: Callable[[float], None] = PRUNED_ROWS.labels(table=table).inc

    async def step(statements: Statements, now: datetime) -> bool:
        [row] = await statements.rows(delete, now - kept, BATCH)
        statements.after_commit(partial(count_gone, row["count"]))
        return bool(row["count"] == BATCH)

    return step
