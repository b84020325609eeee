"""Connecting to Redis: pools that wait, time-outs that are short, and for Sentinels whom to ask for the master."""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from auth_service.redis_url import Credentials, Host, RedisAddress

SOCKET_TIMEOUT = 1.0
"""Seconds; the library's own patience would hold a request for half a minute."""
_SENTINEL_TIMEOUT = 0.4  # seconds: of three Sentinels that hang, the last is still asked in time
_RETRY_AFTER = 0.02  # seconds
_INTRODUCTION: Mapping[str, Any] = {
    "client_name": "auth-service",
    "driver_info": None,  # CLIENT SETINFO would be one more right to give, which older servers do not know
}


class Master:
    """The one server that takes everything: a server with its own address, or whichever the Sentinels name."""

    def __init__(self, redis: "Redis", address: RedisAddress, sentinel: Sentinel | None = None) -> None:
        self._redis = redis
        self._address = address
        self._sentinel = sentinel

    async def execute(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        return await self._redis.execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async def masters(self) -> Mapping[str, "Redis"]:
        """This one, by where it is: the Sentinels are asked anew, and a connection to another one is not used again."""
        pool = self._redis.connection_pool
        if isinstance(pool, SentinelConnectionPool):
            found = await pool.get_master_address()  # type: ignore[no-untyped-call]
            return {f"{self._address}, at {Host(*found)}": self._redis}
        return {str(self._address): self._redis}

    async def master_of(self, _key: str | bytes) -> "Redis":
        return self._redis

    async def aclose(self) -> None:
        await self._redis.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class Connector:
    """Makes the clients of one address, all alike: `pool_size` connections each, which are waited for."""

    def __init__(self, address: RedisAddress, *, pool_size: int, socket_timeout: float, retries: int) -> None:
        self._address = address
        self._options: dict[str, Any] = {
            "db": address.database,
            **_INTRODUCTION,
            "max_connections": pool_size,
            "timeout": SOCKET_TIMEOUT,
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": SOCKET_TIMEOUT,
            "retry": Retry(ConstantBackoff(_RETRY_AFTER), retries),
            # The name of a server may be given to another one, and what it was before goes on as a replica.
            "retry_on_error": [ReadOnlyError],
            **_identity(address.credentials),
            **(address.tls or {}),
        }
        if address.protocol is not None:
            self._options["protocol"] = address.protocol

    def to(self, host: Host) -> "Redis":
        """The client of one server."""
        connection: type[AbstractConnection] = Connection if self._address.tls is None else SSLConnection
        return Redis.from_pool(
            BlockingConnectionPool(connection_class=connection, host=host.name, port=host.port, **self._options)
        )

    def to_named_by_sentinels(self) -> Master:
        """Whichever server the Sentinels call the master: they are asked at each new connection."""
        address = self._address
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            [(host.name, host.port) for host in address.hosts],
            sentinel_kwargs={
                "socket_timeout": _SENTINEL_TIMEOUT,
                "socket_connect_timeout": _SENTINEL_TIMEOUT,
                "retry": Retry(NoBackoff(), 0),
                **_INTRODUCTION,
                "ssl": address.tls is not None,
                **_identity(address.sentinel_credentials),
                **(address.tls or {}),
            },
        )
        pool = _MasterPool(  # type: ignore[no-untyped-call]
            address.master,
            sentinel,
            connection_class=SentinelManagedConnection if address.tls is None else SentinelManagedSSLConnection,
            redis_connect_func=_require_master,
            **self._options,
        )
        return Master(Redis.from_pool(pool), address, sentinel)


class _MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Asks the Sentinels for the master as the one does, and waits for a free connection as the other does."""


async def _require_master(connection: AbstractConnection) -> None:
    """A Sentinel that was cut off may name the master of before; what it names says itself what it is."""
    await connection.on_connect()
    await connection.send_command("ROLE")
    role = await connection.read_response()
    if role[0] not in (b"master", "master"):
        raise RedisConnectionError("what the Sentinel named is no master")


def _identity(credentials: Credentials) -> dict[str, str]:
    found = {"username": credentials.username, "password": credentials.password}
    return {name: value for name, value in found.items() if value is not None}
