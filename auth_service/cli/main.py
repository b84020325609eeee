"""`auth-service`: the list of its commands. Each is imported only when it is called, so that `--help` is fast."""

import importlib
import sys
from typing import Any

import click

from auth_service import __version__

# Name → where the command is, and its line in --help.
_COMMANDS = {
    "dev": ("auth_service.cli.dev:dev", "Run everything on this machine, with a demo user."),
    "serve": ("auth_service.cli.serve:serve_command", "Serve, as in production."),
    "migrate": ("auth_service.cli.migrate:migrate_command", "Bring the database schema up to date."),
    "check": ("auth_service.cli.check:check", "Say what is wrong, and how to mend it."),
    "users": ("auth_service.cli.users:users", "Add, list, disable, import and otherwise keep users."),
    "clients": ("auth_service.cli.clients:clients", "Add, list and remove service clients, and rotate their secrets."),
    "keys": ("auth_service.cli.keys:keys", "List, rotate, revoke and rewrap the signing keys."),
    "sessions": ("auth_service.cli.sessions:sessions", "List and revoke sessions."),
    "audit": ("auth_service.cli.audit:audit", "Read who did what, to what, and from where."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                # A terminal that lacks a letter shows its number: no name of a user may end a command.
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **options)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="auth-service")
def main() -> None:
    """Issue JWTs, rotate refresh tokens, revoke sessions.

    Settings are read from the environment (AUTH_...) and from a .env file; the command `check` says what is wrong with
    them. Most commands take --json. Times are in UTC. Exit codes: 0 done, 1 it could not be done, 2 the call or a
    setting is wrong.
    """
