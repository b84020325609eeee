"""The readings of the stored keys, one after the other, and waiting for one that is yet to begin.

`follower.py` reads; `key_ring.py` waits, when it is asked for a key that it does not hold.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auth_service.errors import Unavailable
from auth_service.stores.database import TIME_LIMIT

_GAP = 0.1
"""Seconds from one reading to the next at least: tokens of made-up kids are answered together, not read for each."""


class Readings:
    """What is true of all that have been begun in this process."""

    def __init__(self) -> None:
        self._begun = 0
        self._last_good = 0
        self._failed = 0
        self._wanted = asyncio.Event()
        self._ended = asyncio.Condition()

    async def next(self) -> None:
        """Return once a reading has gone well that began after this was called: it has seen whatever was stored before.

        Raises Unavailable where one has failed meanwhile, or none has ended in time.
        """
        begun, failed = self._begun, self._failed
        self._wanted.set()
        try:
            async with asyncio.timeout(TIME_LIMIT), self._ended:
                await self._ended.wait_for(lambda: self._last_good > begun or self._failed > failed)
        except TimeoutError:
            raise Unavailable("the stored keys have not been read in time") from None
        if self._last_good <= begun:
            raise Unavailable("the stored keys could not be read")

    async def pause(self, seconds: float) -> None:
        """Between two of them: `seconds`, or less where somebody waits for the next."""
        gap = min(_GAP, seconds)
        await asyncio.sleep(gap)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - gap):
                await self._wanted.wait()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """A reading, which has failed if the body raises; after it, everyone who waits is told."""
        self._begun += 1
        self._wanted.clear()
        try:
            yield
        except BaseException:
            self._failed += 1
            raise
        else:
            self._last_good = self._begun
        finally:
            async with self._ended:
                self._ended.notify_all()
