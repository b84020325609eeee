"""The counters of the `limits` library, kept in our own Redis client: its pool, its short patience, its topology.

What is counted, and how often it may happen, is `accounts/throttle.py`'s. What is under way is `places.py`'s.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge

PREFIX = "auth:throttle"

# A counter that has been cleared or is past must not come to stand below zero, which would be attempts for nothing, nor
# be made anew, which would be without an end.
_GIVE_BACK = "if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then return redis.call('DECR', KEYS[1]) end return 0"


class RedisCounters(RedisStorage):
    """Counters in Redis, each with a life. Every script touches one key.

    The library would open a client of its own from a URL, with other time-outs; `redis` may be that of one server, of a
    master that Sentinel names, or of a cluster. It would also make a round trip for each counter: `read`, `add` and
    `forget` make one for all of theirs. Errors are those of redis-py.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        super().__init__("async+redis://", implementation="redispy", key_prefix=PREFIX)
        self._give_back = redis.register_script(_GIVE_BACK)

    def configure_bridge(self) -> None:
        bridge = self.bridge
        assert isinstance(bridge, RedispyBridge), "as asked for above"
        bridge.storage = self._redis
        bridge.connection_getter = lambda _readonly: self._redis

    async def decr(self, key: str) -> None:
        """Take back one; never below zero, and without a change to the counter's life."""
        await self._give_back(keys=[self.bridge.prefixed_key(key)])

    async def read(self, keys: Sequence[str]) -> list[int]:
        """How far each has counted."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(self.bridge.prefixed_key(key))
            return [int(count or 0) for count in await pipeline.execute()]

    async def add(self, counters: Iterable[tuple[str, int]]) -> None:
        """One more in each, of these keys and lives in seconds."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key, seconds in counters:
                # EVAL: a cluster's pipeline takes no EVALSHA.
                pipeline.eval(self.bridge.SCRIPT_INCR_EXPIRE, 1, self.bridge.prefixed_key(key), seconds, 1)
            await pipeline.execute()

    async def forget(self, keys: Iterable[str]) -> None:
        """As if nothing had been counted in these."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.delete(self.bridge.prefixed_key(key))
            await pipeline.execute()


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
