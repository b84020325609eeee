"""The stores of a test run: one PostgreSQL and one Redis, started by the same code as `auth-service dev`."""

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from auth_service.devstack.postgresql import PrivatePostgreSQL
from auth_service.devstack.redis import PrivateRedis
from auth_service.parts import Parts
from auth_service.settings import Settings, load_settings
from auth_service.stores import schema
from auth_service.stores.clock import Clock
from tests.support.redis_topologies import ClusterSet, RedisTopology, SentinelSet, flush

ISSUER = "https://auth.test"
TOPOLOGY = os.environ.get("TEST_REDIS_TOPOLOGY", "single")
"""What the stores of the run have for Redis: a single server, a cluster, or a master that Sentinels name."""
_TOPOLOGIES: dict[str, Callable[[Path], RedisTopology]] = {
    "single": PrivateRedis,
    "cluster": ClusterSet,
    "sentinel": SentinelSet,
}
_TEMPLATE = "template_auth"


class Stores:
    """Both servers, and a migrated template database with one pair of signing keys for the whole run."""

    def __init__(self, folder: Path, *, topology: str = "single") -> None:
        self.postgresql = PrivatePostgreSQL(folder, fast=True)
        self._redis = _TOPOLOGIES[topology](folder)
        self.encryption_key = urlsafe_b64encode(secrets.token_bytes(32)).decode()
        self._numbers = itertools.count(1)
        self._signing_keys: list[tuple[object, ...]] = []

    def start(self) -> None:
        self.postgresql.start()
        self._redis.start()
        self.postgresql.create_database(_TEMPLATE)
        asyncio.run(self._prepare())

    def stop(self) -> None:
        self._redis.stop()
        self.postgresql.stop()

    @property
    def redis(self) -> PrivateRedis:
        """The single server, for a test that stops it or speaks to it itself."""
        if not isinstance(self._redis, PrivateRedis):
            pytest.skip("this test is about a single Redis server")
        return self._redis

    @property
    def redis_url(self) -> str:
        return self._redis.url()

    @property
    def versions(self) -> str:
        return f"PostgreSQL {self.postgresql.version}, {self._redis.version}"

    def flush_redis(self) -> None:
        """Remove every key."""
        flush(self._redis)

    def new_database(self, *, empty: bool = False) -> str:
        """The URL of a new database: a copy of the template, or one without any table."""
        name = f"test_{next(self._numbers)}"
        self.postgresql.create_database(name, template="template1" if empty else _TEMPLATE)
        return self.postgresql.url(name)

    def drop(self, url: str) -> None:
        self.postgresql.drop_database(url.rpartition("/")[2])

    def empty(self, url: str) -> None:
        """Remove all that a test has left. The signing keys are those of the template again: making some takes long."""

        async def truncate() -> None:
            connection = await asyncpg.connect(url)
            await connection.execute("TRUNCATE users, sessions, revocations, clients, audit_events, signing_keys")
            await connection.copy_records_to_table("signing_keys", records=self._signing_keys)
            await connection.close()

        asyncio.run(truncate())

    def settings(self, **changes: Any) -> Settings:
        """Settings for these stores; `changes` win. Without a database URL they name the template."""
        return load_settings(
            **{
                "issuer": ISSUER,
                "database_url": self.postgresql.url(_TEMPLATE),
                "redis_url": self.redis_url,
                "key_encryption_keys": self.encryption_key,
                "allowed_origins": "https://app.test",
                "unthrottled_networks": "127.0.0.0/8",  # tests come from one address, many at once
                **changes,
            }
        )

    async def _prepare(self) -> None:
        settings = self.settings()
        await schema.migrate(settings.database_url.get_secret_value())
        parts = Parts(settings, Clock())
        await parts.open()
        await parts.key_life_cycle.ensure()
        await parts.database.rows("TRUNCATE audit_events")  # that the keys were made is no event of any test
        self._signing_keys = [tuple(row) for row in await parts.database.rows("SELECT * FROM signing_keys")]
        await parts.close()


@contextmanager
def started_stores(*, topology: str = "single") -> Iterator[Stores]:
    """Stores on ports and in a folder of their own, for as long as the body runs."""
    with tempfile.TemporaryDirectory(prefix="auth-tests-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as somebody else
        stores = Stores(Path(folder), topology=topology)
        try:
            stores.start()
            yield stores
        finally:
            stores.stop()


@asynccontextmanager
async def stopped(server: PrivatePostgreSQL | PrivateRedis, number: signal.Signals) -> AsyncIterator[None]:
    """The server is gone while the body runs, and is back on the same port after it."""
    await asyncio.to_thread(server.stop, number)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@contextmanager
def suspended(server: PrivatePostgreSQL | PrivateRedis) -> Iterator[None]:
    """It accepts and says nothing while the body runs: it and all it forked are stopped, then continued."""
    parent = psutil.Process(server.pid)
    parent.suspend()  # first: it can fork nothing more
    family = [parent, *parent.children(recursive=True)]
    for process in family[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
