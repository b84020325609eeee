"""The audit log read back: the newest events first, filtered, a page at a time. Writing one is `audit.py`'s."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from auth_service.stores.database import Row, Statements


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event, as `audit.record` wrote it. Ids grow with time."""

    id: int
    occurred_at: datetime
    action: str
    actor_kind: str
    actor_id: str | None
    target_kind: str | None
    target_id: str | None
    ip: str | None
    user_agent: str | None
    request_id: str | None
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which events: what is None is not asked. `actor` and `target` are ids; from `since` on, and before `until`."""

    action: str | None = None
    actor: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def audit_events(
    statements: Statements,
    wanted: AuditFilter = AuditFilter(),
    *,
    before: tuple[datetime, int] | None = None,
    limit: int = 100,
) -> Sequence[AuditEvent]:
    """The newest events that `wanted` describes, from the one before that of this `occurred_at` and `id`.

    Raises Unavailable.
    """
    # By time, which has an index that `since` and `until` bound: by id, a page of long ago would walk all that came
    # after it.
    # Only what is asked is in the statement: with `$1 IS NULL OR …` a plan kept for all of them uses no index.
    asked = {
        "action =": wanted.action,
        "actor_id =": wanted.actor,
        "target_id =": wanted.target,
        "occurred_at >=": wanted.since,
        "occurred_at <": wanted.until,
    }
    given = {condition: value for condition, value in asked.items() if value is not None}
    conditions = [f"{condition} ${number}" for number, condition in enumerate(given, 2)]
    if before is not None:
        conditions.append(f"(occurred_at, id) < (${len(given) + 2}, ${len(given) + 3})")
    where = " AND ".join(conditions) or "true"
    rows = await statements.rows(
        f"SELECT * FROM audit_events WHERE {where} ORDER BY occurred_at DESC, id DESC LIMIT $1",  # noqa: S608 — of the constants above
        limit,
        *given.values(),
        *(before or ()),
    )
    return [_event(row) for row in rows]


def _event(row: Row) -> AuditEvent:
    members = dict(row)
    return AuditEvent(**members | {"details": json.loads(members["details"])})
