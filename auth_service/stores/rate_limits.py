"""The counters of the `limits` library, kept in our own Redis client: its pool, its short patience, its topology.

What is counted, and how often it may happen, is `accounts/throttle.py`'s. What is under way is `places.py`'s.
"""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge

from auth_service.stores.redis import RedisClient

PREFIX = "auth:throttle"

# A counter may have been cleared or have expired meanwhile. It must not fall below zero, which would allow more
# attempts, nor be created here, since it would have no expiry.
_GIVE_BACK = "if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then return redis.call('DECR', KEYS[1]) end return 0"


class RedisCounters(RedisStorage):
    """Counters in Redis, each with a life. Every script touches one key.

    The library would open a client of its own from a URL, with other time-outs; `redis` may be that of one server, of a
    master that Sentinel names, or of a cluster. It would also make a round trip for each counter: `read`, `add` and
    `forget` make one for all of theirs. Errors are those of redis-py.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        super().__init__("async+redis://", implementation="redispy", key_prefix=PREFIX)
        self._give_back = redis.register_script(_GIVE_BACK)

    def configure_bridge(self) -> None:
        bridge = self.bridge
        assert isinstance(bridge, RedispyBridge), "as asked for above"
        redis = cast(Any, self._redis)  # it is asked for less than the library's type says
        bridge.storage = redis
        bridge.connection_getter = lambda _readonly: redis

    async def decr(self, key: str) -> None:
        """Take back one; never below zero, and without a change to the counter's life."""
        await self._give_back(keys=[self.bridge.prefixed_key(key)])

    async def read(self, keys: Sequence[str]) -> list[int]:
        """How far each has counted."""
        counts = await self._redis.execute_each([("GET", self.bridge.prefixed_key(key)) for key in keys])
        return [int(count or 0) for count in counts]

    async def add(self, counters: Iterable[tuple[str, int]]) -> None:
        """One more in each, of these keys and lives in seconds."""
        script, prefixed = self.bridge.SCRIPT_INCR_EXPIRE, self.bridge.prefixed_key
        # EVAL: whether a server knows the script need not be asked first.
        await self._redis.execute_each([("EVAL", script, 1, prefixed(key), seconds, 1) for key, seconds in counters])

    async def forget(self, keys: Iterable[str]) -> None:
        """As if nothing had been counted in these."""
        await self._redis.execute_each([("DEL", self.bridge.prefixed_key(key)) for key in keys])


class MemoryCounters(MemoryStorage):
    """The same in the memory of this process, for what has to go on while Redis is away."""

    async def read(self, keys: Sequence[str]) -> list[int]:
        return [await self.get(key) for key in keys]

    async def add(self, counters: Iterable[tuple[str, int]]) -> None:
        for key, seconds in counters:
            await self.incr(key, seconds)

    async def forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            await self.clear(key)


Counters = RedisCounters | MemoryCounters
