"""Running a command against the service's parts: settings in, parts opened and closed, failures as exit codes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from auth_service.app import Parts
from auth_service.errors import ServiceError, Unavailable
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


def run_or_exit(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run `work`; what it refuses becomes one line and exit code 1."""

    async def run() -> _T:
        return await work()

    try:
        return asyncio.run(run())
    except Unavailable as exc:
        raise click.ClickException(f"{exc.reason}; `auth-service check` says more") from None
    except ServiceError as exc:
        raise click.ClickException(f"{exc.reason}") from None
