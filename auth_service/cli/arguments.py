"""What the commands take: types of arguments that refuse, with exit code 2, what could never be right."""

from datetime import UTC, datetime

import click

from auth_service.tokens import scope as scopes


class _Text(click.ParamType[str]):
    """Text that PostgreSQL can be asked about: the shell may hand on bytes that are not UTF-8."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            self.fail("it is not UTF-8", param, ctx)
        return text


class _Scope(click.ParamType[str]):
    """One scope of RFC 6749 §3.3."""

    name = "scope"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not scopes.is_valid(str(value)):
            self.fail("a scope is printable ASCII without space, quote and backslash", param, ctx)
        return str(value)


class _Moment(click.ParamType[datetime]):
    """A day or a time, as ISO 8601 and RFC 3339 write them; in UTC where it does not say otherwise."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail("give a day or a time in UTC, like 2030-01-31 or 2030-01-31T12:00:00Z", param, ctx)


TEXT = _Text()
SCOPE = _Scope()
MOMENT = _Moment()

user_argument = click.argument("user", type=TEXT)
