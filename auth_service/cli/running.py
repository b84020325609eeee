"""Running a command against the service's parts: settings in, parts opened and closed, failures as exit codes."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg
import click
import structlog

from auth_service.accounts.account import Account
from auth_service.errors import NotFound, ServiceError, Unavailable
from auth_service.keys.encryption import WrongEncryptionKey
from auth_service.parts import Parts
from auth_service.settings import Settings, SettingsError, load_settings
from auth_service.stores.clock import Clock

_T = TypeVar("_T")


class SettingsWrong(click.ClickException):
    """Exit code 2: the settings are wrong. Every bad one is named."""

    exit_code = 2


def settings_or_exit(**overrides: object) -> Settings:
    """The settings, or an exit that names all that is wrong with them."""
    try:
        return load_settings(**overrides)
    except SettingsError as exc:
        lines = "\n".join(f"  {name}: {problem}" for name, problem in exc.problems.items())
        raise SettingsWrong(f"these settings are wrong:\n{lines}") from None


def with_parts(work: Callable[[Parts], Awaitable[_T]]) -> _T:
    """Run `work` on open parts. A refusal ends the command with its reason and exit code 1."""
    settings = settings_or_exit()

    async def run() -> _T:
        parts = Parts(settings, Clock())
        await parts.open()
        try:
            return await work(parts)
        finally:
            await parts.close()

    return run_or_exit(run)


async def locate(parts: Parts, user: str) -> Account:
    """The account that a person means by `user`; ends the command if there is none."""
    try:
        return await parts.users.locate(user)
    except NotFound:
        raise click.ClickException(
            f"there is no user {user!r}: `auth-service users list --search ...` looks for one"
        ) from None


def run_or_exit(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run `work`; what it refuses becomes one line and exit code 1."""

    async def run() -> _T:
        asyncio.get_running_loop().set_exception_handler(_background_failure)
        return await work()

    with _log_on_standard_error():
        try:
            return asyncio.run(run())
        except Unavailable as exc:
            raise click.ClickException(f"{exc.reason}: `auth-service check` says more") from None
        except (ServiceError, WrongEncryptionKey) as exc:
            raise click.ClickException(str(exc)) from None
        except asyncpg.PostgresError as exc:
            # Not one of the failures that pass: a right that is missing, a schema that somebody changed.
            raise click.ClickException(f"PostgreSQL refuses: {str(exc).partition(chr(10))[0]}") from None


def _background_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A connection that Ctrl-C cut short has nobody left to tell."""
    if not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)


@contextmanager
def _log_on_standard_error() -> Iterator[None]:
    """Standard output is the command's own: a line of the log in it would spoil the JSON. What
    went well it says itself: only warnings are logged."""
    before = structlog.get_config()
    structlog.configure(
        logger_factory=lambda *_names: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    try:
        yield
    finally:
        structlog.configure(**before)
