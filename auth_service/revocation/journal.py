"""The revocation journal: the durable list of what may no longer be used although its signature is good.

Written in the transaction that ends the thing, so an answered logout is never forgotten. Who reads it, and when, is
`follower.py`'s concern.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from auth_service.metrics import REVOCATIONS
from auth_service.settings import ACCESS_TOKEN_TTL_CEILING
from auth_service.stores.clock import Clock
from auth_service.stores.database import READ_ONLY, TIME_LIMIT, Row, Statements, read_time
from auth_service.verifier.revocations import Entry, Kind, revocation_id

RETENTION = ACCESS_TOKEN_TTL_CEILING + timedelta(seconds=60)
"""How long an entry matters: the longest life of an access token under any setting, and a leeway."""

LOOK_BACK = timedelta(seconds=2 * TIME_LIMIT)
"""How much of what was read before is read again: a row may be dated before its transaction's commit, by `TIME_LIMIT`
at most."""

_NAMES: dict[Kind, str] = {"s": "session", "j": "access_token", "c": "client", "k": "signing_key"}

# The time comes with the rows and also where there are none.
_READ = """
SELECT t.now, t.read_only, r.kind, r.claim, r.expires_at, r.revoked_at
FROM (SELECT clock_timestamp() AS now, {read_only} AS read_only) AS t
LEFT JOIN revocations AS r ON r.{column} > $1
"""
_READ_UNEXPIRED = _READ.format(read_only=READ_ONLY, column="expires_at")
_READ_RECENT = _READ.format(read_only=READ_ONLY, column="revoked_at")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the journal held at `now`, by the one clock."""

    now: datetime
    read_only: bool
    """It takes no writes, and may be a standby that is behind: there can be more than it tells."""
    _rows: Sequence[Row]

    def batches(self, size: int) -> Iterator[list[tuple[Entry, datetime]]]:
        """The entries and since when each is revoked, at most `size` at a time: naming very many at once would hold up
        the event loop."""
        for start in range(0, len(self._rows), size):
            yield [(_entry(row), row["revoked_at"]) for row in self._rows[start : start + size]]


async def revoke(
    transaction: Statements, kind: Kind, claims: Iterable[str], *, reason: str, now: datetime
) -> list[Entry]:
    """Write that each of `claims` is revoked since `now`. One already in the journal keeps its end.

    Returns the entries as the journal has them: announce them once the transaction is committed.
    """
    claims = list(claims)
    if not claims:
        return []
    written = await transaction.rows(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " SELECT $1, claim, $3, $4, $5 FROM unnest($2::text[]) AS claim"
        # Dated anew where it is told again: its first commit may have come too late for those who read the journal.
        " ON CONFLICT (kind, claim) DO UPDATE SET revoked_at = EXCLUDED.revoked_at"
        " WHERE revocations.revoked_at < EXCLUDED.revoked_at - make_interval(secs => $6)"
        " RETURNING kind, claim, expires_at, revocations.xmax = 0 AS is_new",
        kind,
        claims,
        reason,
        now,
        now + RETENTION,
        TIME_LIMIT,
    )
    new = sum(row["is_new"] for row in written)
    transaction.after_commit(lambda: REVOCATIONS.labels(kind=_NAMES[kind], reason=reason).inc(new))
    if len(written) == len(claims):
        return [_entry(row) for row in written]
    # Whoever wrote the others may have been stopped before it could tell anybody: they are told again.
    rows = await transaction.rows(
        "SELECT kind, claim, expires_at FROM revocations WHERE kind = $1 AND claim = ANY ($2::text[])", kind, claims
    )
    return [_entry(row) for row in rows]


async def holds(statements: Statements, names: Iterable[tuple[Kind, str]]) -> bool:
    """Whether one of `names`, a kind and a claim each, is in the journal now."""
    kinds, claims = zip(*names, strict=True)
    row = await statements.row(
        "SELECT EXISTS (SELECT 1 FROM revocations AS r JOIN unnest($1::text[], $2::text[]) AS n (kind, claim)"
        " ON r.kind = n.kind AND r.claim = n.claim) AS held",
        kinds,
        claims,
    )
    return row is not None and bool(row["held"])


async def read_unexpired(statements: Statements, clock: Clock) -> Reading:
    """Everything that still matters."""
    return _reading(await statements.rows(_READ_UNEXPIRED, await read_time(statements, clock)), clock)


async def read_since(statements: Statements, clock: Clock, last: datetime) -> Reading:
    """Everything that was committed after the reading of `last`, and `LOOK_BACK` more."""
    return _reading(await statements.rows(_READ_RECENT, last - LOOK_BACK), clock)


def _reading(rows: Sequence[Row], clock: Clock) -> Reading:
    return Reading(clock.now(rows[0]["now"]), rows[0]["read_only"], rows if rows[0]["claim"] is not None else ())


def _entry(row: Row) -> Entry:
    # Whole seconds, rounded up: every process writes the same entry in the same way.
    return row["kind"], revocation_id(row["claim"]), math.ceil(row["expires_at"].timestamp())
