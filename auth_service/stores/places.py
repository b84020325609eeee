"""Places: who is under way. Each lapses by itself unless it is renewed, so a process that dies holds none for long.

How many there are of what is `accounts/throttle.py`'s.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from auth_service.stores.rate_limits import PREFIX
from auth_service.stores.redis import RedisClient

LIFE = timedelta(seconds=15)

# One key: a sorted set of who is under way, by the milliseconds at which each lapses. The time is Redis's own.
_ENTER = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local others = redis.call('ZCARD', KEYS[1])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then others = others - 1 end
if others >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return others + 1
"""
_ANY_NUMBER = 2**31


class RedisPlaces:
    """Places that all processes share. Every script touches one key. Errors are those of redis-py."""

    def __init__(self, redis: RedisClient, *, life: timedelta = LIFE) -> None:
        self._redis = redis
        self.life = life

    async def enter(self, who: str, places: Iterable[tuple[str, int]]) -> list[int]:
        """Go in wherever there are fewer than the number given with the key.

        Answers for each how many were under way then, this one included: at least as many as are still of those that
        went in before it. 0: there was no room.
        """
        life = self.life // timedelta(milliseconds=1)
        # EVAL: whether a server knows the script need not be asked first.
        commands = [("EVAL", _ENTER, 1, _prefixed(key), who, most, life) for key, most in places]
        positions: list[int] = await self._redis.execute_each(commands)
        return positions

    async def renew(self, who: str, keys: Sequence[str]) -> None:
        """Live on from now; where Redis has lost the place it is taken again."""
        await self.enter(who, [(key, _ANY_NUMBER) for key in keys])

    async def leave(self, who: str, keys: Sequence[str]) -> None:
        await self._redis.execute_each([("ZREM", _prefixed(key), who) for key in keys])


class MemoryPlaces:
    """The same in the memory of this process, with which they end."""

    life = LIFE

    def __init__(self) -> None:
        self._inside: defaultdict[str, set[str]] = defaultdict(set)

    async def enter(self, who: str, places: Iterable[tuple[str, int]]) -> list[int]:
        positions = []
        for key, most in places:
            others = len(self._inside[key] - {who})
            if others < most:
                self._inside[key].add(who)
            positions.append(others + 1 if others < most else 0)
        return positions

    async def renew(self, who: str, keys: Sequence[str]) -> None:
        """Nothing lapses here."""

    async def leave(self, who: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._inside[key].discard(who)
            if not self._inside[key]:
                del self._inside[key]


Places = RedisPlaces | MemoryPlaces


def _prefixed(key: str) -> str:
    return f"{PREFIX}:{key}"
