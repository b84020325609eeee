"""One attempt: its places among those that are under way, and the failures that it stands before and may leave behind.

An attempt takes its places first and then reads the failures; one that fails is counted before it frees its places. So
an earlier attempt is always seen: as running, as a failure, or for a moment as both. No step has to be atomic over two
keys, which may live on different nodes. The limits are `throttle.py`'s.
"""

import asyncio
import math
import time
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from limits import RateLimitItem

from auth_service.errors import Unavailable
from auth_service.stores.places import Places
from auth_service.stores.rate_limits import Counters
from auth_service.stores.redis import redis_failures

Bucket = Literal["address", "pair", "network", "account", "everybody"]
"""What is counted together. A pair is one account from one address. Strangers fill the last three."""


@dataclass(slots=True)
class Filled:
    """A bucket as one attempt meets it. `key` is that of its places; each window has a counter, the longest first."""

    bucket: Bucket
    key: str
    windows: Sequence[tuple[RateLimitItem, str]]
    room: int = field(init=False)
    """How many may be under way at once: as many as there may still be failures, when those were last read."""
    full: str | None = field(init=False, default=None)
    """The counter of the longest window that has all the failures it may have."""
    had_failures: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.room = min(window.amount for window, _ in self.windows)

    def note(self, failures: Sequence[int]) -> None:
        """Take in how many failures each of the windows has."""
        left = [window.amount - count for (window, _), count in zip(self.windows, failures, strict=True)]
        self.room = min(left)
        self.full = next((key for (_, key), rest in zip(self.windows, left, strict=True) if rest <= 0), None)
        self.had_failures = any(failures)


@dataclass(frozen=True, slots=True)
class Stores:
    """Where an attempt is counted: in Redis, or in the memory of this process."""

    counters: Counters
    places: Places


class Attempt:
    """Every method raises Unavailable unless it says otherwise."""

    def __init__(self, stores: Stores, buckets: Sequence[Filled]) -> None:
        self._stores = stores
        self._buckets = buckets
        self._keys = [bucket.key for bucket in buckets]
        self._id = uuid.uuid4().hex
        self._has_left = False

    async def enter(self, *, ignoring: Collection[Bucket] = ()) -> Filled | None:
        """Take the places, all or none. Returns a bucket that has no room; if there are several, one full of failures.

        Buckets in `ignoring` hold nothing back.
        """
        with redis_failures():
            positions = await self._stores.places.enter(self._id, [(each.key, each.room) for each in self._buckets])
            failures = await self._stores.counters.read([key for each in self._buckets for _, key in each.windows])
        obstacle = None
        for each, position in zip(self._buckets, positions, strict=True):
            count = len(each.windows)
            each.note(failures[:count])
            failures = failures[count:]
            fits = 0 < position <= each.room
            if each.bucket not in ignoring and (each.full or not fits) and not (obstacle and obstacle.full):
                obstacle = each if obstacle is None or each.full else obstacle
        if obstacle is not None:
            await self._leave()
        return obstacle

    async def keep(self) -> None:
        """Hold the places until cancelled. Raises nothing: a Redis that is away may be back in time."""
        # A cancellation may be swallowed (see `background_tasks.py`), and then the places would be held for ever.
        while not self._has_left:
            await asyncio.sleep(self._stores.places.life.total_seconds() / 3)
            with suppress(Unavailable), redis_failures():
                await self._stores.places.renew(self._id, self._keys)

    async def fail(self, counters: Counters | None = None) -> None:
        """Count a failure in every window, in other counters than its own if they are given."""
        with redis_failures():
            await (counters or self._stores.counters).add(
                [(key, window.get_expiry()) for each in self._buckets for window, key in each.windows]
            )

    async def forgive(self, buckets: Collection[Bucket]) -> None:
        """As if there had been no failures before it. Raises nothing: what was done is done."""
        forgiven = [each for each in self._buckets if each.bucket in buckets and each.had_failures]
        if forgiven:
            with suppress(Unavailable), redis_failures():
                await self._stores.counters.forget([key for each in forgiven for _, key in each.windows])

    async def leave(self) -> None:
        """Free the places. Raises nothing: those that Redis was not told of lapse."""
        self._has_left = True
        with suppress(Unavailable):
            await self._leave()

    async def _leave(self) -> None:
        with redis_failures():
            await self._stores.places.leave(self._id, self._keys)


async def seconds_left(counters: Counters, key: str) -> int:
    """Until the window ends that is counted under `key`. Raises Unavailable."""
    with redis_failures():
        ends = await counters.get_expiry(key)
    # One more, since Redis tells its remaining life rounded: whoever waits must not come too early.
    return max(0, math.ceil(ends - time.time())) + 1
