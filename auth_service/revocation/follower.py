"""Following the two sources of the live set: the stream for the milliseconds, the journal for everything the stream
lost, never got, or has from a Redis that is no longer the right one. Each is read by a task that nothing ends."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Literal

import structlog

from auth_service.background_tasks import end
from auth_service.errors import Unavailable
from auth_service.metrics import FEED_AGE, REVOCATION_LAG, STORE_UP, StoreName
from auth_service.revocation import journal
from auth_service.revocation.freshness import Freshness
from auth_service.revocation.live_set import BATCH, LiveSet
from auth_service.revocation.stream import StreamReader
from auth_service.stores.database import TIME_LIMIT, Database, takes_no_writes
from auth_service.verifier.revocations import Entry

_INTERVAL = 1.0  # seconds from the beginning of one reading of the journal to that of the next
_PATIENCE = 1.5  # seconds for one of them
_PATIENCE_WITH_ALL = 2 * TIME_LIMIT
_LONG_AWAY = 60.0  # seconds after which the journal is read from its beginning
_RETRY = 0.25  # seconds until a source that failed is tried again

_log = structlog.get_logger(__name__)


class Follower:
    """Fills `live_set` for as long as it runs, and knows how fresh it is.

    `database` and `stream` are connections of its own, which it opens and closes: requests that have used up all others
    must not age the feed.
    """

    def __init__(
        self,
        *,
        database: Database,
        stream: StreamReader,
        live_set: LiveSet,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.freshness = Freshness(monotonic)
        self.loaded = asyncio.Event()
        """Set once the whole journal has been read."""
        self._database = database
        self._stream = stream
        self._live_set = live_set
        self._last: datetime | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._database.open()
        self._tell_age()
        self._tasks = [
            asyncio.create_task(_forever(self._follow_journal, source="journal", store="postgresql")),
            asyncio.create_task(_forever(self._follow_stream, source="stream", store="redis")),
        ]

    async def stop(self) -> None:
        await end(self._tasks)
        await self._stream.close()
        await self._database.close()

    async def _follow_journal(self, succeeded: Callable[[], None]) -> None:
        while True:
            began = self.freshness.now()
            try:
                await self._read_journal(began)
                succeeded()
            finally:
                self._tell_age()
            await asyncio.sleep(began + _INTERVAL - self.freshness.now())

    def _tell_age(self) -> None:
        age = self.freshness.age
        FEED_AGE.set(math.inf if age is None else age)

    async def _read_journal(self, began: float) -> None:
        """Raises Unavailable, TimeoutError."""
        if (self.freshness.age or 0) > _LONG_AWAY:
            self._last = None
        last = self._last
        async with asyncio.timeout(_PATIENCE if last is not None else _PATIENCE_WITH_ALL):
            if last is None:
                reading = await journal.read_unexpired(self._database, self._database.clock)
            else:
                reading = await journal.read_since(self._database, self._database.clock, last)
        self._live_set.expire(reading.now)
        for batch in reading.batches(BATCH):
            self._live_set.add([entry for entry, _ in batch], source="journal")
            self._measure_lag(batch, reading.now, began=began)
            await asyncio.sleep(0)
        # A clock that went back is another server's: what it dated before we came may lie behind where we look.
        self._last = reading.now if last is None or reading.now >= last else None
        self.loaded.set()
        if reading.read_only:
            raise takes_no_writes()
        self.freshness.journal_was_read(began=began)

    def _measure_lag(self, batch: Sequence[tuple[Entry, datetime]], now: datetime, *, began: float) -> None:
        """Note how long after its revocation each entry was known here, whatever told of it: the journal alone knows
        since when it is revoked. What is there at the first reading tells nothing: this process has just begun."""
        for entry, revoked_at in batch:
            heard = self._live_set.confirm(entry)
            if heard is not None and self.loaded.is_set():
                source, at = heard
                # From the beginning of the reading, before `now` was read: rather a millisecond too much.
                REVOCATION_LAG.labels(source).observe(max((now - revoked_at).total_seconds() + at - began, 0))

    async def _follow_stream(self, succeeded: Callable[[], None]) -> None:
        while True:
            began = self.freshness.now()
            read = await self._stream.read()
            self._live_set.add(read.entries, source="stream")
            if read.complete and self.freshness.overdue and await self._stream.is_on_master():
                self.freshness.masters_stream_was_read(began=began)
            succeeded()


async def _forever(
    follow: Callable[[Callable[[], None]], Awaitable[None]], *, source: Literal["journal", "stream"], store: StoreName
) -> None:
    """Run `follow` again whenever it fails; log the first failure of a row, and its end."""
    failing = False
    up = STORE_UP.labels(store)

    def succeeded() -> None:
        nonlocal failing
        up.set(1)
        if failing:
            failing = False
            _log.info("revocation_source_back", store=source)

    while True:
        try:
            await follow(succeeded)
        except (Unavailable, TimeoutError) as exc:
            up.set(0)
            if not failing:
                failing = True
                _log.warning("revocation_source_lost", store=source, reason=str(exc) or "timed out")
        except Exception:
            # Whatever it was: without this task the feed would grow old, and every verifier with it.
            up.set(0)
            failing = True
            _log.exception("revocation_source_lost", store=source)
        await asyncio.sleep(_RETRY)
