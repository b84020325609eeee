"""Throttles: how often something may fail with a password or a name, and until when whoever tries is held back.

Failures are counted. An attempt that is still running may become one, so no more attempts run at once than failures are
left: sending many at once gains nothing. The others wait in line, because a success holds nobody back. A bucket belongs
to a name or an address, whether or not there is such an account, and refuses in the same words. A window begins with
its first failure. The keys hold digests.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from weakref import WeakValueDictionary

from limits import RateLimitItem, parse_many

from auth_service.accounts.address_buckets import AddressBuckets, address_part, bucket_key
from auth_service.accounts.attempt import Attempt, Bucket, Filled, Stores, seconds_left
from auth_service.address_block import block_of
from auth_service.errors import InvalidCredentials, ServiceError, Taken, TooManyAttempts, Unavailable
from auth_service.metrics import THROTTLE_FALLBACKS, THROTTLED
from auth_service.stores.places import LIFE, MemoryPlaces, RedisPlaces
from auth_service.stores.rate_limits import Counters, MemoryCounters, RedisCounters
from auth_service.stores.redis import RedisClient, redis_failures

_IN_LINE = 10.0  # seconds that an attempt waits for others that wait
_FOR_ROOM = 3.0  # seconds that the first in line waits for room: longer only where a running attempt is stuck
_LOOK_EVERY = 0.02  # seconds: about as long as one password takes to hash

_T = TypeVar("_T")

_STRANGERS: tuple[Bucket, ...] = ("network", "account", "everybody")
"""The buckets that others can fill from elsewhere."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one operation may be tried: for each bucket its windows, the longest first.

    The buckets stand in this order: first those that only the caller's own attempts fill.
    """

    operation: str
    failure: type[ServiceError] | None
    """What an attempt must end in to be counted; None: every one is counted as it begins."""
    proves: bool = False
    """Whether who succeeds has proved to be the owner: then their earlier failures are forgiven."""
    without_redis: bool = False
    """Whether it goes on while Redis is away, counted in the memory of this process."""
    address: Sequence[RateLimitItem] = ()
    pair: Sequence[RateLimitItem] = ()
    network: Sequence[RateLimitItem] = ()
    """Of an IPv6 /48, which anybody may rent: thousands of /64s, and each is an address."""
    account: Sequence[RateLimitItem] = ()
    everybody: Sequence[RateLimitItem] = ()

    def buckets(self) -> tuple[tuple[Bucket, Sequence[RateLimitItem]], ...]:
        return (
            ("address", self.address),
            ("pair", self.pair),
            ("network", self.network),
            ("account", self.account),
            ("everybody", self.everybody),
        )


LOGIN = Limits(
    "login",
    failure=InvalidCredentials,
    proves=True,
    address=parse_many("100/hour; 30/minute"),
    pair=parse_many("50/day; 20/hour; 5/minute"),
    network=parse_many("1000/hour; 120/minute"),
    # By the name that was given. An account has two, a user name and an address, so 100 in a day: line P5 of the
    # security checklist.
    account=parse_many("50/day; 30/hour; 10/minute"),
    everybody=parse_many("1200/minute"),
)
REGISTRATION = Limits(
    "registration",
    failure=None,
    address=parse_many("500/hour; 100/minute"),
    network=parse_many("1000/hour; 200/minute"),
    everybody=parse_many("600/minute"),
)
PASSWORD_CHECK = Limits(
    "password_check",
    failure=InvalidCredentials,
    proves=True,
    without_redis=True,
    address=parse_many("100/hour; 30/minute"),
    account=parse_many("30/hour; 10/minute"),
)
NEW_PASSWORD = Limits(
    "new_password",
    failure=None,
    without_redis=True,
    address=parse_many("100/hour; 30/minute"),
    account=parse_many("60/hour; 20/minute"),
)
RENAMING = Limits(
    "renaming",
    failure=Taken,
    without_redis=True,
    address=parse_many("20/hour"),
    account=parse_many("20/hour"),
)
# Created at 0 in advance: Prometheus sees no increase in the first sample of a new series.
for _limits in (LOGIN, REGISTRATION, PASSWORD_CHECK, NEW_PASSWORD, RENAMING):
    for _bucket, _windows in _limits.buckets():
        if _windows:
            THROTTLED.labels(_limits.operation, _bucket)
    if _limits.without_redis:
        THROTTLE_FALLBACKS.labels(_limits.operation)


class Throttle:
    """Counts failures, and refuses attempts that are too many. `life`: of the place of an attempt that is under way."""

    def __init__(self, redis: RedisClient, addresses: AddressBuckets, *, life: timedelta = LIFE) -> None:
        self._redis = Stores(RedisCounters(redis), RedisPlaces(redis, life=life))
        self._memory = Stores(MemoryCounters(), MemoryPlaces())
        self._addresses = addresses
        # Those of this process that wait for room in a bucket: one after the other, and only the first of them looks.
        self._lines: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def count(self, limits: Limits, *, address: str | None, account: str | None = None) -> None:
        """Count something of which every attempt counts. Raises TooManyAttempts, with how long to wait; Unavailable."""
        buckets = self._buckets(limits, address, account)
        await _or_instead(
            limits,
            self._count(self._redis.counters, limits, buckets),
            lambda: self._count(self._memory.counters, limits, buckets),
        )

    async def _count(self, counters: Counters, limits: Limits, buckets: Sequence[Filled]) -> None:
        counted = []
        for each in buckets:
            for window, key in each.windows:
                with redis_failures():
                    counted.append(key)
                    if await counters.incr(key, window.get_expiry()) <= window.amount:
                        continue
                    for number in counted:
                        await counters.decr(number)
                raise _held_back(limits, each.bucket, retry_after=await seconds_left(counters, key))

    @asynccontextmanager
    async def attempt(
        self,
        limits: Limits,
        *,
        address: str | None,
        account: str | None = None,
        is_known_here: Callable[[], Awaitable[bool]] | None = None,
    ) -> AsyncIterator[None]:
        """An attempt is under way for as long as the body runs; what it ends in says whether it was a failure.

        It may have to wait for others that are under way: three seconds, and behind others who wait longer than that
        only while they get in. `account` names the one that is tried.
        `is_known_here`: asked when there is no room in a bucket that strangers fill, and if it is so, such buckets do
        not hold the attempt back: nobody is locked out from elsewhere.

        Raises TooManyAttempts, with how long to wait; Unavailable.
        """
        buckets = self._buckets(limits, address, account)
        attempt = await _or_instead(
            limits,
            self._admit(self._redis, limits, buckets, is_known_here),
            lambda: self._admit(self._memory, limits, buckets, is_known_here),
        )
        keeping = asyncio.create_task(attempt.keep())
        try:
            yield
        except ServiceError as exc:
            if limits.failure is not None and isinstance(exc, limits.failure):
                await _or_instead(limits, attempt.fail(), lambda: attempt.fail(self._memory.counters))
            raise
        else:
            if limits.proves:
                await attempt.forgive(("account", "pair"))
        finally:
            keeping.cancel()
            await attempt.leave()

    async def _admit(
        self,
        stores: Stores,
        limits: Limits,
        buckets: Sequence[Filled],
        is_known_here: Callable[[], Awaitable[bool]] | None,
    ) -> Attempt:
        attempt = Attempt(stores, buckets)
        deadline = asyncio.get_running_loop().time() + _IN_LINE
        last = deadline + _FOR_ROOM
        ignoring: tuple[Bucket, ...] = ()
        in_line: Bucket | None = None
        async with AsyncExitStack() as line:
            # Join a line that exists already, unless it is one that strangers can make long.
            obstacle = next(
                (each for each in buckets if each.bucket not in _STRANGERS and each.key in self._lines), None
            )
            obstacle = obstacle or await attempt.enter()
            while obstacle is not None:
                if obstacle.bucket in _STRANGERS and is_known_here is not None:
                    ignoring = _STRANGERS if await is_known_here() else ()
                    is_known_here = None  # it is asked once
                elif obstacle.full is not None:
                    wait = await seconds_left(stores.counters, obstacle.full)
                    raise _held_back(limits, obstacle.bucket, retry_after=wait)
                else:
                    if in_line is not None and in_line not in _STRANGERS and obstacle.bucket in _STRANGERS:
                        await line.aclose()  # so that nobody waits behind an attempt that strangers hold back
                        in_line = None
                    lock = self._lines.setdefault(obstacle.key, asyncio.Lock())
                    try:
                        async with asyncio.timeout_at(deadline):
                            await (
                                asyncio.sleep(_LOOK_EVERY) if in_line is not None else line.enter_async_context(lock)
                            )
                    except TimeoutError:
                        raise _held_back(limits, obstacle.bucket, retry_after=1) from None
                    if in_line is None:
                        in_line = obstacle.bucket
                        deadline = min(last, asyncio.get_running_loop().time() + _FOR_ROOM)
                obstacle = await attempt.enter(ignoring=ignoring)
        return attempt

    def _buckets(self, limits: Limits, address: str | None, account: str | None) -> list[Filled]:
        """The buckets of an attempt. An address in an unthrottled network has none of its own."""
        keys: dict[Bucket, str] = {
            "pair": bucket_key(address_part(address), account),
            "account": bucket_key(account),
            "everybody": "all",
        }
        if self._addresses.counts(address):
            keys["address"] = bucket_key(address_part(address))
            if address is not None and ":" in address:
                keys["network"] = bucket_key(block_of(address, 48))
        buckets = []
        for bucket, windows in limits.buckets():
            if windows and bucket in keys:
                prefix = f"{limits.operation}/{bucket}/{keys[bucket]}"
                counters = [(window, f"{prefix}/{window.amount}/{window.get_expiry()}") for window in windows]
                buckets.append(Filled(bucket, f"{prefix}/under_way", counters))
        return buckets


async def _or_instead(limits: Limits, usual: Awaitable[_T], instead: Callable[[], Awaitable[_T]]) -> _T:
    """What `usual` comes to; where Redis is away and the operation goes on without it, what `instead` does."""
    try:
        return await usual
    except Unavailable:
        if not limits.without_redis:
            raise
        THROTTLE_FALLBACKS.labels(operation=limits.operation).inc()
        return await instead()


def _held_back(limits: Limits, bucket: Bucket, *, retry_after: int) -> TooManyAttempts:
    THROTTLED.labels(operation=limits.operation, bucket=bucket).inc()
    return TooManyAttempts(f"{limits.operation}: {bucket}", retry_after=retry_after)
