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
from auth_service.stores.database import Database
from auth_service.verifier.revocations import Entry

_INTERVAL = 1.0  # seconds from the beginning of one reading of the journal to that of the next
_PATIENCE = 1.5  # seconds for each statement of one that goes on from the last; PostgreSQL's own limit for all others
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
        """Set once the whole journal has been read, from a server that takes writes."""
        self._database = database
        self._stream = stream
        self._live_set = live_set
        self._last: journal.Position | None = None
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
        async with asyncio.timeout(None if self._last is None else _PATIENCE):
            position = await journal.read_position(self._database, self._database.clock)
        last = self._last if self._last is not None and position.goes_on_from(self._last) else None
        more_to_expire = True
        while more_to_expire:
            more_to_expire = self._live_set.expire(position.now)
            await asyncio.sleep(0)
        after = None
        while True:
            async with asyncio.timeout(None if last is None else _PATIENCE):
                page = await journal.read_page(self._database, position, last=last, after=after)
            for batch in page.batches(BATCH):
                self._live_set.add([entry for entry, _ in batch], source="journal")
                self._measure_lag(batch, position.now, began=began)
                await asyncio.sleep(0)
            after = page.end
            if after is None:
                break
        self._last = position
        if position.read_only:
            raise await self._database.takes_no_writes()
        self.loaded.set()
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
            for entries in read.batches():
                self._live_set.add(entries, source="stream")
                await asyncio.sleep(0)
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
