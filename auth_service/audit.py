"""The audit log: who did what, to what, and from where; a row of `audit_events` and a line of the log each.

An event is written in the transaction of the change that it tells of, so neither is there without the other. It holds
ids, never names or addresses of people, and nothing that a caller has chosen but the user agent.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

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
    known = {name: value for name, value in details.items() if value is not None}
    await statements.rows(
        "INSERT INTO audit_events (occurred_at, action, actor_kind, actor_id, target_kind, target_id, ip, user_agent,"
        " request_id, details) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        now,
        action,
        by.kind,
        by.id,
        target_kind,
        target_id,
        by.source.ip,
        by.source.user_agent,
        by.source.request_id,
        json.dumps(known),
    )
    statements.after_commit(
        lambda: _log.info(
            "audit", action=action, actor=by.kind, actor_id=by.id, target=target_kind, target_id=target_id
        )
    )
