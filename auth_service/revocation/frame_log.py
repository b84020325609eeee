"""The last frames of the feed, in one bounded log that every client reads from at its own position.

A client costs a number here, however slow it is: there is no queue of its own that could grow.
"""

import asyncio
from collections import deque
from itertools import islice

_FRAME_OVERHEAD = 64  # bytes that Python needs for a frame beside its text
_CHUNK = 65_536  # bytes


class PositionLost(Exception):
    """What came after this position is no longer in the log."""


class FrameLog:
    """Appended to by one, read by many. `capacity` is in bytes of memory; the oldest frames give way."""

    def __init__(self, *, capacity: int = 16_777_216) -> None:
        self._capacity = capacity
        self._frames: deque[bytes] = deque()
        self._first = 0
        self._size = 0
        self._read_last: tuple[int, tuple[bytes, int]] = (-1, (b"", -1))
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def end(self) -> int:
        """The position after the last frame."""
        return self._first + len(self._frames)

    def append(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._size += len(frame) + _FRAME_OVERHEAD
        while self._size > self._capacity:
            self._size -= len(self._frames.popleft()) + _FRAME_OVERHEAD
            self._first += 1
        self.wake()

    def read(self, position: int) -> tuple[bytes, int]:
        """Frames from `position` on, 64 KiB or one frame, and the position after them; nothing where there are none.

        Raises PositionLost.
        """
        if position < self._first:
            raise PositionLost
        if position >= self.end:
            return b"", position
        # All who wait are at the same position: they share one piece of memory.
        if self._read_last[0] != position:
            frames: list[bytes] = []
            size = 0
            for frame in islice(self._frames, position - self._first, None):
                frames.append(frame)
                size += len(frame)
                if size >= _CHUNK:
                    break
            self._read_last = position, (b"".join(frames), position + len(frames))
        return self._read_last[1]

    def holds(self, position: int) -> bool:
        """True if nothing that came after `position` has been dropped."""
        return position >= self._first

    async def wait(self, *, seconds: float) -> None:
        """Return when something has been appended, when `wake` is called, or after `seconds`."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._waiting.add(waiting)
        timer = loop.call_later(seconds, _finish, waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)

    def wake(self) -> None:
        """Let every `wait` return."""
        for waiting in self._waiting:
            _finish(waiting)


def _finish(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
