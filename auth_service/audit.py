"""The audit log: who did what, to what, and from where; a row of `audit_events` and a line of the log each.

An event is written in the transaction of the change that it tells of, so neither is there without the other; what
changes nothing leaves none. It holds ids, never names or addresses of people, and nothing that a caller has chosen but
the user agent. Reading the events back is `audit_trail.py`'s.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

import structlog

from auth_service.address_block import block_of
from auth_service.stores.database import Statements

Action = Literal[
    "user.registered", "user.added", "user.imported", "user.login", "user.login_failed", "user.renamed",
    "user.password_changed", "user.password_set", "user.disabled", "user.enabled", "user.deleted", "user.granted",
    "session.logout", "session.revoked", "session.reuse", "session.shared",
    "client.added", "client.removed", "client.secret_rotated", "token.revoked",
    "key.added", "key.rotated", "key.retired", "key.revoked", "key.removed", "key.rewrapped",
]  # fmt: skip
ActorKind = Literal["user", "client", "operator", "service", "anonymous"]
"""`operator` is whoever runs the command line; `service` is this service by itself."""
TargetKind = Literal["user", "session", "client", "key", "token"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request came from."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None

    def is_near(self, ip: str | None) -> bool:
        """Whether `ip` may be the same subscriber: the same address, or the same /64 of IPv6, or one is not known."""
        return self.ip is None or ip is None or block_of(self.ip) == block_of(ip)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something. `id` is that of the user or client; None for the other kinds."""

    kind: ActorKind
    id: str | None = None
    source: Source = Source()


OPERATOR = Actor("operator")
SERVICE = Actor("service")


async def record(
    statements: Statements,
    action: Action,
    *,
    by: Actor,
    now: datetime,
    target: tuple[TargetKind, str] | None = None,
    **details: str | int | bool | list[str] | None,
) -> None:
    """Write one event. It is logged once it is committed."""
    target_kind, target_id = target or (None, None)
    await _write(statements, action, target_kind, [target_id], by=by, now=now, details=details)


async def record_each(
    statements: Statements,
    action: Action,
    *,
    by: Actor,
    now: datetime,
    kind: TargetKind,
    ids: Iterable[str],
    **details: str | int | bool | list[str] | None,
) -> None:
    """Write one event for each target, in one statement."""
    await _write(statements, action, kind, list(ids), by=by, now=now, details=details)


async def _write(
    statements: Statements,
    action: Action,
    target_kind: TargetKind | None,
    target_ids: list[str] | list[None] | list[str | None],
    *,
    by: Actor,
    now: datetime,
    details: dict[str, str | int | bool | list[str] | None],
) -> None:
    known = {name: value for name, value in details.items() if value is not None}
    await statements.rows(
        "INSERT INTO audit_events (occurred_at, action, actor_kind, actor_id, target_kind, target_id, ip, user_agent,"
        " request_id, details) SELECT $1, $2, $3, $4, $5, target, $7, $8, $9, $10 FROM unnest($6::text[]) AS target",
        now,
        action,
        by.kind,
        by.id,
        target_kind,
        target_ids,
        by.source.ip,
        by.source.user_agent,
        by.source.request_id,
        json.dumps(known),
    )
    for target_id in target_ids:
        statements.after_commit(partial(_tell, action, by, target_kind, target_id))


def _tell(action: Action, by: Actor, target_kind: TargetKind | None, target_id: str | None) -> None:
    _log.info("audit", action=action, actor=by.kind, actor_id=by.id, target=target_kind, target_id=target_id)
