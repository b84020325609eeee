"""Announcing revocations that are committed: to this process at once, and through the stream to all others."""

import asyncio
from collections.abc import Sequence

import structlog

from auth_service.errors import Unavailable
from auth_service.revocation.live_set import LiveSet
from auth_service.revocation.stream import StreamWriter
from auth_service.verifier.revocations import Entry

_PATIENCE = 1.0  # seconds: a Redis that hangs must not hold up an answer

_log = structlog.get_logger(__name__)


class Announcer:
    """Tells of what the journal has."""

    def __init__(self, live_set: LiveSet, stream: StreamWriter) -> None:
        self._live_set = live_set
        self._stream = stream

    async def announce(self, entries: Sequence[Entry]) -> None:
        """Raises Unavailable when Redis is away: the clients of this process' own feed have heard of them even then,
        and the other processes will, from the journal, within a second or two."""
        if entries:
            self._live_set.add(entries, source="own")
            await self._stream.push(entries)

    async def announce_committed(self, entries: Sequence[Entry]) -> None:
        """The same for whoever has nothing else to tell Redis. Never fails: what is committed is answered as done."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.announce(entries)
        except (Unavailable, TimeoutError) as exc:
            _log.warning("redis_not_told_of_revocations", reason=str(exc), count=len(entries))
