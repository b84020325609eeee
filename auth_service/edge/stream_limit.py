"""How many streams one client may hold open: streams are long, and each is a connection that others cannot have."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from auth_service.address_block import block_of
from auth_service.errors import TooManyAttempts

_RETRY_AFTER = 30  # seconds


class StreamLimit:
    """Counts the open streams of this process, by address; IPv6 by /64, which is what one subscriber is given."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str | None] = Counter()

    @contextmanager
    def place(self, address: str | None) -> Iterator[None]:
        """Held while a stream is open. Raises TooManyAttempts."""
        client = None if address is None else block_of(address)
        if self._open[client] >= self._limit:
            raise TooManyAttempts("too many open streams", retry_after=_RETRY_AFTER)
        self._open[client] += 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
