"""`auth-service audit`: reading the audit log."""

import re
from datetime import datetime
from typing import get_args
from uuid import UUID

import click

from auth_service.audit import Action
from auth_service.audit_trail import AuditEvent, AuditFilter, audit_events
from auth_service.cli.arguments import MOMENT, TEXT
from auth_service.cli.output import json_option, show
from auth_service.cli.running import with_parts
from auth_service.errors import NotFound
from auth_service.parts import Parts

_KID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@click.group()
def audit() -> None:
    """Read who did what, to what, and from where."""


@audit.command("list", short_help="List audit events, the newest first.")
@click.option("--action", type=click.Choice(get_args(Action)), metavar="ACTION", help="Only these, like user.login.")
@click.option("--actor", type=TEXT, metavar="WHO", help="Only what this user or client did.")
@click.option("--target", type=TEXT, metavar="WHAT", help="Only what was done to this.")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only from then on, like 2030-01-31 or …T12:00:00Z.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Only before then.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="COUNT", help="At most so many."
)
@json_option
def list_events(
    action: str | None,
    actor: str | None,
    target: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List audit events, the newest first. They hold ids, never names.

    WHO and WHAT are the id of a user, client, session, key or token, or the name or e-mail address of a user. A time
    is in UTC. How long events are kept is AUTH_AUDIT_RETENTION.
    """

    async def work(parts: Parts) -> list[AuditEvent]:
        wanted = AuditFilter(
            action, actor and await _id_of(parts, actor), target and await _id_of(parts, target), since, until
        )
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


async def _id_of(parts: Parts, text: str) -> str:
    """The id that a person means. One that is given as such need not exist any more; a name must be a user's."""
    try:
        return str(UUID(text))
    except ValueError:
        pass
    if _KID.fullmatch(text):
        return text
    try:
        return str((await parts.users.locate(text)).id)
    except NotFound:
        raise click.ClickException(
            f"there is no user {text!r}. Of a client, a session or a key give the id, as `auth-service clients list`, "
            "`sessions list` and `keys list` show it"
        ) from None
