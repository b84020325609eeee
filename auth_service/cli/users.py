"""`auth-service users`: keeping accounts. Importing many at once is `user_import.py`'s."""

import shlex
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import click

from auth_service.accounts import names
from auth_service.accounts.account import Account
from auth_service.accounts.names import Name, NameRefused
from auth_service.audit import OPERATOR
from auth_service.cli.arguments import SCOPE, TEXT, user_argument
from auth_service.cli.output import json_option, say, show
from auth_service.cli.running import locate, with_parts
from auth_service.cli.user_import import import_users
from auth_service.errors import WeakPassword
from auth_service.parts import Parts
from auth_service.tokens import scope as scopes

_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input instead of asking for it."
)


@click.group()
def users() -> None:
    """Add, list, disable, import and otherwise keep users.

    USER is an e-mail address, a user name or an id.
    """


users.add_command(import_users)


@users.command(short_help="Add a user.")
@click.argument("username")
@click.argument("email")
@click.option(
    "--scope", "granted", type=SCOPE, multiple=True, help="A scope beyond AUTH_DEFAULT_SCOPES; may be given many times."
)
@_password_option
@json_option
def add(username: str, email: str, granted: tuple[str, ...], password_stdin: bool, as_json: bool) -> None:
    """Add a user USERNAME with the address EMAIL."""
    name = _name("USERNAME", names.username, username)
    address = _name("EMAIL", names.email, email)
    password = _password(password_stdin)

    async def work(parts: Parts) -> Account:
        await _require_strong(parts, password, username=name.text, email=address.text)
        return await parts.users.add(
            username=name, email=address, password=password, granted_scopes=granted, by=OPERATOR
        )

    account = with_parts(work)
    say(f"Added {account.username} ({account.id}).", as_json=as_json, **_facts(account))


@users.command("list", short_help="List users by name.")
@click.option("--search", type=TEXT, default="", help="Only those whose name or address contains this.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="COUNT", help="At most so many."
)
@click.option("--after", type=TEXT, default="", help="Start after this user name.")
@json_option
def list_users(search: str, limit: int, after: str, as_json: bool) -> None:
    """List users in the order of their names."""

    async def work(parts: Parts) -> list[Account]:
        return list(await parts.users.page(search=search, after=after, limit=limit + 1))

    found = with_parts(work)
    rows = [_facts(account) for account in found[:limit]]
    if not as_json:
        rows = [row | {"scopes": scopes.join(row["scopes"]) or None} for row in rows]
    show(
        rows,
        as_json=as_json,
        columns=("username", "email", "last_login_at", "disabled_at"),
        spare=("scopes", "created_at", "id"),
        empty="No user.",
    )
    if len(found) > limit:
        click.echo(f"There are more: --after {shlex.quote(found[limit - 1].username)}", err=True)


@users.command(short_help="Refuse every login of a user and end every session.")
@user_argument
@json_option
def disable(user: str, as_json: bool) -> None:
    """Refuse every login of USER and end every session."""
    account = _change(user, lambda parts, account: parts.users.disable(account.id, by=OPERATOR))
    say(f"Disabled {account.username}; every session has ended.", as_json=as_json, **_facts(account))


@users.command(short_help="Allow a disabled user to log in again.")
@user_argument
@json_option
def enable(user: str, as_json: bool) -> None:
    """Allow USER to log in again. Sessions that were ended stay ended."""
    account = _change(user, lambda parts, account: parts.users.enable(account.id, by=OPERATOR))
    say(f"Enabled {account.username}.", as_json=as_json, **_facts(account))


@users.command("set-password", short_help="Give a user a new password and end every session.")
@user_argument
@_password_option
@json_option
def set_password(user: str, password_stdin: bool, as_json: bool) -> None:
    """Give USER a new password and end every session."""
    with_parts(lambda parts: locate(parts, user))  # before anybody thinks of a password
    password = _password(password_stdin)

    async def change(parts: Parts, account: Account) -> None:
        await _require_strong(parts, password, username=account.username, email=account.email)
        await parts.users.set_password(account.id, password, by=OPERATOR)

    account = _change(user, change)
    say(f"{account.username} has a new password; every session has ended.", as_json=as_json, **_facts(account))


@users.command(short_help="Grant a user scopes beyond the default ones.")
@user_argument
@click.argument("granted", type=SCOPE, metavar="SCOPE...", nargs=-1, required=True)
@json_option
def grant(user: str, granted: tuple[str, ...], as_json: bool) -> None:
    """Grant USER scopes beyond the default ones.

    auth:admin and the other scopes that open this service itself are in a token only if the login asks for them.
    """
    account = _change(user, lambda parts, account: parts.users.grant(account.id, add=granted, by=OPERATOR))
    _say_scopes(account, as_json=as_json)


@users.command(short_help="Take scopes away from a user.")
@user_argument
@click.argument("taken", type=SCOPE, metavar="SCOPE...", nargs=-1, required=True)
@json_option
def ungrant(user: str, taken: tuple[str, ...], as_json: bool) -> None:
    """Take scopes away from USER; they are gone at the next refresh."""
    account = _change(user, lambda parts, account: parts.users.grant(account.id, remove=taken, by=OPERATOR))
    _say_scopes(account, as_json=as_json)


def _change(user: str, change: Callable[[Parts, Account], Awaitable[object]]) -> Account:
    """Apply `change` to the account that `user` names; returns the account as it is after it."""

    async def work(parts: Parts) -> Account:
        account = await locate(parts, user)
        await change(parts, account)
        return await parts.users.locate(str(account.id))

    return with_parts(work)


def _name(argument: str, parse: Callable[[str], Name], text: str) -> Name:
    try:
        return parse(text)
    except NameRefused as exc:
        raise click.UsageError(f"{argument} {exc}") from None


def _password(from_stdin: bool) -> str:
    if not from_stdin:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask for the password at: give --password-stdin")
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return password
    try:
        return sys.stdin.buffer.readline().decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException("the password on standard input is not UTF-8") from None


async def _require_strong(parts: Parts, password: str, *, username: str, email: str) -> None:
    try:
        await parts.password_rules.require(password, username=username, email=email)
    except WeakPassword as exc:
        raise click.ClickException(exc.detail) from None


def _say_scopes(account: Account, *, as_json: bool) -> None:
    granted = scopes.join(account.granted_scopes) or "nothing beyond the default scopes"
    say(f"{account.username} is granted {granted}.", as_json=as_json, **_facts(account))


def _facts(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "username": account.username,
        "email": account.email,
        "scopes": account.granted_scopes,
        "created_at": account.created_at,
        "last_login_at": account.last_login_at,
        "disabled_at": account.disabled_at,
    }
