"""The revocation journal: the durable list of what may no longer be used although its signature is good.

Written in the transaction that ends the thing, so an answered logout is never forgotten. Who reads it, and when, is
`follower.py`'s concern.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from auth_service.errors import Unavailable
from auth_service.metrics import REVOCATIONS
from auth_service.settings import ACCESS_TOKEN_TTL_CEILING
from auth_service.stores.clock import Clock
from auth_service.stores.database import READ_ONLY, TIME_LIMIT, Row, Statements
from auth_service.verifier.claims import MAX_LEEWAY
from auth_service.verifier.revocations import Entry, Kind, revocation_id

RETENTION = ACCESS_TOKEN_TTL_CEILING + 2 * timedelta(seconds=MAX_LEEWAY)
"""How long an entry matters: the longest life of an access token under any setting, and twice the most leeway of a
verifier."""

_LOOK_BACK = timedelta(seconds=2 * TIME_LIMIT)
"""A transaction reads the time first and writes its rows at most `TIME_LIMIT` later. From then until they are there for
all to see it may take for ever: a COMMIT can wait for a standby or a disk, and no limit covers it. So it holds a lock
that names their date, and whoever reads while it does looks back as far."""

_WRITING = 0x6A6F7572 << 32  # "jour": the upper half of the lock's key; the lower half is the date in seconds

_PAGE = 10_000  # rows of one statement: far within its time limit

_NAMES: dict[Kind, str] = {"s": "session", "j": "access_token", "c": "client", "k": "signing_key"}

_POSITION = """
SELECT clock_timestamp() AS now, {read_only} AS read_only, pg_postmaster_start_time() AS started, (
    SELECT min(objid::bigint) FROM pg_locks
    WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS writing_since
"""
_READ_POSITION = _POSITION.format(read_only=READ_ONLY)

# Which server it was comes with the rows and also where there are none.
_READ_PAGE = """
SELECT server.started, r.* FROM (SELECT pg_postmaster_start_time() AS started) AS server LEFT JOIN LATERAL (
    SELECT id, kind, claim, expires_at, revoked_at, {column} AS place FROM revocations
    WHERE ({column}, id) > ($1, $2) ORDER BY {column}, id LIMIT {limit}
) AS r ON true ORDER BY r.place, r.id
"""
_READ_UNEXPIRED = _READ_PAGE.format(column="expires_at", limit=_PAGE)
_READ_RECENT = _READ_PAGE.format(column="revoked_at", limit=_PAGE)


@dataclass(frozen=True, slots=True)
class Position:
    """A moment from which the journal can be read on."""

    now: datetime
    """By the one clock."""
    started: datetime
    """When the server that said so was started: another server has another clock, and may lack rows."""
    read_only: bool
    """It takes no writes, and may be a standby that is behind: there can be more than it tells."""
    since: datetime
    """What is not to be seen yet at this moment is not dated earlier than that."""

    def goes_on_from(self, earlier: "Position") -> bool:
        """Whether what came after `earlier` can be told from what came before it: not on another server, nor on one
        that was a standby then, nor by a clock that went back."""
        return (self.started, self.read_only) == (earlier.started, earlier.read_only) and self.now >= earlier.now


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a reading."""

    _rows: Sequence[Row]

    @property
    def end(self) -> tuple[datetime, int] | None:
        """Where the next page begins; None if this is the last one."""
        return (self._rows[-1]["place"], self._rows[-1]["id"]) if len(self._rows) == _PAGE else None

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
    await transaction.rows("SELECT pg_advisory_xact_lock_shared($1)", _WRITING + math.floor(now.timestamp()))
    written = await transaction.rows(
        "INSERT INTO revocations (kind, claim, reason, revoked_at, expires_at)"
        " SELECT $1, claim, $3, $4, $5 FROM unnest($2::text[]) AS claim"
        " ON CONFLICT (kind, claim) DO NOTHING RETURNING kind, claim, expires_at",
        kind,
        claims,
        reason,
        now,
        now + RETENTION,
    )
    new = len(written)
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


async def read_position(statements: Statements, clock: Clock) -> Position:
    """Where the journal is now. To be read before the rows: what is committed in between is then read twice, not never.

    Every role may read `pg_locks`, whichever roles the others are.
    """
    [row] = await statements.rows(_READ_POSITION, _WRITING >> 32)
    now = clock.now(row["now"])
    since = now - _LOOK_BACK
    if row["writing_since"] is not None:
        since = min(since, datetime.fromtimestamp(row["writing_since"], UTC))
    return Position(now, row["started"], row["read_only"], since)


async def read_page(
    statements: Statements, position: Position, *, last: Position | None, after: tuple[datetime, int] | None
) -> Page:
    """What may have come since `last`, or everything that still matters, up to `position` at least: the page that
    begins `after` the end of another, or the first one.

    Raises Unavailable where the server is not that of `position` any more.
    """
    if last is None:
        rows = await statements.rows(_READ_UNEXPIRED, *(after or (position.now, 0)))
    else:
        rows = await statements.rows(_READ_RECENT, *(after or (last.since, 0)))
    if rows[0]["started"] != position.started:
        raise Unavailable("postgresql: another server than a moment ago")
    return Page(rows if rows[0]["id"] is not None else ())


def _entry(row: Row) -> Entry:
    # Whole seconds, rounded up: every process writes the same entry in the same way.
    return row["kind"], revocation_id(row["claim"]), math.ceil(row["expires_at"].timestamp())
