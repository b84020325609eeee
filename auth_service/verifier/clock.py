"""The clock of a verifier: the system's own, or one that a test moves."""

import time
from typing import Protocol


class Clock(Protocol):
    """`SystemClock`, or the clock of `testing.FakeIssuer`. A verifier takes its methods once."""

    def time(self) -> float:
        """Seconds since the epoch: what `exp` is held against."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, never set back: what ages are measured with."""
        ...


class SystemClock:
    """The clock of this machine."""

    # The functions themselves: every request reads both.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
