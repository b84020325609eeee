"""The revocation feed: what one client is sent, in which order, and when it ends. HTTP is the endpoint's concern."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

from auth_service.errors import Unavailable
from auth_service.metrics import FEED_CLIENTS
from auth_service.revocation.frame_log import PositionLost
from auth_service.revocation.freshness import Freshness
from auth_service.revocation.live_set import LiveSet, frame
from auth_service.revocation.snapshot import Document, Snapshots

HEARTBEAT = 1
"""Seconds between two beats."""

_PHASES = 20
"""Thousands of clients are not to be woken at once, nor each at a moment of its own: so many groups take turns."""

_EARLY = 0.005
"""Seconds by which a beat may come too soon: timers are not exact, and a second one would cost more."""

_LIVE = frame("live", {})
_BYE = frame("bye", {})


class RevocationFeed:
    """Sends the live set to any number of clients, from memory that they share."""

    def __init__(self, live_set: LiveSet, freshness: Freshness, *, issuer: str) -> None:
        self._log = live_set.log
        self._freshness = freshness
        self._snapshots = Snapshots(live_set, issuer=issuer)
        self._hello = frame("hello", {"iss": issuer, "heartbeat": HEARTBEAT})
        self._numbers = itertools.count()
        self._closing = False

    def close(self) -> None:
        """Say `bye` to every client and take no new ones: this process is going."""
        self._closing = True
        self._log.wake()

    def known_at(self) -> float:
        """When the journal was last known whole, on a monotonic clock. Raises Unavailable: not yet, or no longer."""
        if self._closing:
            raise Unavailable("draining")
        if self._freshness.known_at is None:
            raise Unavailable("the journal has not been read yet")
        return self._freshness.known_at

    async def document(self) -> tuple[Document, float]:
        """The whole set at once, and its age in seconds. Raises Unavailable."""
        document = await self._snapshots.document(known_at=self.known_at())
        return document, self._freshness.now() - document.known_at

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The events of one client: hello, the whole set, live, and then what happens, until this process goes.

        A client that has fallen behind by more than the log holds is at its end too: it had better start again.
        """
        FEED_CLIENTS.inc()
        try:
            yield self._hello
            snapshot = await self._snapshots.frames()
            for batch in snapshot.frames:
                yield batch
            chunk, position = self._log.read(snapshot.position)
            while chunk:
                yield chunk
                chunk, position = self._log.read(position)
            yield _LIVE + self._beat()
            phase = next(self._numbers) % _PHASES / _PHASES * HEARTBEAT
            now = asyncio.get_running_loop().time()
            due = now + (phase - now) % HEARTBEAT
            while not self._closing:
                chunk, position = self._log.read(position)
                now = asyncio.get_running_loop().time()
                if now >= due - _EARLY and position >= self._log.end:  # a beat says that nothing is left untold
                    chunk += self._beat()
                    due += HEARTBEAT * (1 + max(0, now - due) // HEARTBEAT)
                if chunk:
                    yield chunk
                else:
                    await self._log.wait(seconds=due - now)
            yield _BYE
        except PositionLost:
            return
        finally:
            FEED_CLIENTS.dec()

    def _beat(self) -> bytes:
        return b'event: beat\ndata: {"age":%.3f}\n\n' % (self._freshness.age or 0)
