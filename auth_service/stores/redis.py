"""Redis: the client, its short patience, and which of its failures mean "away". The keys live with their nouns."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from auth_service.errors import Unavailable
from auth_service.metrics import STORE_FAILURES

SOCKET_TIMEOUT = 1.0
"""Seconds to wait for an answer. The library's own patience would hold a request for half a minute."""


def open_redis(url: str, *, pool_size: int = 32) -> "Redis":
    """A client that waits for a free connection, retries once, and gives up within about two seconds."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=pool_size,
        timeout=SOCKET_TIMEOUT,
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=SOCKET_TIMEOUT,
        retry=Retry(ConstantBackoff(0.02), 1),
        client_name="auth-service",
    )
    return Redis.from_pool(pool)


@contextmanager
def redis_failures() -> Iterator[None]:
    """Turn every failure of Redis into Unavailable: never a wrong answer, never a lost session."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as exc:
        STORE_FAILURES.labels(store="redis").inc()
        raise Unavailable(f"redis: {type(exc).__name__}") from exc


async def eviction_policy(redis: "Redis") -> str:
    """`maxmemory_policy` as Redis itself says it; needs no CONFIG right. Raises Unavailable."""
    with redis_failures():
        memory = await redis.info("memory")
    return str(memory.get("maxmemory_policy", "noeviction"))
