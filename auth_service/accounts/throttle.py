"""Throttles: how often something may be tried with a password or a name, and until when whoever tries is held back.

An attempt is counted before anything is looked up or hashed, so however many come at once, no more get through than one
by one; what turns out not to count is given back. A bucket is filled by one name or address whether or not there is
such an account, and says so in the same words. A window begins with its first attempt. The counters are Redis's
(`stores/rate_limits.py`); their keys hold digests.
"""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage

from auth_service.accounts.address_buckets import AddressBuckets, address_part, bucket_key
from auth_service.errors import InvalidCredentials, ServiceError, Taken, TooManyAttempts, Unavailable
from auth_service.metrics import THROTTLE_FALLBACKS, THROTTLED
from auth_service.stores.rate_limits import Counters, RedisCounters
from auth_service.stores.redis import redis_failures

Bucket = Literal["address", "pair", "account", "everybody"]
"""What is counted together. A pair is one account from one address. Strangers fill `account` and `everybody`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often one operation may be tried: for each bucket its windows, the longest first.

    The buckets are counted in the order in which they stand here: first those that only the caller's own attempts fill.
    """

    operation: str
    failure: type[ServiceError] | None
    """What an attempt must end in to stay counted; None: every attempt does."""
    proves: bool
    """Whether who succeeds has proved to be the owner: then their earlier failures are forgiven."""
    without_redis: bool
    """Whether it goes on while Redis is away, counted in the memory of this process."""
    address: Sequence[RateLimitItem] = ()
    pair: Sequence[RateLimitItem] = ()
    account: Sequence[RateLimitItem] = ()
    everybody: Sequence[RateLimitItem] = ()

    def buckets(self) -> tuple[tuple[Bucket, Sequence[RateLimitItem]], ...]:
        return (
            ("address", self.address),
            ("pair", self.pair),
            ("account", self.account),
            ("everybody", self.everybody),
        )


LOGIN = Limits(
    "login",
    failure=InvalidCredentials,
    proves=True,
    without_redis=False,
    address=parse_many("100/hour; 30/minute"),
    pair=parse_many("50/day; 20/hour; 5/minute"),
    # By the name that was given. An account has two, a user name and an address, so 100 in a day: SECURITY.md P5.
    account=parse_many("50/day; 30/hour; 10/minute"),
    everybody=parse_many("1200/minute"),
)
REGISTRATION = Limits(
    "registration",
    failure=None,
    proves=False,
    without_redis=False,
    address=parse_many("500/hour; 100/minute"),
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
RENAMING = Limits(
    "renaming",
    failure=Taken,
    proves=False,
    without_redis=True,
    address=parse_many("20/hour"),
    account=parse_many("20/hour"),
)


class Throttle:
    """Counts attempts, and refuses those that are too many."""

    def __init__(self, redis: Any, addresses: AddressBuckets) -> None:
        self._redis = RedisCounters(redis)
        self._memory = MemoryStorage()
        self._addresses = addresses

    @asynccontextmanager
    async def attempt(
        self,
        limits: Limits,
        *,
        address: str | None,
        account: str | None = None,
        is_known_here: Callable[[], Awaitable[bool]] | None = None,
    ) -> AsyncIterator[None]:
        """Count an attempt for as long as the body runs; what it ends in says whether it stays counted.

        `account` names the one that is tried. `is_known_here`: asked when a bucket is full that strangers fill, and if
        it is so, that bucket does not hold the attempt back: nobody is locked out from elsewhere.

        Raises TooManyAttempts, with how long to wait; Unavailable.
        """
        keys: dict[Bucket, str] = {
            "pair": bucket_key(address_part(address), account),
            "account": bucket_key(account),
            "everybody": "all",
        }
        if self._addresses.counts(address):
            keys["address"] = bucket_key(address_part(address))
        try:
            counted = await self._count(_Counted(self._redis), limits, keys, is_known_here)
        except Unavailable:
            if not limits.without_redis:
                raise
            THROTTLE_FALLBACKS.labels(operation=limits.operation).inc()
            counted = await self._count(_Counted(self._memory), limits, keys, is_known_here)
        try:
            yield
        except BaseException as exc:
            if limits.failure is not None and not isinstance(exc, limits.failure):
                await counted.give_back()
            raise
        if limits.failure is not None:
            await counted.give_back(forgiving=("account", "pair") if limits.proves else ())

    async def _count(
        self,
        counted: "_Counted",
        limits: Limits,
        keys: Mapping[Bucket, str],
        is_known_here: Callable[[], Awaitable[bool]] | None,
    ) -> "_Counted":
        known_here: bool | None = None
        for bucket, windows in limits.buckets():
            if bucket not in keys:
                continue
            prefix = f"{limits.operation}/{bucket}/{keys[bucket]}"
            wait = await counted.count(
                bucket, [(window, f"{prefix}/{window.amount}/{window.get_expiry()}") for window in windows]
            )
            if wait is None:
                continue
            if bucket in ("account", "everybody") and is_known_here is not None:
                known_here = await is_known_here() if known_here is None else known_here
                if known_here:
                    continue
            await counted.give_back()
            THROTTLED.labels(operation=limits.operation, bucket=bucket).inc()
            raise TooManyAttempts(f"{limits.operation}: {bucket}", retry_after=wait)
        return counted


class _Counted:
    """What one attempt has been counted in."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._keys: list[tuple[Bucket, str]] = []

    async def count(self, bucket: Bucket, windows: list[tuple[RateLimitItem, str]]) -> int | None:
        """Count in each window of one bucket; where one is full count in none, and answer the seconds until it ends."""
        with redis_failures():
            for number, (window, key) in enumerate(windows):
                if await self._counters.incr(key, window.get_expiry()) > window.amount:
                    ends = await self._counters.get_expiry(key)
                    for _, counted in windows[: number + 1]:
                        await self._counters.decr(counted)
                    # One more, since Redis tells its remaining life rounded: whoever waits must not come too early.
                    return max(0, math.ceil(ends - time.time())) + 1
        self._keys += [(bucket, key) for _, key in windows]
        return None

    async def give_back(self, *, forgiving: Collection[Bucket] = ()) -> None:
        """As if there had been no attempt; and none before it in the buckets that are forgiven."""
        # What was done is done: a Redis that has gone away since must not turn it into a refusal.
        with suppress(Unavailable), redis_failures():
            for bucket, key in self._keys:
                await (self._counters.clear(key) if bucket in forgiving else self._counters.decr(key))
