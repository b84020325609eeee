"""The database schema: bringing it up to date. Whether it is, `applied_migrations.py` says.

Tortoise's migrations take no lock of their own, so any number of `migrate` at once would trip over each other: a
session lock on a connection of its own keeps them in a line.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg
from tortoise.context import TortoiseContext
from tortoise.exceptions import BaseORMException, DBConnectionError
from tortoise.migrations.executor import MigrationExecutor, MigrationTarget

from auth_service.errors import Unavailable
from auth_service.stores.database import connection_arguments, database_failures

APP = "auth_service"
_CONNECT = 5.0  # seconds
_LOCK = 0x61757468_6D696772  # "authmigr": any number that nothing else in this database locks


def tortoise_config(url: str) -> dict[str, object]:
    """Tortoise's configuration for migrations: no time limits, since a migration may take long."""
    return {
        "connections": {
            "default": {
                "engine": "tortoise.backends.asyncpg",
                "credentials": {**connection_arguments(url), "timeout": _CONNECT},
            },
        },
        "apps": {
            APP: {
                "models": ["auth_service.models"],
                "default_connection": "default",
                "migrations": "auth_service.migrations",
            }
        },
        "use_tz": True,
    }


async def migrate(url: str, *, applied: Callable[[str], None] = lambda _name: None) -> None:
    """Apply what is missing; `applied` is told each migration's name. Safe to run any number of times at once.

    Raises Unavailable when PostgreSQL is away.
    """
    with database_failures(), _tortoise_failures():
        lock = await asyncpg.connect(**connection_arguments(url), timeout=_CONNECT)
        try:
            await lock.execute("SELECT pg_advisory_lock($1)", _LOCK)
            async with TortoiseContext() as context:
                await context.init(tortoise_config(url))
                apps = tortoise_config(url)["apps"]
                assert isinstance(apps, dict)
                executor = MigrationExecutor(context.connections.get("default"), apps)
                await executor.migrate(
                    [MigrationTarget(APP, "__latest__")],
                    direction="forward",
                    progress=lambda event, _app, name: applied(name) if event == "apply_done" else None,
                )
        finally:
            await lock.close()


@contextmanager
def _tortoise_failures() -> Iterator[None]:
    """Tortoise wraps asyncpg's exceptions: what counts is what is inside."""
    try:
        yield
    except DBConnectionError as exc:
        raise Unavailable(f"postgresql: {type(exc).__name__}") from exc
    except BaseORMException as exc:
        raise exc.__cause__ or exc from None
