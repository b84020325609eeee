"""`auth-service sessions`: listing and revoking them."""

from uuid import UUID

import click

from auth_service.audit import OPERATOR
from auth_service.cli.arguments import TEXT
from auth_service.cli.output import counted, json_option, say, show
from auth_service.cli.running import locate, with_parts
from auth_service.parts import Parts
from auth_service.sessions.session import Session


@click.group()
def sessions() -> None:
    """List and revoke sessions."""


@sessions.command("list", short_help="List the live sessions of a user.")
@click.argument("user", type=TEXT, required=False)
@click.option("--user", "user_option", type=TEXT, help="The same as USER.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=200, show_default=True, metavar="COUNT", help="At most so many."
)
@json_option
def list_sessions(user: str | None, user_option: str | None, limit: int, as_json: bool) -> None:
    """List the live sessions of USER, the newest first.

    USER is an e-mail address, a user name or an id.
    """
    named = [name for name in (user, user_option) if name is not None]
    if len(named) != 1:
        raise click.UsageError("give one USER, whose sessions to list: `auth-service users list` names them")

    async def work(parts: Parts) -> list[Session]:
        account = await locate(parts, named[0])
        return list(await parts.sessions.live_of_user(account.id, now=await parts.database.now(), limit=limit + 1))

    found = with_parts(work)
    rows = [
        {
            "id": session.id,
            "last_used_at": session.last_used_at,
            "ip": session.device.ip,
            "created_at": session.created_at,
            "user_agent": session.device.user_agent,
            "transport": session.transport,
            "expires_at": session.expires_at,
            "scope": session.scope,
        }
        for session in found[:limit]
    ]
    show(
        rows,
        as_json=as_json,
        columns=("id", "last_used_at", "ip"),
        spare=("created_at", "user_agent", "transport", "expires_at"),
        empty="No live session.",
    )
    if len(found) > limit:
        click.echo("There are more: see --limit.", err=True)


@sessions.command(short_help="Revoke one session, or every session of a user.")
@click.argument("session_id", type=click.UUID, required=False)
@click.option("--user", type=TEXT, help="Revoke every session of this user instead.")
@json_option
def revoke(session_id: UUID | None, user: str | None, as_json: bool) -> None:
    """Revoke the session SESSION_ID, or every session of one user: their tokens open nothing here any more."""
    if (session_id is None) == (user is None):
        raise click.UsageError("give either SESSION_ID or --user")

    async def work(parts: Parts) -> int:
        if user is not None:
            return await parts.users.end_sessions((await locate(parts, user)).id, reason="admin", by=OPERATOR)
        assert session_id is not None
        session = (await parts.sessions.standing(session_id)).session
        if session is None:
            raise click.ClickException("there is no such session: `auth-service sessions list USER` shows a user's")
        if session.revoked_at is not None:
            return 0
        await parts.ending.end([session_id], reason="admin", by=OPERATOR)
        return 1

    count = with_parts(work)
    if session_id is not None and count == 0:
        say("It had ended already.", as_json=as_json, revoked=0)
    else:
        say(f"Revoked {counted(count, 'session')}.", as_json=as_json, revoked=count)
