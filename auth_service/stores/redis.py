"""Redis: the client, its short patience, and which of its failures mean "away". The keys live with their nouns."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from auth_service.errors import Unavailable
from auth_service.metrics import STORE_FAILURES

_SOCKET_TIMEOUT = 1.0  # seconds; the library's own patience would hold a request for half a minute
_RETRIES = 1

ANSWER_TIMEOUT = _SOCKET_TIMEOUT * (1 + _RETRIES)
"""Seconds after which a command that was sent is given up, its retry included."""


def open_redis(url: str, *, pool_size: int = 32) -> "Redis":
    """A client that waits for a free connection, retries once, and gives up within about two seconds."""
    return _client(url, pool_size=pool_size, socket_timeout=_SOCKET_TIMEOUT, retries=_RETRIES)


def open_blocking_redis(url: str, *, block: float) -> "Redis":
    """A client with one connection, for commands that wait up to `block` seconds for something to happen.

    It retries nothing by itself, so that its owner notices each time that it may speak to another node.
    """
    return _client(url, pool_size=1, socket_timeout=block + _SOCKET_TIMEOUT, retries=0)


def _client(url: str, *, pool_size: int, socket_timeout: float, retries: int) -> "Redis":
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=pool_size,
        timeout=_SOCKET_TIMEOUT,
        socket_timeout=socket_timeout,
        socket_connect_timeout=_SOCKET_TIMEOUT,
        retry=Retry(ConstantBackoff(0.02), retries),
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


class UnsuitableRedis(Exception):
    """This Redis may drop keys by itself."""


async def require_suitable(redis: "Redis", allow_insecure: Collection[str]) -> str:
    """The `maxmemory-policy`, as Redis itself says it (no CONFIG right is needed), if it fits.

    Every key of ours has a life, so any policy but `noeviction` may take one, and a session's generation with it.
    Raises UnsuitableRedis, Unavailable.
    """
    with redis_failures():
        memory = await redis.info("memory")
    policy = str(memory.get("maxmemory_policy", "not known"))
    if policy != "noeviction" and "evicting_redis" not in allow_insecure:
        raise UnsuitableRedis(
            f"its maxmemory-policy is {policy}: set it to noeviction (AUTH_ALLOW_INSECURE=evicting_redis lifts this)"
        )
    return policy
