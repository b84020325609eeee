"""`auth-service sessions`: listing and revoking them."""

from uuid import UUID

import click

from auth_service.app import Parts
from auth_service.cli.output import json_option, say, show
from auth_service.cli.running import with_parts
from auth_service.errors import NotFound
from auth_service.sessions.session import Session


@click.group()
def sessions() -> None:
    """List and revoke sessions."""


@sessions.command("list")
@click.argument("user")
@json_option
def list_sessions(user: str, as_json: bool) -> None:
    """List the live sessions of USER: an e-mail address, a user name or an id."""

    async def work(parts: Parts) -> list[Session]:
        account = await parts.users.locate(user)
        return list(await parts.sessions.live_of_user(account.id, now=await parts.database.now()))

    rows = [
        {
            "id": session.id,
            "created_at": session.created_at,
            "last_used_at": session.last_used_at,
            "expires_at": session.expires_at,
            "transport": session.transport,
            "scope": session.scope,
            "ip": session.client.ip,
            "user_agent": session.client.user_agent,
        }
        for session in with_parts(work)
    ]
    columns = ("id", "created_at", "last_used_at", "expires_at", "transport", "ip", "user_agent")
    show(rows, as_json=as_json, columns=columns, empty="No live session.")


@sessions.command()
@click.argument("session_id", type=click.UUID, required=False)
@click.option("--user", help="Revoke every session of this user instead.")
@json_option
def revoke(session_id: UUID | None, user: str | None, as_json: bool) -> None:
    """Revoke the session SESSION_ID, or every session of one user."""
    if (session_id is None) == (user is None):
        raise click.UsageError("give either SESSION_ID or --user")

    async def work(parts: Parts) -> int:
        if user is not None:
            account = await parts.users.locate(user)
            return await parts.users.end_sessions(account.id, reason="admin")
        assert session_id is not None
        session = (await parts.sessions.standing(session_id)).session
        if session is None:
            raise NotFound("no such session")
        if session.revoked_at is not None:
            return 0
        await parts.ending.end([session_id], reason="admin")
        return 1

    count = with_parts(work)
    say(f"Revoked {count} session{'' if count == 1 else 's'}.", as_json=as_json, revoked=count)
