"""What the commands take: types of arguments that refuse, with exit code 2, what could never be right."""

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


TEXT = _Text()
SCOPE = _Scope()

user_argument = click.argument("user", type=TEXT)
