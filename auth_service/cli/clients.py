"""`auth-service clients`: keeping the services that get tokens of their own."""

import shlex
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import click

from auth_service.accounts.clients import GRANT_TYPES, LONGEST_OVERLAP, OVERLAP, Client, GrantType, Registration
from auth_service.audit import OPERATOR
from auth_service.cli.arguments import SCOPE, TEXT
from auth_service.cli.output import json_option, say, show
from auth_service.cli.running import with_parts
from auth_service.errors import InvalidRequest, NotFound, Taken
from auth_service.parts import Parts

_T = TypeVar("_T")

_client_argument = click.argument("client", type=TEXT)


@click.group()
def clients() -> None:
    """Add, list and remove service clients, and rotate their secrets.

    CLIENT is a name or a client id.
    """


@clients.command(short_help="Add a client; its secret is shown once.")
@click.argument("name", type=TEXT)
@click.option("--scope", "scope", type=SCOPE, multiple=True, help="A scope that it may have; may be given many times.")
@click.option(
    "--audience",
    "audiences",
    type=TEXT,
    multiple=True,
    help="Whom its tokens may be for; may be given many times. Default: AUTH_AUDIENCES.",
)
@click.option(
    "--grant", "grants", type=click.Choice(GRANT_TYPES), multiple=True, help="A grant that it may use. Default: all."
)
@click.option("--no-grant", is_flag=True, help="It gets no tokens: it may only introspect.")
@json_option
def add(
    name: str,
    scope: tuple[str, ...],
    audiences: tuple[str, ...],
    grants: tuple[GrantType, ...],
    no_grant: bool,
    as_json: bool,
) -> None:
    """Add a client NAME. Its secret is shown this once, and nowhere kept.

    auth:... and revocations:read open this service itself: they are in a token only if it is asked for with them.
    """
    if no_grant and grants:
        raise click.UsageError("--no-grant and --grant exclude each other")
    grant_types = () if no_grant else grants or GRANT_TYPES
    try:
        registration = Registration(name, grant_types, frozenset(scope), audiences)
    except InvalidRequest as exc:
        raise click.UsageError("; ".join(f"{field} {message}" for field, message in exc.fields)) from None

    async def work(parts: Parts) -> tuple[Client, str]:
        try:
            return await parts.clients.add(registration, by=OPERATOR)
        except Taken:
            raise click.ClickException(
                "another client has this name: "
                f"`auth-service clients rotate-secret {shlex.quote(name)}` gives it a new secret"
            ) from None

    _say_secret("Added", *with_parts(work), as_json=as_json)


@clients.command("list", short_help="List clients by name.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="COUNT", help="At most so many."
)
@click.option("--after", type=TEXT, default="", help="Start after this name.")
@json_option
def list_clients(limit: int, after: str, as_json: bool) -> None:
    """List clients in the order of their names."""

    async def work(parts: Parts) -> list[Client]:
        return list(await parts.clients.page(after=after, limit=limit + 1))

    found = with_parts(work)
    rows = [client.metadata for client in found[:limit]]
    if not as_json:
        rows = [row | {name: " ".join(row[name]) or None for name in ("grant_types", "audiences")} for row in rows]
    show(
        rows,
        as_json=as_json,
        columns=("client_name", "client_id", "scope"),
        spare=("audiences", "created_at", "grant_types", "previous_secret_until"),
        empty="No client.",
    )
    if len(found) > limit:
        click.echo(f"There are more: --after {shlex.quote(found[limit - 1].name)}", err=True)


@clients.command(short_help="Remove a client; its tokens are refused from now on.")
@_client_argument
@json_option
def remove(client: str, as_json: bool) -> None:
    """Remove CLIENT. Every verifier refuses its tokens within a second; its id is never given again."""

    async def work(parts: Parts, found: Client) -> None:
        await parts.clients.remove(found.id, by=OPERATOR)

    removed, _ = _change(client, work)
    say(f"Removed {removed.name}; its tokens are refused from now on.", as_json=as_json, **removed.metadata)


@clients.command("rotate-secret", short_help="Give a client a new secret; it is shown once.")
@_client_argument
@click.option(
    "--overlap",
    type=click.IntRange(0, int(LONGEST_OVERLAP.total_seconds())),
    default=int(OVERLAP.total_seconds()),
    show_default=True,
    metavar="SECONDS",
    help="How long the secret until now stays good; 0: it ends at once.",
)
@json_option
def rotate_secret(client: str, overlap: int, as_json: bool) -> None:
    """Give CLIENT a new secret, which is shown this once. For a while the old one is good too."""

    async def work(parts: Parts, found: Client) -> tuple[Client, str]:
        return await parts.clients.rotate_secret(found.id, by=OPERATOR, overlap=timedelta(seconds=overlap))

    _, (changed, secret) = _change(client, work)
    _say_secret("A new secret for", changed, secret, as_json=as_json)


def _change(client: str, change: Callable[[Parts, Client], Awaitable[_T]]) -> tuple[Client, _T]:
    """Apply `change` to the client that `client` names; ends the command if there is none."""

    async def work(parts: Parts) -> tuple[Client, _T]:
        try:
            found = await parts.clients.locate(client)
            return found, await change(parts, found)
        except NotFound:
            raise click.ClickException(
                f"there is no client {client!r}: `auth-service clients list` names them"
            ) from None

    return with_parts(work)


def _say_secret(what: str, client: Client, secret: str, *, as_json: bool) -> None:
    text = (
        f"{what} {client.name}. The secret is shown this once.\n\n"
        f"  client_id      {client.id}\n  client_secret  {secret}"
    )
    if client.previous_secret_until is not None:
        text += f"\n\nThe one before it is good until {client.previous_secret_until:%Y-%m-%d %H:%M:%S} UTC."
    say(text, as_json=as_json, **{**client.metadata, "client_secret": secret})
