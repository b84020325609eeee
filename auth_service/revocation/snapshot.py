"""The live set written down: once for all who connect, not once for each.

Two forms: frames of the feed, which the log continues, and one JSON document for those who cannot read a feed.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

from auth_service.revocation.live_set import BATCH, LiveSet, frame

_FRAMES_LIFE = 60.0  # seconds: entries that have expired meanwhile are sent in vain
_FRAMES_BEHIND = 200  # frames of the log that may have come since
_DOCUMENT_PACE = 10
"""A document is given out for so many times as long as it took to write: whoever asks for it again and again, while
the set changes, cannot keep the process busy with writing it."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The set as frames of the feed. What came after them is in the log from `position` on."""

    frames: tuple[bytes, ...]
    position: int
    written_at: float


@dataclass(frozen=True, slots=True)
class Document:
    """The set as JSON, in pieces. Processes that hold the same set write the same bytes, and so the same `etag`.

    `known_at` is the monotonic time at which the journal was last known whole.
    """

    pieces: tuple[bytes, ...]
    length: int
    etag: str
    known_at: float
    good_until: float


class Snapshots:
    """Writes the set down when it is asked for, unless what it has will do."""

    def __init__(self, live_set: LiveSet, *, issuer: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._live_set = live_set
        self._issuer = issuer
        self._monotonic = monotonic
        self._writing = asyncio.Lock()
        self._frames: Frames | None = None
        self._document: Document | None = None

    async def frames(self) -> Frames:
        kept = self._frames
        if kept is not None and self._will_do(kept):
            return kept
        async with self._writing:
            kept = self._frames
            if kept is None or not self._will_do(kept):  # else somebody wrote it while we waited
                kept = self._frames = await self._write_frames()
            return kept

    async def document(self, *, known_at: float) -> Document:
        """`known_at`: when the journal was last known whole, as of now."""
        async with self._writing:
            kept = self._document
            if kept is None or self._monotonic() > kept.good_until:
                kept = self._document = await self._write_document(known_at)
            return kept

    def _will_do(self, kept: Frames) -> bool:
        log = self._live_set.log
        behind = log.end - kept.position
        return (
            log.holds(kept.position)
            and behind <= max(_FRAMES_BEHIND, len(kept.frames))
            and self._monotonic() - kept.written_at < _FRAMES_LIFE
        )

    async def _write_frames(self) -> Frames:
        # Position first: what is added while this is being written comes after it in the log, if not in here as well.
        position, written_at = self._live_set.log.end, self._monotonic()
        entries = self._live_set.entries()
        frames = []
        for start in range(0, len(entries), BATCH):
            frames.append(frame("revoke", entries[start : start + BATCH]))
            await asyncio.sleep(0)
        return Frames(tuple(frames), position, written_at)

    async def _write_document(self, known_at: float) -> Document:
        began = self._monotonic()
        entries = self._live_set.entries()
        entries.sort(key=itemgetter(1))
        entries.sort(key=itemgetter(0))
        pieces = [f'{{"iss":{json.dumps(self._issuer)},"revocations":['.encode("ascii")]
        for start in range(0, len(entries), BATCH):
            text = json.dumps(entries[start : start + BATCH], separators=(",", ":"))[1:-1]
            pieces.append((f",{text}" if start else text).encode("ascii"))
            await asyncio.sleep(0)
        pieces.append(b"]}")
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        now = self._monotonic()
        return Document(
            pieces=tuple(pieces),
            length=sum(map(len, pieces)),
            etag=f'"{digest.hexdigest()[:32]}"',
            known_at=known_at,
            good_until=now + _DOCUMENT_PACE * (now - began),
        )
