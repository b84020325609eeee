"""Ending sessions: durably in PostgreSQL first, then told to verifiers and Redis. Every way one ends goes through here.

The row and its journal entry are one transaction; once that is committed the answer may be given, whatever Redis says:
a refresh token of the session meets the row, an access token meets the journal.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import structlog

from auth_service import audit
from auth_service.audit import Action, Actor, Source
from auth_service.errors import Unavailable
from auth_service.revocation import journal
from auth_service.revocation.announcer import Announcer
from auth_service.sessions.rotation import RotationStore
from auth_service.sessions.session import EndReason
from auth_service.stores.database import Database, Statements, read_time
from auth_service.verifier.revocations import Entry

# The user's row must have been changed or locked before this runs, so that no login can add a session unseen. Rows are
# locked in the order of their ids, as `checkpoint.py` does.
_END_ALL = """
WITH doomed AS (
    SELECT id FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND id IS DISTINCT FROM $4::uuid
    ORDER BY id LIMIT $5 FOR NO KEY UPDATE
)
UPDATE sessions SET revoked_at = $2, revoked_reason = $3 WHERE id IN (SELECT id FROM doomed) RETURNING id
"""

# Those that ended before, the last ones first: their tokens may be alive, and nobody may have been told.
_ENDED_OF_USER = """
SELECT id FROM sessions WHERE user_id = $1 AND revoked_at > $2 AND id IS DISTINCT FROM $3::uuid
ORDER BY revoked_at DESC LIMIT $4
"""

_COUNT_OF_USER = "SELECT count(*) FROM (SELECT FROM sessions WHERE user_id = $1 AND revoked_at IS NULL LIMIT $2) AS s"
_MOST_OF_USER = 5000
"""Sessions that one transaction ends in a small part of the time that it may take."""

_COUNT_LIVE = "SELECT count(*) FROM sessions WHERE revoked_at IS NULL AND created_at <= $1 AND expires_at > $1"
# A batch of those that were live at $1, whoever's, from the one after $5: sessions that are opened meanwhile stay.
_END_BATCH = """
WITH doomed AS (
    SELECT id FROM sessions WHERE revoked_at IS NULL AND created_at <= $1 AND expires_at > $1 AND id > $5
    ORDER BY id LIMIT $3 FOR NO KEY UPDATE
)
UPDATE sessions SET revoked_at = $4, revoked_reason = $2 WHERE id IN (SELECT id FROM doomed) RETURNING id, user_id
"""
_BATCH = 500
_ACTIONS: dict[str, Action] = {"logout": "session.logout", "reuse": "session.reuse", "admin": "session.revoked"}

_PUSH_TIMEOUT = 1.0  # seconds: a Redis that hangs must not hold up a logout

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """Sessions that a transaction has ended, and what the journal says of them: for `announce`, once it is committed.

    A session that had ended before is among them too.
    """

    session_ids: Sequence[UUID]
    entries: Sequence[Entry]
    owners: Mapping[UUID, UUID]
    """The sessions that were alive until then, and whose each was."""


class SessionEnding:
    """Ends sessions. Raises Unavailable when PostgreSQL is away; Redis being away changes nothing."""

    def __init__(self, database: Database, rotations: RotationStore, announcer: Announcer) -> None:
        self._database = database
        self._rotations = rotations
        self._announcer = announcer

    async def end(
        self, session_ids: Sequence[UUID], *, reason: Literal["logout", "reuse", "admin"], by: Actor | Source
    ) -> None:
        """End these sessions, with an event for each that was alive. One that has ended stays as it is; one whose row
        is gone is journaled all the same.

        `by` a Source alone: each session's own user, who has shown a token of it.
        """
        if not session_ids:
            return
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            ended = await self.end_within(transaction, session_ids, reason=reason, now=now)
            for session_id, user_id in ended.owners.items():
                await audit.record(
                    transaction,
                    _ACTIONS[reason],
                    by=by if isinstance(by, Actor) else Actor("user", str(user_id), by),
                    now=now,
                    target=("session", str(session_id)),
                    user=str(user_id),
                )
        await self.announce(ended)

    async def end_within(
        self, transaction: Statements, session_ids: Sequence[UUID], *, reason: EndReason, now: datetime
    ) -> Ended:
        """The same, inside the caller's transaction, which records the event: `announce` what it answers once that is
        committed."""
        ordered = sorted(set(session_ids))
        owners = {}
        for session_id in ordered:
            row = await transaction.row(
                "UPDATE sessions SET revoked_at = $2, revoked_reason = $3 WHERE id = $1 AND revoked_at IS NULL"
                " RETURNING user_id",
                session_id,
                now,
                reason,
            )
            if row is not None:
                owners[session_id] = row["user_id"]
        return Ended(ordered, await journal.revoke(transaction, "s", map(str, ordered), reason=reason, now=now), owners)

    async def end_all_of_user(
        self, transaction: Statements, user_id: UUID, *, reason: EndReason, now: datetime, keep: UUID | None = None
    ) -> Ended:
        """End a user's sessions but `keep`, inside the caller's transaction, which has changed or locked the user's row
        already and records the event: `announce` what it answers once that is committed.

        What had ended before is told again, as `end` does: whoever asks twice may have had no answer the first time.
        """
        before = await transaction.rows(_ENDED_OF_USER, user_id, now - journal.RETENTION, keep, _MOST_OF_USER)
        return await self._end_of_user(
            transaction, user_id, reason=reason, now=now, keep=keep, most=None, before=[row["id"] for row in before]
        )

    async def thin_out(self, user_id: UUID, *, reason: EndReason, by: Actor, keep: UUID | None = None) -> int:
        """End a user's sessions but `keep` in batches, until `end_all_of_user` can end the rest in one transaction;
        answers how many.

        For before that transaction: whoever holds a password could otherwise sign in so often that the account can
        neither be disabled nor be given another one. Nearly always there is nothing to do.
        """
        count = 0
        while True:
            async with self._database.transaction() as transaction:
                row = await transaction.row(_COUNT_OF_USER, user_id, _MOST_OF_USER + 1)
                if row is None or row["count"] <= _MOST_OF_USER:
                    return count
                now = await read_time(transaction, self._database.clock)
                ended = await self._end_of_user(
                    transaction, user_id, reason=reason, now=now, keep=keep, most=_MOST_OF_USER
                )
                await audit.record(
                    transaction,
                    "session.revoked",
                    by=by,
                    now=now,
                    target=("user", str(user_id)),
                    reason=reason,
                    sessions=len(ended.owners),
                )
            count += len(ended.owners)
            await self.announce(ended)

    async def _end_of_user(
        self,
        transaction: Statements,
        user_id: UUID,
        *,
        reason: EndReason,
        now: datetime,
        keep: UUID | None,
        most: int | None,
        before: Sequence[UUID] = (),
    ) -> Ended:
        rows = await transaction.rows(_END_ALL, user_id, now, reason, keep, most)
        owners = {row["id"]: user_id for row in rows}
        ids = [*owners, *before]
        return Ended(ids, await journal.revoke(transaction, "s", map(str, ids), reason=reason, now=now), owners)

    async def end_every(
        self, *, reason: EndReason, by: Actor, progress: Callable[[int, int], None] = lambda _done, _all: None
    ) -> int:
        """End every session that is live now, in batches; answers how many. `progress` is told how many of about how
        many are done. May be cut short and run again.
        """
        began = await self._database.now()
        row = await self._database.row(_COUNT_LIVE, began)
        assert row is not None
        live, done, last = row["count"], 0, UUID(int=0)
        # From where the last batch ended: from the beginning, each would walk all that have ended before it.
        while batch := await self._end_batch(began, last, reason=reason, by=by):
            await self.announce(batch)
            done, last = done + len(batch.session_ids), max(batch.session_ids)
            progress(done, live)
        return done

    async def announce(self, ended: Ended) -> None:
        """Tell the verifiers, and Redis, about sessions whose end is committed. Never fails: PostgreSQL has the last
        word, and whoever does not hear of it now reads it in the journal."""
        if not ended.session_ids:
            return
        try:
            async with asyncio.timeout(_PUSH_TIMEOUT):
                await self._announcer.announce(ended.entries)
                await self._rotations.forget(ended.session_ids)
        except (Unavailable, TimeoutError) as exc:
            _log.warning("redis_not_told_of_ended_sessions", reason=str(exc), count=len(ended.session_ids))

    async def _end_batch(self, began: datetime, last: UUID, *, reason: EndReason, by: Actor) -> Ended | None:
        """End some of the sessions that were live when it began; None if there is none left."""
        async with self._database.transaction() as transaction:
            now = await read_time(transaction, self._database.clock)
            rows = await transaction.rows(_END_BATCH, began, reason, _BATCH, now, last)
            if not rows:
                return None
            owners = {row["id"]: row["user_id"] for row in rows}
            ids = list(map(str, owners))
            await audit.record_each(
                transaction, "session.revoked", by=by, now=now, kind="session", ids=ids, reason=reason
            )
            entries = await journal.revoke(transaction, "s", ids, reason=reason, now=now)
        return Ended(tuple(owners), entries, owners)
