"""PostgreSQL: the connection pool, transactions with a bound, and which of its failures mean "away".

The statements are plain SQL and live with the nouns they are about. The tables are Tortoise models (`models.py`), whose
migrations `schema.py` runs.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from auth_service.errors import Unavailable
from auth_service.metrics import STORE_FAILURES, STORE_SECONDS
from auth_service.stores.clock import Clock

Row = Any
"""An `asyncpg.Record`: its columns are read by name."""

TIME_LIMIT = 5.0
"""Seconds that one transaction may take, waiting included. PostgreSQL may take longer over its COMMIT, which no limit
covers and nothing can call back: what is answered as a failure then may still come to be."""

READ_ONLY = "current_setting('transaction_read_only')::bool"
"""SQL for whether the server takes no writes: a standby, or a demoted primary."""

# The same bound on the server's side, where a stopped process of ours cannot hold it off.
_SERVER_SETTINGS = {
    "application_name": "auth-service",
    "statement_timeout": "4000",
    "lock_timeout": "3000",
    "idle_in_transaction_session_timeout": "4000",
    "timezone": "UTC",
}

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that the server ended while nobody looked, found out in mid-use
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,  # shutting down, starting up, a cancelled statement
    asyncpg.exceptions.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.TransactionRollbackError,  # deadlock, serialization
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a demoted primary
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.UndefinedTableError,  # not migrated yet: `auth-service check` says so
    asyncpg.exceptions.UndefinedColumnError,
    asyncpg.exceptions.InvalidCachedStatementError,  # migrated under our feet: the next try prepares it anew
    asyncpg.exceptions.OutdatedSchemaCacheError,
)


class Statements(Protocol):
    """What can run a statement: the pool, or one transaction."""

    async def rows(self, sql: str, *values: object) -> Sequence[Row]: ...
    async def row(self, sql: str, *values: object) -> Row | None: ...

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once what was run is committed; never if it is rolled back. Outside a transaction: now."""
        ...


class Database:
    """The pool. Connects at the first statement, and again by itself after a failure.

    Every method raises Unavailable when PostgreSQL is away, too slow, or not migrated.
    """

    def __init__(self, url: str, clock: Clock, *, pool_size: int = 16) -> None:
        self.clock = clock
        self._url = url
        self._pool_size = pool_size
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Make the pool. Connects to nothing yet."""
        self._pool = await asyncpg.create_pool(
            **connection_arguments(self._url),
            min_size=0,
            max_size=self._pool_size,
            timeout=3.0,
            command_timeout=4.0,
            server_settings=_SERVER_SETTINGS,
            # Nothing of ours leaves state on a connection, so a released one needs no RESET ALL round trip.
            reset=_keep_as_it_is,
        )

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(TIME_LIMIT):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    async def rows(self, sql: str, *values: object) -> Sequence[Row]:
        """The rows of one statement, on any connection."""
        began = time.perf_counter()
        with database_failures():
            async with asyncio.timeout(TIME_LIMIT), self._connection() as connection:
                rows: Sequence[Row] = await connection.fetch(sql, *values)
        STORE_SECONDS["postgresql"].observe(time.perf_counter() - began)
        return rows

    async def row(self, sql: str, *values: object) -> Row | None:
        """The first row of one statement, or None."""
        return next(iter(await self.rows(sql, *values)), None)

    def after_commit(self, callback: Callable[[], None]) -> None:
        callback()

    async def now(self) -> datetime:
        """The time, for an operation whose first statement cannot read it itself."""
        return await read_time(self, self.clock)

    async def require_writes(self) -> None:
        """Return if it answers, and takes writes: a demoted primary and a standby do not. Raises Unavailable."""
        [row] = await self.rows(f"SELECT {READ_ONLY} AS read_only")
        if row["read_only"]:
            raise await self.takes_no_writes()

    async def takes_no_writes(self) -> Unavailable:
        """What a refused write would be turned into. A connection that takes none may do so for as long as it lives,
        although new ones do: all that are open now are given up."""
        assert self._pool is not None, "not open"
        await self._pool.expire_connections()
        return Unavailable("postgresql: ReadOnlySQLTransactionError")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Statements]:
        """A transaction that takes at most `TIME_LIMIT`; rolled back if its body raises."""
        with database_failures():
            async with asyncio.timeout(TIME_LIMIT), self._connection() as connection:
                transaction = _Transaction(connection)
                async with connection.transaction():
                    yield transaction
        transaction.committed()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        assert self._pool is not None, "not open"
        connection = await self._pool.acquire()
        try:
            yield connection
        except (asyncio.CancelledError, TimeoutError, asyncpg.InternalClientError, asyncpg.ReadOnlySQLTransactionError):
            # Given back as it is, asyncpg would ask the server to cancel the statement, and wait for one that hangs; or
            # hand on a connection that is in the middle of something, or that takes no writes and may never again.
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)


class _Transaction:
    """Runs statements on the connection of one transaction."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._callbacks: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def committed(self) -> None:
        for callback in self._callbacks:
            callback()

    async def rows(self, sql: str, *values: object) -> Sequence[Row]:
        rows: Sequence[Row] = await self._connection.fetch(sql, *values)
        return rows

    async def row(self, sql: str, *values: object) -> Row | None:
        return next(iter(await self.rows(sql, *values)), None)


async def read_time(statements: Statements, clock: Clock) -> datetime:
    """`now`, read from PostgreSQL on these statements' connection."""
    return clock.now((await statements.rows("SELECT clock_timestamp() AS now"))[0]["now"])


@contextmanager
def database_failures() -> Iterator[None]:
    """Turn "PostgreSQL is away" into Unavailable; every other failure stays what it is."""
    try:
        yield
    except _AWAY as exc:
        if isinstance(exc, ValueError):
            raise  # asyncpg's own check of an argument: a fault of ours, which waiting does not mend
        STORE_FAILURES.labels(store="postgresql").inc()
        raise Unavailable(f"postgresql: {type(exc).__name__}") from exc


def connection_arguments(url: str) -> dict[str, Any]:
    """What `asyncpg.connect` wants, from a `postgresql://` URL. `sslmode` and `sslrootcert` are understood."""
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    arguments: dict[str, Any] = {
        "host": options.get("host") or parts.hostname,
        "port": parts.port or 5432,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.removeprefix("/")) or None,
    }
    if "sslrootcert" in options:
        arguments["ssl"] = ssl.create_default_context(cafile=options["sslrootcert"])
    elif "sslmode" in options:
        arguments["ssl"] = options["sslmode"]
    return arguments


async def _keep_as_it_is(_connection: object) -> None:
    return
