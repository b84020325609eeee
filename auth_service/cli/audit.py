"""`auth-service audit`: reading the audit log."""

from datetime import UTC, datetime
from typing import get_args

import click

from auth_service.audit import Action
from auth_service.audit_trail import AuditEvent, AuditFilter, audit_events
from auth_service.cli.arguments import TEXT
from auth_service.cli.output import json_option, show
from auth_service.cli.running import with_parts
from auth_service.parts import Parts

_SINCE = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M"]


@click.group()
def audit() -> None:
    """Read who did what, to what, and from where."""


@audit.command("list", short_help="List audit events, the newest first.")
@click.option("--action", type=click.Choice(get_args(Action)), metavar="ACTION", help="Only these, like user.login.")
@click.option("--actor", type=TEXT, metavar="ID", help="Only what this user or client did.")
@click.option("--target", type=TEXT, metavar="ID", help="Only what was done to this.")
@click.option("--since", type=click.DateTime(_SINCE), metavar="TIME", help="Only from then on, like 2030-01-31.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="COUNT", help="At most so many."
)
@json_option
def list_events(
    action: str | None, actor: str | None, target: str | None, since: datetime | None, limit: int, as_json: bool
) -> None:
    """List audit events, the newest first. They hold ids: `users list` shows whose.

    How long they are kept is AUTH_AUDIT_RETENTION.
    """
    wanted = AuditFilter(action, actor, target, since and since.replace(tzinfo=UTC))

    async def work(parts: Parts) -> list[AuditEvent]:
        return list(await audit_events(parts.database, wanted, limit=limit + 1))

    found = with_parts(work)
    rows = [
        {
            "occurred_at": event.occurred_at,
            "action": event.action,
            "actor": event.actor_kind,
            "actor_id": event.actor_id,
            "target": event.target_kind,
            "target_id": event.target_id,
            "ip": event.ip,
            "user_agent": event.user_agent,
            "request_id": event.request_id,
            "details": event.details,
            "id": event.id,
        }
        for event in found[:limit]
    ]
    show(
        rows,
        as_json=as_json,
        columns=("occurred_at", "action", "actor", "target_id"),
        spare=("actor_id", "ip", "request_id", "user_agent"),
        empty="No event.",
    )
    if len(found) > limit:
        click.echo("There are more: see --limit.", err=True)
