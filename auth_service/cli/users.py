"""`auth-service users`: keeping accounts. Importing many at once is `user_import.py`'s."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import click

from auth_service.accounts import names
from auth_service.accounts.names import NameRefused
from auth_service.accounts.password_rules import require_strong
from auth_service.accounts.users import Account
from auth_service.app import Parts
from auth_service.cli.output import json_option, say, show
from auth_service.cli.running import with_parts
from auth_service.cli.user_import import import_users
from auth_service.errors import WeakPassword
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


@users.command()
@click.argument("username")
@click.argument("email")
@click.option("--scope", "granted", multiple=True, help="A scope beyond AUTH_DEFAULT_SCOPES; may be given many times.")
@_password_option
@json_option
def add(username: str, email: str, granted: tuple[str, ...], password_stdin: bool, as_json: bool) -> None:
    """Add a user USERNAME with the address EMAIL."""
    try:
        name, address = names.username(username), names.email(email)
    except NameRefused as exc:
        raise click.UsageError(f"the name {exc}") from None
    _require_scopes(granted)
    password = _password(password_stdin)

    async def work(parts: Parts) -> Account:
        _require_strong(parts, password, username=name.text, email=address.text)
        return await parts.users.add(username=name, email=address, password=password, granted_scopes=granted)

    account = with_parts(work)
    say(f"Added {account.username} ({account.id}).", as_json=as_json, **_facts(account))


@users.command("list")
@click.option("--search", default="", help="Only those whose name or address contains this.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@click.option("--after", default="", help="Start after this user name.")
@json_option
def list_users(search: str, limit: int, after: str, as_json: bool) -> None:
    """List users by name."""

    async def work(parts: Parts) -> list[Account]:
        return list(await parts.users.page(search=search, after=names.key(after), limit=limit))

    found = with_parts(work)
    columns = ("id", "username", "email", "scopes", "created_at", "last_login_at", "disabled_at")
    rows = [_facts(account) for account in found]
    if not as_json:
        rows = [row | {"scopes": scopes.join(row["scopes"]) or None} for row in rows]
    show(rows, as_json=as_json, columns=columns, empty="No user.")
    if len(found) == limit and not as_json:
        click.echo(f"There may be more: --after {found[-1].username!r}", err=True)


@users.command()
@click.argument("user")
@json_option
def disable(user: str, as_json: bool) -> None:
    """Refuse every login of USER and end every session."""
    account = _change(user, lambda parts, account: parts.users.disable(account.id))
    say(f"Disabled {account.username}; every session has ended.", as_json=as_json, **_facts(account))


@users.command()
@click.argument("user")
@json_option
def enable(user: str, as_json: bool) -> None:
    """Allow USER to log in again."""
    account = _change(user, lambda parts, account: parts.users.enable(account.id))
    say(f"Enabled {account.username}.", as_json=as_json, **_facts(account))


@users.command("set-password")
@click.argument("user")
@_password_option
@json_option
def set_password(user: str, password_stdin: bool, as_json: bool) -> None:
    """Give USER a new password and end every session."""
    password = _password(password_stdin)

    async def change(parts: Parts, account: Account) -> None:
        _require_strong(parts, password, username=account.username, email=account.email)
        await parts.users.set_password(account.id, password)

    account = _change(user, change)
    say(f"{account.username} has a new password; every session has ended.", as_json=as_json, **_facts(account))


@users.command()
@click.argument("user")
@click.argument("granted", metavar="SCOPE...", nargs=-1, required=True)
@json_option
def grant(user: str, granted: tuple[str, ...], as_json: bool) -> None:
    """Grant USER scopes beyond the default ones."""
    _require_scopes(granted)
    account = _change(user, lambda parts, account: parts.users.grant(account.id, add=granted))
    _say_scopes(account, as_json=as_json)


@users.command()
@click.argument("user")
@click.argument("taken", metavar="SCOPE...", nargs=-1, required=True)
@json_option
def ungrant(user: str, taken: tuple[str, ...], as_json: bool) -> None:
    """Take scopes away from USER; they are gone at the next refresh."""
    account = _change(user, lambda parts, account: parts.users.grant(account.id, remove=taken))
    _say_scopes(account, as_json=as_json)


def _change(user: str, change: Callable[[Parts, Account], Awaitable[object]]) -> Account:
    """Apply `change` to the account that `user` names; answers the account as it is after it."""

    async def work(parts: Parts) -> Account:
        account = await parts.users.locate(user)
        await change(parts, account)
        return await parts.users.locate(str(account.id))

    return with_parts(work)


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _require_strong(parts: Parts, password: str, *, username: str, email: str) -> None:
    try:
        require_strong(password, min_length=parts.settings.password_min_length, username=username, email=email)
    except WeakPassword as exc:
        raise click.ClickException(exc.detail) from None


def _require_scopes(granted: tuple[str, ...]) -> None:
    for scope in granted:
        if not scopes.is_valid(scope):
            raise click.UsageError("a scope may hold printable ASCII except space, quote and backslash")


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
