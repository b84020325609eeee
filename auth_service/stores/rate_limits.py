"""The counters of the `limits` library, kept in our own Redis client: its pool, its short patience, its topology.

What is counted, and how often it may happen, is `accounts/throttle.py`'s.
"""

from typing import Any

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge

PREFIX = "auth:throttle"

# A counter that has been cleared or is past must not come to stand below zero, which would be attempts for nothing.
_GIVE_BACK = "if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then return redis.call('DECR', KEYS[1]) end return 0"


class RedisCounters(RedisStorage):
    """Counters in Redis, each with a life. Every script touches one key.

    The library would open a client of its own from a URL, with other time-outs; `redis` may be that of one server, of a
    master that Sentinel names, or of a cluster. Errors are those of redis-py.
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


Counters = RedisCounters | MemoryStorage
"""Those in memory are for what has to go on while Redis is away."""
