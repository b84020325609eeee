"""How long ago the journal was last known whole: the age that the feed tells, never younger than it is."""

import time
from collections.abc import Callable

_OVERDUE = 1.25
"""Seconds after the beginning of one good reading by which the next should have ended: it begins after one second."""


class Freshness:
    """Counts from the *beginning* of a reading: what was committed while it was under way may be missing from it.

    While the journal cannot be read, nobody can be logged out either, as long as it is PostgreSQL that is away. Only
    then, and only on a node that says that it is the master, a good read of the stream is worth as much.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known_at: float | None = None

    def now(self) -> float:
        """Seconds on the clock that `known_at` counts on."""
        return self._monotonic()

    @property
    def known_at(self) -> float | None:
        """When the journal was last known whole; None before it was read for the first time."""
        return self._known_at

    @property
    def age(self) -> float | None:
        """Seconds since then."""
        return None if self._known_at is None else self._monotonic() - self._known_at

    @property
    def overdue(self) -> bool:
        """Whether the journal should have been read by now, and was not."""
        age = self.age
        return age is not None and age > _OVERDUE

    def journal_was_read(self, *, began: float) -> None:
        self._known_at = began if self._known_at is None else max(self._known_at, began)

    def masters_stream_was_read(self, *, began: float) -> None:
        """Counts only while the journal is overdue, and never before it was read once."""
        if self.overdue:
            self.journal_was_read(began=began)
