"""Announcing revocations that are committed: to this process at once, and through the stream to all others."""

from collections.abc import Sequence

from auth_service.revocation.live_set import LiveSet
from auth_service.revocation.stream import StreamWriter
from auth_service.verifier.revocations import Entry


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
