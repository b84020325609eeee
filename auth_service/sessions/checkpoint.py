"""Checkpoints: the generations written behind to PostgreSQL, so that losing Redis logs nobody out."""

import asyncio
from uuid import UUID

import structlog

from auth_service.background_tasks import end
from auth_service.errors import Unavailable
from auth_service.metrics import CHECKPOINT_SESSIONS
from auth_service.sessions.rotation import Generation
from auth_service.stores.database import Database

_INTERVAL = 1.0  # seconds
_BATCH = 1000

# Rows are locked in the order of their ids: two processes that write the same sessions cannot wait for each other in a
# circle, nor can this and the ending of all of a user's sessions (`ending.py`), which keeps the same order.
_WRITE = """
WITH batch AS (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::timestamptz[], $4::text[]) AS b (id, generation, rotated_at, ip)
), locked AS (
    SELECT s.id FROM sessions s JOIN batch b ON b.id = s.id
    WHERE s.generation < b.generation ORDER BY s.id FOR NO KEY UPDATE OF s
)
UPDATE sessions s SET generation = b.generation, rotated_at = b.rotated_at, last_used_at = b.rotated_at,
    last_ip = coalesce(b.ip, s.last_ip)
FROM batch b JOIN locked l ON l.id = b.id
WHERE s.id = b.id AND s.generation < b.generation
"""

_log = structlog.get_logger(__name__)


class CheckpointWriter:
    """Collects generations and writes them once a second. They only ever move forward."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[UUID, tuple[Generation, str | None]] = {}
        self._under_way: dict[UUID, tuple[Generation, str | None]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, session_id: UUID, generation: Generation, *, ip: str | None) -> None:
        """Remember that a session is at `generation` now, and from where it got there."""
        pending = self._pending.get(session_id)
        if pending is None or pending[0].number < generation.number:
            self._pending[session_id] = generation, ip

    def unwritten_ip(self, session_id: UUID) -> str | None:
        """From where a session last rotated, if that is not in PostgreSQL yet: ask before the session is read there."""
        noted = self._pending.get(session_id) or self._under_way.get(session_id)
        return noted[1] if noted else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop collecting and write what is left."""
        if self._task is not None:
            await end({self._task})
        await self.flush()

    async def flush(self) -> None:
        """Write all that is pending. What PostgreSQL does not take now is kept for the next time."""
        self._under_way, self._pending = self._pending, {}
        pending = sorted(self._under_way.items(), key=lambda item: item[0])
        while pending:
            batch = pending[:_BATCH]
            try:
                await self._database.rows(
                    _WRITE,
                    [session_id for session_id, _ in batch],
                    [generation.number for _, (generation, _) in batch],
                    [generation.rotated_at for _, (generation, _) in batch],
                    [ip for _, (_, ip) in batch],
                )
            except BaseException as exc:
                for session_id, (generation, ip) in pending:
                    self.note(session_id, generation, ip=ip)
                if not isinstance(exc, Unavailable):
                    raise
                _log.warning("checkpoints_kept_back", reason=exc.reason, count=len(pending))
                return
            CHECKPOINT_SESSIONS.inc(len(batch))
            pending = pending[_BATCH:]
        self._under_way = {}

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL)
            try:
                await self.flush()
            except Exception:
                # Whatever it was: a loop that ended here would let the checkpoints fall behind for good.
                _log.exception("checkpoints_kept_back", count=len(self._pending))
