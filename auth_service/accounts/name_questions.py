"""Name questions: registration has to tell that a name is taken (409). How many such names an address may find out.

A question is counted before it is answered, and forgotten if the answer was not "taken": however many are asked at
once, no more than these are answered, and what is refused looks the same for a taken name and a free one. The same
question again tells nothing new and is not counted again.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from auth_service.accounts.address_buckets import AddressBuckets, address_part, bucket_key
from auth_service.accounts.names import Name
from auth_service.errors import Taken, TooManyAttempts, Unavailable
from auth_service.metrics import THROTTLED
from auth_service.stores.rate_limits import PREFIX
from auth_service.stores.redis import RedisClient, redis_failures

_HELD_BACK = THROTTLED.labels("registration", "taken_names")

TAKEN_NAMES = 20
PERIOD = timedelta(hours=1)
"""From the first of them on."""

# One key: the questions of one address. Answers the milliseconds to wait; 0: it may be asked; -1: it was asked before.
_ASK = """
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return -1 end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return redis.call('PTTL', KEYS[1]) end
redis.call('SADD', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 0
"""


class NameQuestions:
    """Counts what registrations find out about names."""

    def __init__(self, redis: RedisClient, addresses: AddressBuckets) -> None:
        self._redis = redis
        self._ask = redis.register_script(_ASK)
        self._addresses = addresses

    @asynccontextmanager
    async def asked(self, username: Name, email: Name, *, address: str | None) -> AsyncIterator[None]:
        """The body finds out whether these are taken, and raises Taken if so. Raises TooManyAttempts, Unavailable."""
        if not self._addresses.counts(address):
            yield
            return
        key = f"{PREFIX}:names/{bucket_key(address_part(address))}"
        question = bucket_key(username.key, email.key)
        with redis_failures():
            wait = await self._ask(keys=[key], args=[question, TAKEN_NAMES, PERIOD // timedelta(milliseconds=1)])
        if wait > 0:
            _HELD_BACK.inc()
            raise TooManyAttempts("registration: taken names", retry_after=math.ceil(wait / 1000))
        taken = False
        try:
            yield
        except Taken:
            taken = True
            raise
        finally:
            if wait == 0 and not taken:
                with suppress(Unavailable), redis_failures():
                    await self._redis.srem(key, question)
